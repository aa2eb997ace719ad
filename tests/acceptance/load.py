"""`python -m tests.acceptance.load`: a load on the whole service, on servers of its own, and the books afterwards."""

from __future__ import annotations

import argparse
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from bridge_service.demo.servers import PostgresServer, RedisServer
from tests.support.app import App
from tests.support.conversations import Crowd, make_matches, plan, read_messages
from tests.support.databases import install, make_template
from tests.support.ledger import Ledger, Terms, check
from tests.support.service import QUICK, Service
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.support.roles import Urls

GROUPING_DELAY: Final = 1.0
ENVIRONMENT: Final = {
    **QUICK,
    "GROUPING_DELAY": f"{GROUPING_DELAY:g}",
    # First words race with first messages.
    "INITIATION_PROBABILITY": "0.5",
    "INITIATION_DELAY_MIN": "0",
    "INITIATION_DELAY_MAX": "3",
}

SETTLE_SECONDS: Final = 30.0
"""How long everything may take to be answered once the last message is written."""

WAITING_RATE: Final = 1000.0


@dataclass(frozen=True, slots=True)
class Load:
    """How much of everything.

    Attributes:
      rate: messages a second, in bursts.
      seconds: how long.
      conversations: how many.
      schedulers, workers: processes; each worker has one child.
      waiting: messages that are written before the service starts.
      writers: connections of the app.
    """

    rate: float = 100.0
    seconds: float = 60.0
    conversations: int = 500
    schedulers: int = 1
    workers: int = 1
    waiting: int = 0
    writers: int = 4
    seed: int = 0


def run(load: Load, service: Service, urls: Urls) -> Ledger:
    """Write the load, wait until the bridge has nothing left to do, and draw up the books.

    The books are drawn up even if that takes longer than SETTLE_SECONDS: what is unanswered by then counts as lost.
    """
    sent = []
    matches = make_matches(urls.app, load.conversations)
    if load.waiting:
        before = Crowd(
            urls.app,
            plan(
                matches,
                rate=WAITING_RATE,
                seconds=load.waiting / WAITING_RATE,
                writers=load.writers,
                seed=load.seed,
                prefix="w",
            ),
        )
        before.start()
        sent += before.join()
    service.up(load.schedulers, load.workers)
    crowd = Crowd(
        urls.app,
        plan(matches, rate=load.rate, seconds=load.seconds, writers=load.writers, seed=load.seed + 1),
        seed=1,
    )
    crowd.start()
    sent += crowd.join()
    assert not crowd.errors, f"the app's own statements failed: {crowd.errors[0]}"
    app = App(urls)
    try:
        eventually(lambda: _is_idle(app), SETTLE_SECONDS)
    except AssertionError:
        sys.stderr.write(f"not idle after {SETTLE_SECONDS:g} s\n")
    finally:
        app.close()
    return check(read_messages(urls.app), sent, Terms(GROUPING_DELAY))


def _is_idle(app: App) -> bool:
    """Only says when to stop waiting; the books do not ask the bridge."""
    return bool(
        app.value(
            "SELECT NOT EXISTS (SELECT FROM bridge.events WHERE turn_id IS NULL)"
            " AND NOT EXISTS (SELECT FROM bridge.turns WHERE due_at IS NOT NULL)"
        )
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one load; exit code 0 if no promise was broken."""
    parser = argparse.ArgumentParser(prog="python -m tests.acceptance.load", description=__doc__)
    defaults = Load()
    for name in ("rate", "seconds", "conversations", "schedulers", "workers", "waiting", "writers", "seed"):
        default = getattr(defaults, name)
        parser.add_argument(f"--{name}", type=type(default), default=default, help="default: %(default)s")
    load = Load(**vars(parser.parse_args(arguments)))
    with (
        tempfile.TemporaryDirectory(prefix="bridge-load-") as directory,
        PostgresServer(Path(directory) / "postgres") as postgres,
        RedisServer(Path(directory) / "redis") as redis_server,
    ):
        urls = make_template(postgres, "load")
        install(urls)
        with Service({"DATABASE_URL": urls.service, "REDIS_URL": redis_server.url(), **ENVIRONMENT}) as service:
            ledger = run(load, service, urls)
            codes = service.stop()
    sys.stdout.write(f"{load}\n{ledger}\nexit codes {codes}\n")
    return int(ledger.faults > 0 or any(codes))


if __name__ == "__main__":
    sys.exit(main())
