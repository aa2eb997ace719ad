"""The stage of the scenes: a PostgreSQL and a Redis, the app's tables and people, the bridge and its processes."""

import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from bridge_service.demo.app import App, LastingConnection
from bridge_service.demo.log import Log, LogLine, first_missing
from bridge_service.demo.model import switchable
from bridge_service.demo.processes import Processes
from bridge_service.demo.screen import Screen
from bridge_service.demo.servers import PostgresServer, RedisServer
from bridge_service.errors import BridgeError
from bridge_service.install.plan import migrate
from bridge_service.machine.database import Connection
from bridge_service.settings import Settings

READY_SECONDS: Final = 60.0

DEFAULTS: Final = {
    "GROUPING_DELAY": "3",
    "TEST_MODE": "true",
    "INITIATION_DELAY_MIN": "0",
    "INITIATION_DELAY_MAX": "3",
    "THINKING_DELAY_MIN": "0.5",
    "THINKING_DELAY_MAX": "1.5",
    "TYPING_SPEED_CPS": "25",
}
"""Shorter delays than in production; the environment's win."""

# These matches are older than the bridge, so the person writes first. The scenes make the other matches.
_OLD_MATCHES: Final = (("Léa", "Camille"), ("Hugo", "Camille"), ("Karim", "Camille"), ("Inès", "Camille"))
_READY: Final = {
    "scheduler": ("✅ Connecté à PostgreSQL", "✅ Connecté à Redis", "👂 Démarrage écoute", "✅ Écoute active"),
    "worker": ("✅ Connecté à PostgreSQL",),
}


class StageFailed(BridgeError):
    """The processes did not get ready, or ended during the scenes."""


def environment(environ: Mapping[str, str], database_url: str, redis_url: str) -> dict[str, str]:
    """Return the processes' environment: the demo's servers, lines that it can read, and delays that fit a demo."""
    defaults = {name: default for name, default in DEFAULTS.items() if not environ.get(name, "").strip()}
    own = {"DATABASE_URL": database_url, "REDIS_URL": redis_url, "LOG_LEVEL": "INFO", "LOG_FORMAT": "text"}
    # The demo kills its Redis, so the queue has to be there; empty counts as unset.
    unset = dict.fromkeys(("POSTGRES_CONNECTION_STRING", "BROKER_URL", "HEALTH_PORT"), "")
    return {**environ, **defaults, **own, **unset}


class Stage:
    """Everything that has to run. `open` starts it; the end of the block stops it.

    Raises:
      ConfigurationError: a variable of the environment is wrong; raised before anything is started.
    """

    def __init__(self, environ: Mapping[str, str], screen: Screen) -> None:
        self.screen = screen
        self.log = Log()
        self.connection: Connection
        self.app: App
        self._stack = ExitStack()
        folder = Path(
            self._stack.enter_context(tempfile.TemporaryDirectory(prefix="bridge-demo-", ignore_cleanup_errors=True))
        )
        self.postgres = PostgresServer(folder / "postgres")
        self.redis = RedisServer(folder / "redis")
        # The processes' role may only call the bridge's functions, as production should have it.
        environ = environment(environ, self.postgres.url("app", user="bridge"), self.redis.url())
        self.model_away = folder / "model-away"
        model = switchable(environ, self.model_away)
        self.switches_model = bool(model)
        try:
            self.settings = Settings.from_environ(environ)  # of the chosen responder, with what that one needs
        except BaseException:
            self._stack.close()
            raise
        self.processes = Processes(environ | model, folder / "lines.log", self._on_line)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    def open(self) -> None:
        """Start the servers and the processes, and make the app's tables.

        Raises:
          ServersMissing, ServerFailed: a server is not installed, or does not start.
          BridgeError: the tables could not be made.
        """
        self.screen.say("Starting PostgreSQL and Redis ...")
        for server in (self.postgres, self.redis):
            self._stack.callback(server.stop)
            server.start()
        self.screen.say(f"  PostgreSQL  {self.postgres.url('app')}")
        self.screen.say(f"  Redis       {self.redis.url()}")
        self._make_app()
        self.screen.say("Running the Procfile's processes ...")
        self._stack.callback(self.processes.stop)
        self.processes.start()
        self.connection = self.connect()
        self._stack.callback(self.connection.close)
        watching = self.connect()
        self._stack.callback(watching.close)
        self.app = App(self.connection, watching, self.screen)
        self._stack.callback(self.app.stop)
        self.app.start()

    def wait_until_ready(self) -> None:
        """Wait for the first lines of every process.

        Raises:
          StageFailed: they did not come.
        """

        def ready(lines: Sequence[LogLine]) -> bool:
            return not self.processes.running or all(
                first_missing([line for line in lines if line.process == process], wanted) is None
                for process, wanted in _READY.items()
            )

        if not self.log.wait(ready, 0, READY_SECONDS):
            raise StageFailed(f"the processes were not ready after {READY_SECONDS:g} s")
        self.check()
        self.processes.remember()

    def check(self) -> None:
        """Raise StageFailed if the processes have ended."""
        if not self.processes.running:
            raise StageFailed("a process has ended, and with it the others; its last lines say why")

    def pause(self, seconds: float) -> None:
        """Wait, and check the processes."""
        time.sleep(max(0.0, seconds))
        self.check()

    def connect(self) -> LastingConnection:
        """Return a connection of the app's owner."""
        return LastingConnection(self.postgres.url("app"), application="bridge demo")

    def _make_app(self) -> None:
        sql = Path(__file__).parent
        server = Connection(self.postgres.url(), application="bridge demo")
        server.execute("CREATE DATABASE app")
        server.execute("CREATE ROLE bridge LOGIN")
        server.close()
        app = self.connect()
        for file in ("app.sql", "typing_events.sql", "people.sql"):
            app.execute((sql / file).read_text(encoding="utf-8"))
        for person, bot in _OLD_MATCHES:
            app.execute(
                "INSERT INTO matches (user1_id, user2_id) SELECT p.id, b.id FROM profiles p, profiles b"
                " WHERE p.first_name = %s AND b.first_name = %s",
                (person, bot),
            )
        app.close()
        migrate(self.postgres.url("app"), runtime_role="bridge")

    def _on_line(self, line: LogLine) -> None:
        self.log.add(line)
        self.screen.line(line)
