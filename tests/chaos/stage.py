"""Everything that a run stands on: the servers, the proxies before them, the app's database, the processes."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

import psycopg2
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from bridge_service.demo.servers import PostgresServer, RedisServer
from bridge_service.install.plan import migrate
from bridge_service.settings.pages import VARIABLES
from tests.chaos import crowd, responder
from tests.chaos.crew import Command, Crew, Noise
from tests.chaos.model import OPENAI_TIMEOUT
from tests.chaos.ports import free_port
from tests.chaos.proxy import Proxy
from tests.support.databases import execute, make_template
from tests.support.policy import set_policy
from tests.support.quick_model import running
from tests.support.roles import APP, OWNER, ROOT, SERVICE, Urls
from tests.support.rules import lay_without

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from psycopg2.extensions import connection as Connection  # noqa: N812 - a class that psycopg2 names as a function

    from tests.support.rules import Taken

DATABASE: Final = "app"

STARTING_SECONDS: Final = 10.0

_POSTGRES: Final = {
    "max_connections": "70",
    "superuser_reserved_connections": "5",
    "max_notify_queue_pages": "64",  # so that a full queue is half a megabyte and not eight gigabytes
    "checkpoint_timeout": "30s",
    "track_commit_timestamp": "on",  # whether a human's message or a reply committed first
}
_REDIS: Final = {"busy-reply-threshold": "100"}

_NAMES: Final = {name for variable in VARIABLES for name in (variable.name, variable.other_name)}

COMMANDS: Final[dict[str, Command]] = {
    "scheduler": (sys.executable, "-m", "schedulers"),
    "worker": (sys.executable, "-m", "dramatiq", "bridge_service", "--processes", "2", "--threads", "8"),
}


DISCLOSURE: Final = "a machine writes here"
TAKEOVER_PAUSE: Final = 2.0
TACT: Final[dict[str, float | str]] = {
    "reply_parts": 3,
    "part_pause_min": 0.3,
    "part_pause_max": 0.9,
    "typing_speed_cps": 60.0,
    "takeover_pause": TAKEOVER_PAUSE,
    "disclosure": DISCLOSURE,
}
"""Policy of the bots that have tact."""

RESPONDERS: Final = {
    "plain": "tests.chaos.responder:reply",
    "async": "tests.chaos.responder:reply_async",
    "model": "openai",
}


class Stage:
    """A running PostgreSQL and Redis with proxies before them, a database with the bridge, and a crew not yet started.

    With the responder `model` there is a model's server, too.

    Parameters:
      settings: the service's variables, but for the URLs and the responder.
      responder_: one of RESPONDERS.
      taken: what to take out of the bridge once it is installed.
      commands: what starts the processes.
      logs: a folder for their lines.
      tactful: how many bots have tact, as `Habits` has it.
    """

    def __init__(
        self,
        settings: Mapping[str, str],
        responder_: str,
        taken: tuple[Taken, ...],
        commands: Mapping[str, Command],
        logs: Path,
        *,
        tactful: int = 0,
    ) -> None:
        self._open = ExitStack()
        enter = self._open.enter_context
        self.folder = Path(enter(tempfile.TemporaryDirectory(prefix="bridge-chaos-")))
        self.postgres = enter(PostgresServer(self.folder / "postgres", _POSTGRES))
        self.redis = enter(RedisServer(self.folder / "redis", appendonly=True, settings=_REDIS))
        self.postgres_link = enter(Proxy(free_port(), self.postgres.port))
        self.redis_link = enter(Proxy(free_port(), self.redis.port))
        self._install(taken, tactful)
        self.control = self.folder / "responder.json"
        responder.control(self.control)
        inherited = {name: value for name, value in os.environ.items() if name not in _NAMES}
        self._environment = {
            **inherited,
            "DATABASE_URL": f"postgresql://{SERVICE}@127.0.0.1:{self.postgres_link.port}/{DATABASE}",
            "REDIS_URL": f"redis://127.0.0.1:{self.redis_link.port}/0",
            "RESPONDER": RESPONDERS[responder_],
            responder.CONTROL: str(self.control),
            **(self._start_model() if responder_ == "model" else {}),
            "PYTHONUNBUFFERED": "1",
            **settings,
        }
        self.crew = Crew(commands, self._environment, Noise(logs))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def _start_model(self) -> dict[str, str]:
        self.model_control, self._asked = self.folder / "model.json", self.folder / "asked"
        responder.control(self.model_control)
        port = self._open.enter_context(running("tests.chaos.model", str(self.model_control), str(self._asked)))
        self.model_link = self._open.enter_context(Proxy(free_port(), int(port)))
        return {
            "OPENAI_MODEL": "local",
            "OPENAI_BASE_URL": f"http://127.0.0.1:{self.model_link.port}/v1",
            "OPENAI_TIMEOUT": f"{OPENAI_TIMEOUT:g}",
            "LIMIT_CALLS_PERSON_DAY": "100000",  # so that each call is reserved on disk before it is begun
        }

    @property
    def asked(self) -> int:
        """How many requests the model has seen."""
        return self._asked.stat().st_size if hasattr(self, "_asked") else 0

    def _install(self, taken: tuple[Taken, ...], tactful: int) -> None:
        make_template(self.postgres, DATABASE, "app.sql", *(("typing_events.sql",) if tactful else ()))
        if tactful:
            execute(self.admin_url, f"GRANT SELECT, INSERT, UPDATE ON typing_events TO {OWNER}")
        self.migrate()
        if taken:
            lay_without(self.admin_url, taken)
        with self.admin() as connection:
            crowd.settle(connection)
            for number in range(tactful):
                set_policy(Urls(self.admin_url), crowd.bot_id(number), **TACT)
            with connection.cursor() as cursor:
                cursor.execute("SELECT bridge.queue_id()")
                [[queue_id]] = cursor.fetchall()
        self.queue = f"dramatiq:{{{queue_id}}}:bot_messages"

    def verify(self) -> tuple[int, str]:
        """Run the command `verify`, past the proxy; returns its exit code and its lines."""
        done = subprocess.run(
            [sys.executable, "-m", "bridge_service", "verify"],
            cwd=ROOT,
            env={**self._environment, "DATABASE_URL": self.postgres.url(DATABASE, SERVICE)},
            capture_output=True,
            text=True,
            check=False,
        )
        return done.returncode, done.stdout + done.stderr

    def migrate(self) -> None:
        """Install the bridge, or bring it up to date."""
        migrate(self.postgres.url(DATABASE, OWNER), runtime_role=SERVICE)

    @property
    def admin_url(self) -> str:
        """The address of the app's database for the superuser, past the proxy."""
        return self.postgres.url(DATABASE)

    @property
    def app_url(self) -> str:
        """The address of the app's database for the app, past the proxy."""
        return self.postgres.url(DATABASE, APP)

    @contextmanager
    def admin(self) -> Iterator[Connection]:
        """Give a superuser's connection in autocommit mode, past the proxy."""
        options = "-c default_transaction_read_only=off"
        with closing(self._connect(options)) as connection:
            connection.autocommit = True
            yield connection

    def _connect(self, options: str) -> Connection:
        """Connect as the superuser; wait for a PostgreSQL that starts, since on a busy machine that takes seconds."""
        deadline = time.monotonic() + STARTING_SECONDS
        while True:
            try:
                return psycopg2.connect(self.admin_url, connect_timeout=5, options=options)
            except psycopg2.OperationalError as error:
                if "starting up" not in str(error) or time.monotonic() > deadline:
                    raise
                time.sleep(0.1)

    def redis_client(self, *, password: str | None = None, timeout: float = 3.0) -> redis.Redis:
        """Make a client of Redis, past the proxy, that tries once."""
        return redis.Redis(port=self.redis.port, password=password, socket_timeout=timeout, retry=Retry(NoBackoff(), 0))
