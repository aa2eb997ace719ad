"""What scheduler and worker tell on their port, whatever else goes wrong."""

from __future__ import annotations

import socket
import string
import threading
from contextlib import closing, contextmanager
from threading import Event, Thread
from typing import TYPE_CHECKING, Final

import pytest
from prometheus_client import CollectorRegistry, Counter

from bridge_service.errors import BridgeError, DatabaseRefused, DatabaseUnavailable, SchemaMissing
from bridge_service.watchdog import Watchdog
from bridge_service.web import probes as health
from bridge_service.web.probes import HealthServer, Remembered, missing_services, stuck_loops
from tests.support.events import Clock
from tests.support.http import ask, basic, free_port, hangs_up
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator


class Process:
    """A process that serves its health, whose state a test sets."""

    def __init__(self, token: str | None = None) -> None:
        self.stuck: list[str] = []
        self.missing: list[str] = []
        self.registry = CollectorRegistry()
        self.port = free_port()
        self.server = HealthServer(
            "127.0.0.1",
            self.port,
            live=lambda: self.stuck,
            ready=lambda: self.missing,
            registry=self.registry,
            token=token,
        )


@contextmanager
def serving(token: str | None = None) -> Iterator[Process]:
    """Let a process serve."""
    process = Process(token)
    process.server.start()
    try:
        until_served(process.port)
        yield process
    finally:
        process.server.stop()


@pytest.fixture
def process() -> Iterator[Process]:
    """Give a process that serves."""
    with serving() as process:
        yield process


def until_served(port: int) -> None:
    """Return once somebody answers on the port."""

    def check() -> bool:
        try:
            return ask(port, "/health/live").status in {200, 503}
        except OSError:
            return False

    eventually(check)


def refuses(port: int) -> bool:
    """Tell whether nobody listens on the port."""
    try:
        ask(port, "/health/live")
    except OSError:
        return True
    return False


# --- The three paths -----------------------------------------------------------------------------


def test_alive(process: Process) -> None:
    """A process whose loops turn is alive, though everything else is away."""
    process.missing = ["database", "redis"]

    answer = ask(process.port, "/health/live")

    assert (answer.status, answer.body) == (200, "alive\n")


def test_stuck(process: Process) -> None:
    """A process of which a loop stands still says which one."""
    process.stuck = ["listener"]

    answer = ask(process.port, "/health/live")

    assert (answer.status, answer.body) == (503, "stuck: listener\n")


def test_ready(process: Process) -> None:
    """A process that misses nothing is ready."""
    answer = ask(process.port, "/health/ready?probe=1")

    assert (answer.status, answer.body) == (200, "ready\n")


def test_not_ready(process: Process) -> None:
    """A process that misses something says what, in fixed words."""
    process.missing = ["schema", "redis"]

    answer = ask(process.port, "/health/ready")

    assert (answer.status, answer.body) == (503, "not ready: schema redis\n")


def test_metrics(process: Process) -> None:
    """The numbers of the registry are served as Prometheus reads them."""
    Counter("bridge_things_total", "Things.", registry=process.registry).inc(3)

    answer = ask(process.port, "/metrics")

    assert answer.status == 200
    assert answer.headers["Content-Type"].startswith("text/plain; version=")
    assert "\nbridge_things_total 3.0\n" in answer.body


@pytest.mark.parametrize("path", ["/", "/health", "/health/live/", "/../metrics", "/metrics%00"])
def test_there_is_nothing_else(process: Process, path: str) -> None:
    """Any other path is not found, and is not repeated."""
    answer = ask(process.port, path)

    assert (answer.status, answer.body) == (404, "not found\n")


def test_head(process: Process) -> None:
    """HEAD gives the status without the body."""
    answer = ask(process.port, "/health/ready", "HEAD")

    assert (answer.status, answer.body) == (200, "")


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "BREW"])
def test_no_answer_tells_a_version(process: Process, method: str) -> None:
    """No header and no body, of an error neither, names Python or its version."""
    answer = ask(process.port, "/health/live", method)

    told = f"{answer.headers}{answer.body}".lower()
    assert "python" not in told
    assert "basehttp" not in told
    assert "3." not in told


def test_liveness_is_answered_while_readiness_hangs() -> None:
    """A database that swallows packets holds the question of readiness, and nobody who asks for liveness."""
    asked, let_go = Event(), Event()

    def hang() -> list[str]:
        asked.set()
        let_go.wait()
        return []

    port = free_port()
    server = HealthServer("127.0.0.1", port, live=list, ready=hang, registry=CollectorRegistry(), token=None)
    server.start()
    until_served(port)
    thread = Thread(target=ask, args=(port, "/health/ready"))
    thread.start()
    try:
        assert asked.wait(5)
        assert ask(port, "/health/live").status == 200
    finally:
        let_go.set()
        thread.join()
        server.stop()


# --- With a token --------------------------------------------------------------------------------

TOKEN: Final = string.punctuation


@pytest.fixture
def closed() -> Iterator[Process]:
    """Give a process that serves, and asks for a token."""
    with serving(TOKEN) as process:
        Counter("bridge_things_total", "Things.", registry=process.registry).inc(3)
        yield process


@pytest.mark.parametrize("authorization", [f"Bearer {TOKEN}", basic(TOKEN), basic(TOKEN, user="")])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_the_numbers_for_who_has_the_token(closed: Process, method: str, authorization: str) -> None:
    """The token opens /metrics, as a Bearer token and as a password."""
    answer = ask(closed.port, "/metrics", method, authorization)

    assert answer.status == 200
    assert ("bridge_things_total 3.0" in answer.body) == (method == "GET")
    assert "WWW-Authenticate" not in answer.headers


@pytest.mark.parametrize("path", ["/metrics", "/metrics?x=1", "/", "/nothing", "/health", "http://x/health/live"])
@pytest.mark.parametrize("authorization", [None, "", "Bearer", f"Bearer {TOKEN}x", basic("wrong"), "Bearer é\xa0"])
def test_nothing_for_who_has_not(closed: Process, path: str, authorization: str | None) -> None:
    """Without the right token every path but the probes' says 401 and how to bring it, and nothing else."""
    answer = ask(closed.port, path, authorization=authorization)

    assert (answer.status, answer.body) == (401, "unauthorized\n")
    assert answer.headers["WWW-Authenticate"] == 'Basic realm="bridge"'
    assert answer.headers["Cache-Control"] == "no-store"


def test_probes_need_no_token(closed: Process) -> None:
    """A platform that knows no token is answered as ever, and no way round leads from there to the numbers."""
    closed.missing = ["redis"]

    assert ask(closed.port, "/health/live").body == "alive\n"
    assert ask(closed.port, "/health/ready").body == "not ready: redis\n"
    for path in ("/health/../metrics", "/health/%2e%2e/metrics", "/health//metrics", "/health/live;/metrics"):
        assert (ask(closed.port, path).status, ask(closed.port, path).body) == (404, "not found\n")


# --- Strangers -----------------------------------------------------------------------------------


def connect(port: int) -> socket.socket:
    """Connect and send nothing yet."""
    return socket.create_connection(("127.0.0.1", port), timeout=20)


@pytest.mark.parametrize("drop", [b"", b"x"])
def test_who_does_not_ask_in_time(monkeypatch: pytest.MonkeyPatch, drop: bytes) -> None:
    """Whoever sends nothing, or a header without end byte by byte, is hung up on."""
    monkeypatch.setattr(health, "REQUEST_SECONDS", 0.2)
    with serving() as process, closing(connect(process.port)) as connection:
        connection.sendall(b"GET /health/live HTTP/1.0\r\nx: " if drop else b"")

        eventually(lambda: hangs_up(connection, drop))


def test_who_comes_when_too_many_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond so many at once whoever comes is hung up on, without a thread; then the places are free again."""
    monkeypatch.setattr(health, "CONNECTIONS_AT_ONCE", 2)
    monkeypatch.setattr(health, "REQUEST_SECONDS", 60.0)
    with serving() as process:
        eventually(lambda: answering() == 0)
        with closing(connect(process.port)) as one, closing(connect(process.port)) as two:
            eventually(lambda: answering() == 2)
            for _ in range(3):
                assert refuses(process.port)
            assert answering() == 2
            for each in (one, two):
                each.sendall(b"GET /health/live HTTP/1.0\r\n\r\n")
                assert each.recv(15) == b"HTTP/1.0 200 OK"
        eventually(lambda: answering() == 0)
        for _ in range(3):
            until_served(process.port)


def answering() -> int:
    """Count the threads that answer somebody."""
    return sum("process_request_thread" in thread.name for thread in threading.enumerate())


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET / HTTP/1.0\r\n" + b"canary: x\r\n" * 200 + b"\r\n", 431),
        (b"GET / HTTP/1.0\r\ncanary: " + b"x" * 70000 + b"\r\n\r\n", 431),
        (b"GET /canary" + b"x" * 70000 + b" HTTP/1.0\r\n\r\n", 414),
        (b"POST /canary HTTP/1.0\r\n\r\n", 501),
        (b"CANARY /metrics HTTP/1.0\r\n\r\n", 501),
        (b"GET / HTTP/canary\r\n\r\n", 400),
        (b"GET /metrics canary HTTP/1.0\r\n\r\n", 400),
    ],
    ids=["headers", "header", "path", "post", "method", "version", "words"],
)
def test_what_is_not_understood(closed: Process, request_: bytes, status: int) -> None:
    """Too much, a method that there is not, and nonsense get a number, and nothing of it is repeated."""
    with closing(connect(closed.port)) as connection:
        connection.sendall(request_)
        answer = b"".join(iter(lambda: connection.recv(65536), b"")).decode()

    assert answer.endswith(f"{status}\n")
    assert "canary" not in answer.lower()
    assert "python" not in answer.lower()


# --- Start and stop ------------------------------------------------------------------------------


def test_a_taken_port_is_waited_for(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """A port that another process holds ends nothing: it is told once, and served as soon as it is free."""
    monkeypatch.setattr(health, "REBIND_SECONDS", 0.01)
    with closing(socket.create_server(("127.0.0.1", 0))) as other:
        port = other.getsockname()[1]
        server = HealthServer("127.0.0.1", port, live=list, ready=list, registry=CollectorRegistry(), token=None)
        server.start()
        eventually(lambda: "cannot be listened on" in caplog.text)

    until_served(port)
    server.stop()

    assert caplog.text.count("cannot be listened on") == 1
    assert f"HEALTH_PORT {port}" in caplog.text


def test_stopped(process: Process) -> None:
    """After `stop`, which may be called twice, nobody listens any more."""
    process.server.stop()
    process.server.stop()

    eventually(lambda: refuses(process.port))


def test_stop_before_start() -> None:
    """A server that was stopped before it started never listens."""
    process = Process()
    process.server.stop()
    process.server.start()

    eventually(lambda: all(thread.name != "health" for thread in threading.enumerate()))
    assert refuses(process.port)


# --- What is asked -------------------------------------------------------------------------------


def test_which_loops_are_stuck() -> None:
    """A loop stands still after 30 s without a turn, and turns again with the first one."""
    clock = Clock()
    watchdog = Watchdog(lambda _: None, clock=clock)
    beat = watchdog.watch("planner")
    watchdog.watch("listener")

    clock.now += 31
    assert stuck_loops(watchdog.ages()) == ["listener", "planner"]

    beat()
    assert stuck_loops(watchdog.ages()) == ["listener"]


class AwayDatabase:
    """A pool whose every call raises the same error, or none."""

    def __init__(self, error: BridgeError | None) -> None:
        self.error = error

    def call(self, *_: object) -> list[tuple[bool]]:
        """Answer, or not."""
        if self.error:
            raise self.error
        return [(True,)]


class AwayRedis:
    """A broker whose Redis answers or not."""

    def __init__(self, error: OSError | None) -> None:
        self.client = self
        self.error = error

    def ping(self) -> bool:
        """Answer, or not."""
        if self.error:
            raise self.error
        return True


@pytest.mark.parametrize(
    ("database", "redis", "missing"),
    [
        (None, None, []),
        (DatabaseUnavailable("x"), None, ["database"]),
        (DatabaseRefused("x"), None, ["database"]),
        (SchemaMissing("x"), None, ["schema"]),
        (None, ConnectionResetError("x"), ["redis"]),
        (DatabaseUnavailable("x"), TimeoutError("x"), ["database", "redis"]),
    ],
)
def test_what_is_missing(database: BridgeError | None, redis: OSError | None, missing: list[str]) -> None:
    """What does not answer is named by its fixed word, whatever it said."""
    found = missing_services(AwayDatabase(database), AwayRedis(redis))  # type: ignore[arg-type]

    assert found == missing


def test_an_answer_is_remembered_for_a_moment() -> None:
    """Who asks again within the moment gets the same answer; then it is asked anew."""
    clock = Clock()
    answers = iter(range(10))
    question = Remembered(lambda: next(answers), 2.0, clock)

    assert [question(), question()] == [0, 0]
    clock.now += 2
    assert [question(), question()] == [1, 1]


def test_an_error_is_not_remembered() -> None:
    """What the question raises is passed on, and the next who asks asks anew."""
    outcomes: list[list[str]] = [[], ["well"]]
    question = Remembered(lambda: outcomes.pop(0)[0], 2.0, Clock())

    with pytest.raises(IndexError):
        question()
    assert question() == "well"
