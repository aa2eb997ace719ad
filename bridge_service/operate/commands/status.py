"""`status`: how many turns stand where, and whether PostgreSQL and Redis answer."""

import signal
import threading
from collections.abc import Mapping
from contextlib import closing
from dataclasses import asdict, dataclass
from typing import Final

from dramatiq.errors import ConnectionClosed
from rich.live import Live
from rich.table import Table

from bridge_service.brokers.broker import WaitingBroker
from bridge_service.brokers.messages import QUEUE_NAME
from bridge_service.brokers.redis_client import connect, redis_call
from bridge_service.checks import standing
from bridge_service.checks.standing import Standing
from bridge_service.errors import BridgeError
from bridge_service.machine.alive import ROLES, SILENCE_SECONDS, count_alive
from bridge_service.machine.database import Connection
from bridge_service.machine.ledger import Ledger, Status
from bridge_service.operate.output import Output, coloured, table
from bridge_service.settings import Settings

TIMEOUT_SECONDS: Final = 3.0
WATCH_SECONDS: Final = 2.0

_NOTHING_KNOWN: Final = dict.fromkeys(Status.__dataclass_fields__)


@dataclass(frozen=True, slots=True)
class Report:
    """What could be found out.

    Attributes:
      status: None if PostgreSQL did not tell.
      queue: pushes that wait in Redis for a worker; None if that is not known.
      alive: how many schedulers and workers live, by their heartbeats; None if PostgreSQL did not tell.
    """

    status: Status | None
    postgresql: Standing
    redis: Standing
    queue: int | None
    alive: Mapping[str, int] | None

    def document(self) -> dict[str, object]:
        """Return what is printed as JSON."""
        numbers = asdict(self.status) if self.status else _NOTHING_KNOWN
        return {**numbers, "redis": self.redis.word, "postgresql": self.postgresql.word}


def run(settings: Settings, output: Output) -> bool:
    """Report once; return True, also if something is away."""
    report = look(settings)
    output.document(report.document())
    output.console.print(_shown(report))
    return True


def watch(settings: Settings, output: Output) -> bool:
    """Report until Ctrl-C."""
    stopping = threading.Event()
    # Not KeyboardInterrupt: Python drops an exception that is raised in a destructor or a callback.
    before = signal.signal(signal.SIGINT, lambda *_: stopping.set())
    try:
        with Live(_shown(look(settings)), console=output.console, auto_refresh=False) as live:
            while not stopping.wait(WATCH_SECONDS):
                live.update(_shown(look(settings)), refresh=True)
    finally:
        signal.signal(signal.SIGINT, before)
    return True


def look(settings: Settings) -> Report:
    """Ask PostgreSQL and Redis."""
    postgresql, known = standing.ask_postgresql(lambda: _ask_ledger(settings))
    status, alive, queue_id = known or (None, None, None)
    queue = None if queue_id is None else _queue_length(settings.broker_url, queue_id)
    return Report(status, postgresql, _ask_redis(settings.redis_url), queue, alive)


def _ask_ledger(settings: Settings) -> tuple[Status, Mapping[str, int], str | None]:
    connection = Connection(settings.database_url, application="bridge status", seconds=TIMEOUT_SECONDS)
    with closing(connection):
        ledger = Ledger(connection, seconds=TIMEOUT_SECONDS)
        ledger.assert_complete()
        status = ledger.status()
        return status, count_alive(ledger.processes(SILENCE_SECONDS, SILENCE_SECONDS)), _queue_id(ledger)


def _queue_id(ledger: Ledger) -> str | None:
    try:
        return ledger.queue_id()
    except BridgeError:  # a standby counts turns and knows no queue
        return None


def _ask_redis(url: str) -> Standing:
    with closing(connect(url, timeout=TIMEOUT_SECONDS)) as client:
        return standing.of_redis(client.ping)


def _queue_length(url: str, queue_id: str) -> int | None:
    with closing(WaitingBroker(url, emit=lambda _: None, middleware=[], queue_id=lambda: queue_id)) as broker:
        try:
            return redis_call(lambda: int(broker.client.llen(broker.key(QUEUE_NAME))))
        except ConnectionClosed:
            return None


def _shown(report: Report) -> Table:
    values = {**report.document(), "messages in the queue": report.queue}
    values |= {f"{role}s alive": report.alive and report.alive[role] for role in ROLES}
    return table(["", ""], [(name.replace("_", " "), _cell(name, value)) for name, value in values.items()])


def _cell(name: str, value: object) -> object:
    if value is None:
        return "-"
    if isinstance(value, Mapping):
        return ", ".join(f"{count} {cause}" for cause, count in sorted(value.items())) or 0
    if name == "oldest_unanswered_seconds" and not value:
        return "no message waits"
    if name in {"redis", "postgresql"}:
        return coloured(value, good=value == standing.OK)
    return coloured(value, good=False) if value and name in {"overdue", "dead"} else value
