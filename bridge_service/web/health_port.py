"""HEALTH_PORT: the port on which a scheduler or a worker tells whether it lives, whether it is ready, and its numbers.

Importing this module is cheap. Only a process that has the port imports the web server, when it starts to serve.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Final

from prometheus_client import generate_latest
from prometheus_client.registry import Collector

from bridge_service.process.loop import Loop

if TYPE_CHECKING:
    import uvicorn

LISTENER: Final = "listener"
"""What a scheduler's /health/ready says that is missing while its LISTEN has no connection."""

STUCK_SECONDS: Final = 30.0
"""A loop that has not turned for as long stands still. Every loop turns several times in it, whatever is away."""

READY_SECONDS: Final = 1.0
"""How long an answer about readiness is good: PostgreSQL and Redis are asked at most once in it."""

REBIND_SECONDS: Final = 5.0

_logger: Final = logging.getLogger("bridge.health")


def stuck_loops(ages: Mapping[str, float]) -> list[str]:
    """Return the loops that stand still, of seconds since each of them turned; see Watchdog.ages."""
    return sorted(loop for loop, age in ages.items() if age > STUCK_SECONDS)


class HealthPort(Loop):
    """Serves /health/live, /health/ready and /metrics on a thread of its own, until the process ends.

    A port that is taken ends no service. It is told once and tried again until it is free, as when the process that is
    being replaced still drains.

    Parameters:
      host: address to listen on.
      port: likewise.
      live: returns the loops that stand still; must not wait for anything.
      ready: returns what is missing; may take seconds, and is asked at most once in READY_SECONDS.
      numbers: what /metrics shows.
      token: what a visitor has to bring for the numbers; None for nothing.
    """

    def __init__(
        self,
        host: str,
        port: int,
        *,
        live: Callable[[], Sequence[str]],
        ready: Callable[[], Sequence[str]],
        numbers: Collector,
        token: str | None,
    ) -> None:
        super().__init__("health")
        self._host = host
        self._port = port
        self._live = live
        self._ready = ready
        self._numbers = numbers
        self._token = token
        self._told = False  # that the port is taken
        self._server: uvicorn.Server | None = None

    def wake(self) -> None:
        """End the server under way."""
        if self._server is not None:
            self._server.should_exit = True

    def turn(self) -> None:
        """Serve until stopped; while the port is taken, wait."""
        try:
            self._serve()
        except OSError as error:
            if not self._told:
                _logger.warning(
                    "HEALTH_PORT %d cannot be listened on (%s): trying again until it can",
                    self._port,
                    error.strerror or error,
                )
            self._told = True
            self.pause(REBIND_SECONDS)

    def _serve(self) -> None:
        # Imported here, so that a process without the port does without their memory.
        from bridge_service.web.probes import make_app  # noqa: PLC0415
        from bridge_service.web.question import Question  # noqa: PLC0415
        from bridge_service.web.server import listen, make_server  # noqa: PLC0415

        async def numbers() -> bytes:
            return generate_latest(self._numbers)

        app = make_app(live=self._live, ready=Question(self._ready, READY_SECONDS), numbers=numbers, token=self._token)
        with listen(self._host, self._port) as listening:
            self._server = server = make_server(app)
            if not self.stopping.is_set():  # `stop` sets it before it calls `wake`
                server.run(sockets=[listening])
