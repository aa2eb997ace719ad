"""HEALTH_PORT: where a scheduler or a worker answers /health/live, /health/ready and /metrics.

Only a process that serves the port imports the web server.
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
"""The word of a scheduler's /health/ready while its LISTEN has no connection."""

STUCK_SECONDS: Final = 30.0
"""A loop that has not turned for that long stands still. A loop turns every few seconds even during an outage."""

READY_SECONDS: Final = 1.0
"""How long an answer about readiness holds."""

REBIND_SECONDS: Final = 5.0

_logger: Final = logging.getLogger("bridge.health")


def stuck_loops(ages: Mapping[str, float]) -> list[str]:
    """Return the loops that stand still.

    Parameters:
      ages: seconds since each loop turned; see Watchdog.ages.
    """
    return sorted(loop for loop, age in ages.items() if age > STUCK_SECONDS)


class HealthPort(Loop):
    """Serves the three paths on its own thread until the process ends.

    The port may be taken, as while the process that is being replaced drains. Then one line says so, and the thread
    tries every REBIND_SECONDS.

    Parameters:
      live: returns the loops that stand still; must not wait for anything.
      ready: returns what is missing; may take seconds, and runs at most once in READY_SECONDS.
      numbers: what /metrics shows.
      token: what a visitor has to send for the numbers; None for nothing.
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
        # Imported here: a process without the port saves the memory.
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
