"""The port on which scheduler and worker tell whether they live, whether they are ready, and their numbers.

Three fixed paths for a platform's probes and for Prometheus. The answers are fixed words: no version, no host, no
figure of anybody. Liveness asks the process's own loops and nothing else, or an outage of PostgreSQL would restart
every process in the middle of it.
"""

import http.server
import io
import logging
import socket
import socketserver
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from typing import TYPE_CHECKING, Final, Generic, TypeAlias, TypeVar

from dramatiq.errors import ConnectionClosed
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from bridge_service.access import CHALLENGE, REFUSAL, admits
from bridge_service.broker import WaitingBroker, redis_call
from bridge_service.database import Database
from bridge_service.errors import DatabaseRefused, DatabaseUnavailable, SchemaMissing

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

DATABASE: Final = "database"
SCHEMA: Final = "schema"
REDIS: Final = "redis"
LISTENER: Final = "listener"

STUCK_SECONDS: Final = 30.0
"""A loop that has not turned for so long stands still; every loop turns several times in it, whatever is away."""

REMEMBER_SECONDS: Final = 1.0
REBIND_SECONDS: Final = 5.0
REQUEST_SECONDS: Final = 5.0
"""How long somebody may take to ask, and then to take the answer, however little comes at a time."""

CONNECTIONS_AT_ONCE: Final = 20
"""Whoever comes while so many ask is hung up on: each takes a thread, and a descriptor that the service may need."""

PLAIN_TEXT: Final = "text/plain; charset=utf-8"

T = TypeVar("T")

_logger: Final = logging.getLogger("bridge.health")


def alive(stuck: Sequence[str]) -> tuple[HTTPStatus, str]:
    """Answer for /health/live: `alive`, or 503 and the loops that stand still."""
    return _answer("alive", "stuck", stuck)


def ready(missing: Sequence[str]) -> tuple[HTTPStatus, str]:
    """Answer for /health/ready: `ready`, or 503 and what is missing, of the words above."""
    return _answer("ready", "not ready", missing)


def _answer(well: str, unwell: str, words: Sequence[str]) -> tuple[HTTPStatus, str]:
    if not words:
        return HTTPStatus.OK, f"{well}\n"
    return HTTPStatus.SERVICE_UNAVAILABLE, f"{unwell}: {' '.join(words)}\n"


def stuck_loops(ages: Mapping[str, float]) -> list[str]:
    """Return the loops that stand still, of seconds since each of them turned; see Watchdog.ages."""
    return sorted(loop for loop, age in ages.items() if age > STUCK_SECONDS)


def missing_services(database: Database, broker: WaitingBroker) -> list[str]:
    """Ask PostgreSQL and Redis, with one call each; return which of `database`, `schema` and `redis` is missing."""
    missing = []
    try:
        database.call("SELECT bridge.assert_complete()")
    except SchemaMissing:
        missing.append(SCHEMA)
    except (DatabaseUnavailable, DatabaseRefused):
        missing.append(DATABASE)
    try:
        redis_call(broker.client.ping)
    except ConnectionClosed:
        missing.append(REDIS)
    return missing


class Remembered(Generic[T]):
    """A question whose answer is kept for a moment, so that many who ask at once cost as much as one.

    Parameters:
      ask: the question; what it raises is passed on, and not kept.
      seconds: how long an answer is good.
    """

    def __init__(
        self, ask: Callable[[], T], seconds: float = REMEMBER_SECONDS, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._ask = ask
        self._seconds = seconds
        self._clock = clock
        self._lock = threading.Lock()
        self._known: tuple[float, T] | None = None

    def __call__(self) -> T:
        """Return the answer; whoever comes while it is being asked for waits for that one."""
        with self._lock:
            if self._known is None or self._clock() - self._known[0] >= self._seconds:
                answer = self._ask()
                self._known = self._clock(), answer
            return self._known[1]


class HealthServer:
    """Serves /health/live, /health/ready and /metrics on a thread of its own, until the process ends.

    A port that is taken is no reason to end a service: that is said once, and tried again until the port is free, as
    when the process that is being replaced still drains.

    Parameters:
      host: address to listen on.
      port: likewise.
      live: returns the loops that stand still; must not wait for anything.
      ready: returns what is missing; may take seconds, and is asked at most once a second.
      registry: the numbers.
      token: what who asks for the numbers has to bring; None for nothing.
    """

    def __init__(
        self,
        host: str,
        port: int,
        *,
        live: Callable[[], list[str]],
        ready: Callable[[], list[str]],
        registry: CollectorRegistry,
        token: str | None,
    ) -> None:
        self._host = host
        self._port = port
        self._handler = _handler(_answers(live, Remembered(ready), registry), token)
        self._stopping = threading.Event()
        self._server: _Server | None = None
        self._lock = threading.Lock()

    def start(self) -> None:
        """Start serving; once."""
        threading.Thread(target=self._run, name="health", daemon=True).start()

    def stop(self) -> None:
        """Stop serving; twice is harmless, and so is stopping what never started."""
        with self._lock:
            self._stopping.set()
            server = self._server
        if server is not None:
            server.shutdown()

    def _run(self) -> None:
        server = self._bind()
        if server is None:
            return
        with server:
            with self._lock:
                if self._stopping.is_set():
                    return
                self._server = server
            server.serve_forever(poll_interval=0.1)

    def _bind(self) -> "_Server | None":
        told = False
        while not self._stopping.is_set():
            try:
                return _Server(self._host, self._port, self._handler)
            except OSError as error:
                if not told:
                    _logger.warning(
                        "HEALTH_PORT %d cannot be listened on (%s): trying again until it can",
                        self._port,
                        error.strerror,
                    )
                told = True
                self._stopping.wait(REBIND_SECONDS)
        return None


_Request: TypeAlias = socket.socket | tuple[bytes, socket.socket]


class _Server(socketserver.ThreadingTCPServer):
    # Not http.server's: that one asks the DNS for its own name before it listens.
    allow_reuse_address = True
    daemon_threads = True

    def __init__(self, host: str, port: int, handler: type[http.server.BaseHTTPRequestHandler]) -> None:
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._places = threading.BoundedSemaphore(CONNECTIONS_AT_ONCE)
        super().__init__((host, port), handler)

    def process_request(self, request: _Request, client_address: object) -> None:
        """Answer on a thread of its own, if there is a place."""
        if not self._places.acquire(blocking=False):
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except RuntimeError:  # no thread was to be had
            self._places.release()
            raise

    def process_request_thread(self, request: _Request, client_address: object) -> None:
        """Answer, and give the place back."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._places.release()

    def handle_error(self, request: object, client_address: object) -> None:
        """Do nothing: the stock method prints a traceback because somebody hung up."""


class _Hasty(socket.SocketIO):
    """Reads what comes until a deadline; the stock reader's time begins anew with each byte."""

    def __init__(self, connection: socket.socket, seconds: float) -> None:
        super().__init__(connection, "r")
        self._connection = connection
        self._deadline = time.monotonic() + seconds

    def readinto(self, buffer: "WriteableBuffer") -> int | None:
        """Read.

        Raises:
          TimeoutError: the time is over.
        """
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self._connection.settimeout(left)
        return super().readinto(buffer)


Answer: TypeAlias = tuple[HTTPStatus, str, bytes]
"""Status, content type and body."""

_REFUSED: Final[Answer] = (HTTPStatus.UNAUTHORIZED, PLAIN_TEXT, REFUSAL.encode())


def _answers(
    live: Callable[[], list[str]], missing: Callable[[], list[str]], registry: CollectorRegistry
) -> Callable[[str], Answer]:
    def answer(path: str) -> Answer:
        if path == "/metrics":
            return HTTPStatus.OK, CONTENT_TYPE_LATEST, generate_latest(registry)
        if path == "/health/live":
            status, text = alive(live())
        elif path == "/health/ready":
            status, text = ready(missing())
        else:
            status, text = HTTPStatus.NOT_FOUND, "not found\n"
        return status, PLAIN_TEXT, text.encode()

    return answer


def _handler(answer: Callable[[str], Answer], token: str | None) -> type[http.server.BaseHTTPRequestHandler]:
    class Handler(http.server.BaseHTTPRequestHandler):
        # An error repeats nothing of what was sent.
        error_message_format = "%(code)d\n"
        error_content_type = PLAIN_TEXT

        def setup(self) -> None:
            super().setup()
            self.rfile = io.BufferedReader(_Hasty(self.connection, REQUEST_SECONDS))

        def do_GET(self) -> None:
            self.connection.settimeout(REQUEST_SECONDS)
            path = self.path.partition("?")[0]
            # http.server decodes headers as Latin-1: that is how to get back what was sent.
            admitted = admits(token, path, self.headers.get("Authorization", "").encode("latin-1"))
            status, content_type, body = answer(path) if admitted else _REFUSED
            self.send_response_only(status)
            if not admitted:
                self.send_header("WWW-Authenticate", CHALLENGE)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Cache-Control", "no-store")
            self.send_header("X-Content-Type-Options", "nosniff")
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def do_HEAD(self) -> None:
            self.do_GET()

        def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
            del message, explain
            self.connection.settimeout(REQUEST_SECONDS)
            super().send_error(code)

        def version_string(self) -> str:
            """Keep the versions of Python and of its server out of the answers to what is not understood."""
            return "bridge"

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is http.server's
            """Log nothing: a probe comes every few seconds."""

    return Handler
