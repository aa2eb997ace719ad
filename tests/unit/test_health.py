"""What scheduler and worker tell on their port, whatever else goes wrong."""

from __future__ import annotations

import logging
import socket
import string
import threading
from contextlib import closing, contextmanager
from threading import Event, Thread
from typing import TYPE_CHECKING, Final

import psutil
import pytest
from prometheus_client import CollectorRegistry, Counter

from bridge_service.checks.standing import missing_services
from bridge_service.errors import BridgeError, DatabaseRefused, DatabaseUnavailable, SchemaMissing
from bridge_service.process.watchdog import Watchdog
from bridge_service.web import health_port, server
from bridge_service.web.health_port import HealthPort, stuck_loops
from tests.support.http import Answer, ask, basic, free_port, hangs_up
from tests.support.signals import Clock
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
        self.server = HealthPort(
            "127.0.0.1",
            self.port,
            live=lambda: self.stuck,
            ready=lambda: self.missing,
            numbers=self.registry,
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
    serving = HealthPort("127.0.0.1", port, live=list, ready=hang, numbers=CollectorRegistry(), token=None)
    serving.start()
    until_served(port)
    thread = Thread(target=ask, args=(port, "/health/ready"))
    thread.start()
    try:
        assert asked.wait(5)
        assert ask(port, "/health/live").status == 200
    finally:
        let_go.set()
        thread.join()
        serving.stop()


def test_every_address() -> None:
    """On `::` the port answers over IPv4, too."""
    if not socket.has_dualstack_ipv6():
        pytest.skip("this machine has no IPv6")
    port = free_port()
    serving = HealthPort("::", port, live=list, ready=list, numbers=CollectorRegistry(), token=None)
    serving.start()
    until_served(port)
    serving.stop()


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
    """The server hangs up on a visitor that sends nothing, or a header without end byte by byte."""
    monkeypatch.setattr(server, "REQUEST_SECONDS", 0.2)
    with serving() as process, closing(connect(process.port)) as connection:
        connection.sendall(b"GET /health/live HTTP/1.0\r\nx: " if drop else b"")

        eventually(lambda: hangs_up(connection, drop))


@pytest.mark.parametrize(("version", "size"), [("1.0", 2**24), ("1.1", 2**24), ("1.1", 2**19)])
def test_who_does_not_take_the_answer(monkeypatch: pytest.MonkeyPatch, version: str, size: int) -> None:
    """The server hangs up on a visitor that asks and never takes its answers, whatever their size."""
    monkeypatch.setattr(server, "REQUEST_SECONDS", 2.0)  # long enough to be seen connected on a busy machine
    with serving() as process:
        Counter("bridge_large_total", "x" * size, registry=process.registry).inc()
        with closing(connect(process.port)) as connection:
            connection.sendall(f"GET /metrics HTTP/{version}\r\nHost: x\r\n\r\n".encode() * 20)
            eventually(lambda: connected_to(process.port) == 1)
            eventually(lambda: connected_to(process.port) == 0)


def test_who_comes_when_too_many_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server hangs up on visitors beyond CONNECTIONS_AT_ONCE; later the places are free again."""
    monkeypatch.setattr(server, "CONNECTIONS_AT_ONCE", 2)
    monkeypatch.setattr(server, "REQUEST_SECONDS", 60.0)
    with serving() as process:
        eventually(lambda: connected_to(process.port) == 0)
        with closing(connect(process.port)) as one, closing(connect(process.port)) as two:
            eventually(lambda: connected_to(process.port) == 2)
            for _ in range(3):
                assert refuses(process.port)
            for each in (one, two):
                each.sendall(b"GET /health/live HTTP/1.0\r\n\r\n")
                assert each.recv(15) == b"HTTP/1.1 200 OK"
        eventually(lambda: connected_to(process.port) == 0)
        for _ in range(3):
            until_served(process.port)


def connected_to(port: int) -> int:
    """Count the connections that this process holds as a server on the port."""
    return sum(
        each.status == psutil.CONN_ESTABLISHED and each.laddr.port == port
        for each in psutil.Process().net_connections("tcp")
    )


@pytest.mark.parametrize(
    ("request_", "answer"),
    [
        (b"GET / HTTP/1.0\r\n" + b"canary: x\r\n" * 2000, b"400 Bad Request"),
        (b"GET / HTTP/1.0\r\ncanary: " + b"x" * 20000, b"400 Bad Request"),
        (b"GET /canary" + b"x" * 20000, b"400 Bad Request"),
        (b"GET / HTTP/canary\r\n\r\n", b"400 Bad Request"),
        (b"GET /metrics canary HTTP/1.0\r\n\r\n", b"400 Bad Request"),
        (b"GET /metrics HTTP/1.1\r\n\r\n", b"400 Bad Request"),
        (b"canary\r\n\r\n", b"400 Bad Request"),
        (b"\x16\x03\x01canary\r\n\r\n", b"400 Bad Request"),
        (b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\ncanary\r\n\r\n", b"400 Bad Request"),
        (b"POST /canary HTTP/1.0\r\n\r\n", b"401 Unauthorized"),
        (b"CANARY /metrics HTTP/1.0\r\n\r\n", b"401 Unauthorized"),
        (b"POST /health/live HTTP/1.0\r\n\r\n", b"405 Method Not Allowed"),
        (b"GET /health/canary/ HTTP/1.0\r\nHost: canary\r\n\r\n", b"404 Not Found"),
        (b"GET /health/live/ HTTP/1.0\r\nHost: canary\r\n\r\n", b"404 Not Found"),
    ],
)
def test_what_is_not_understood(
    closed: Process, caplog: pytest.LogCaptureFixture, request_: bytes, answer: bytes
) -> None:
    """Nonsense, too much, and what there is not get a fixed answer with the safe headers, and leave no line."""
    with caplog.at_level(logging.DEBUG), closing(connect(closed.port)) as connection:
        connection.sendall(request_)
        received = b"".join(iter(lambda: _received(connection), b""))

    *_, last = received.split(b"HTTP/1.1 ")
    assert last.startswith(answer)
    body = "unauthorized" if answer.startswith(b"401") else answer[4:].decode().lower()
    assert last.partition(b"\r\n\r\n")[2].decode() == f"{body}\n"
    assert b"x-content-type-options: nosniff\r\n" in last.lower()
    assert b"content-security-policy: default-src 'none'" in last.lower()
    for told in (received.decode().lower(), caplog.text.lower()):
        assert "canary" not in told
        assert "python" not in told
    assert not [record for record in caplog.records if record.levelno > logging.DEBUG]


def _received(connection: socket.socket) -> bytes:
    try:
        return connection.recv(65536)
    except ConnectionResetError:  # it hung up before it had read everything
        return b""


def test_an_answer_that_fails_is_told_without_its_words(closed: Process, caplog: pytest.LogCaptureFixture) -> None:
    """A probe whose question raises an unforeseen error says 500 in fixed words."""
    closed.stuck = 5  # type: ignore[assignment]

    answer = ask(closed.port, "/health/live")

    assert (answer.status, answer.body) == (500, "Internal Server Error")
    assert answer.headers["Cache-Control"] == "no-store"
    eventually(lambda: "an answer failed" in caplog.text)


# --- Start and stop ------------------------------------------------------------------------------


def test_a_taken_port_is_waited_for(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """A port that another process holds ends nothing: it is told once, and served as soon as it is free."""
    monkeypatch.setattr(health_port, "REBIND_SECONDS", 0.01)
    with closing(socket.create_server(("127.0.0.1", 0))) as other:
        port = other.getsockname()[1]
        waiting = HealthPort("127.0.0.1", port, live=list, ready=list, numbers=CollectorRegistry(), token=None)
        waiting.start()
        eventually(lambda: "cannot be listened on" in caplog.text)

    until_served(port)
    waiting.stop()

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


def test_stopped_while_a_question_hangs(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """A visitor that still waits when the server has drained is told in fixed words, and no line is written."""
    monkeypatch.setattr(server, "DRAIN_SECONDS", 0.1)
    asked, let_go = Event(), Event()

    def hang() -> list[str]:
        asked.set()
        let_go.wait()
        return []

    port = free_port()
    stopping = HealthPort("127.0.0.1", port, live=list, ready=hang, numbers=CollectorRegistry(), token=None)
    stopping.start()
    until_served(port)
    answers: list[Answer] = []
    thread = Thread(target=lambda: answers.append(ask(port, "/health/ready")))
    thread.start()
    assert asked.wait(5)
    stopping.stop()
    thread.join(10)
    let_go.set()

    assert [(answer.status, answer.body) for answer in answers] == [(503, "stopping\n")]
    assert not caplog.records


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
