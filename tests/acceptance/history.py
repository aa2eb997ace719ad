"""`python -m tests.acceptance.history`: the console on a long history, on servers of its own.

It fills a database with finished turns, asks each page many times, and then lets pages follow by Server-Sent Events
while it measures what that costs PostgreSQL. Run it on a machine without other work.
"""

from __future__ import annotations

import argparse
import http.client
import subprocess
import sys
import tempfile
import time
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Thread
from typing import TYPE_CHECKING, Final

import psutil

from bridge_service.demo.servers import PostgresServer, RedisServer
from tests.support.app import App
from tests.support.databases import install, make_template
from tests.support.http import ask, free_port
from tests.support.service import ROOT
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tests.support.roles import Urls

ANSWER_SECONDS: Final = 0.3
"""Within which each page is answered, p99."""

CORE_SHARE: Final = 0.01
"""Of one core that PostgreSQL may use while pages follow."""

LOOK_SECONDS: Final = 2.05
"""The console keeps an answer for 2 s, so each of these requests asks PostgreSQL."""

BATCH: Final = 100_000

FILL: Final = (
    # Finished turns of the last 29 days: ten a conversation, one in twenty cancelled, two messages each.
    """
    INSERT INTO bridge.turns (id, kind, match_id, bot_id, state, reason, opened_at, queued_at, claimed_at, deliver_at,
                              answered_at, ended_at, reply_message_id)
    OVERRIDING SYSTEM VALUE
    SELECT n, 'reply', md5((n / 10)::text)::uuid, md5('bot' || mod(n / 10, 50))::uuid,
           CASE WHEN mod(n, 20) = 0 THEN 'cancelled' ELSE 'answered' END,
           CASE WHEN mod(n, 20) = 0 THEN 'superseded' END,
           s.at, s.at + interval '15 s', s.at + interval '15 s', s.at + interval '20 s',
           CASE WHEN mod(n, 20) <> 0 THEN s.at + interval '20 s' END, s.at + interval '20 s', gen_random_uuid()
    FROM generate_series(%(first)s::bigint, %(last)s::bigint) n
    CROSS JOIN LATERAL (SELECT now() - interval '29 days' * (1 - n / (%(turns)s + 1)::double precision) AS at) s
    """,
    """
    INSERT INTO bridge.events (kind, match_id, message_id, bot_id, turn_id, created_at, captured_at, grouped_at)
    SELECT 'message', t.match_id, md5('message' || t.id * 2 + m)::uuid, t.bot_id, t.id,
           t.opened_at, t.opened_at, t.opened_at
    FROM bridge.turns t CROSS JOIN generate_series(0, 1) m WHERE t.id BETWEEN %(first)s AND %(last)s
    """,
)
REST: Final = (
    "SELECT setval('bridge.turns_id_seq', max(id)) FROM bridge.turns",
    """
    INSERT INTO bridge.minutes (minute, answered, lateness_p50, lateness_p99, tokens)
    SELECT date_trunc('minute', now()) - interval '1 minute' * n, 20, 0.01, 0.2, 5000
    FROM generate_series(1, 43200) n ON CONFLICT DO NOTHING
    """,
    """
    INSERT INTO bridge.incidents (kind, role, happened_at, times)
    SELECT 'redis_attempt_failed', 'scheduler', now() - interval '1 minute' * n, 1 FROM generate_series(1, 20000) n
    """,
    """
    INSERT INTO bridge.bots (scope, bot_id, grouping_delay)
    SELECT 'bot', md5('bot' || n)::uuid, 10 FROM generate_series(0, 49) n
    """,
    """
    INSERT INTO bridge.turns (kind, match_id, bot_id, state, opened_at, ended_at, attempts, last_error)
    SELECT 'reply', gen_random_uuid(), md5('bot1')::uuid, 'dead', now(), now(), 5, 'ValueError: x'
    FROM generate_series(1, 200)
    """,
    "VACUUM ANALYZE",
)


@dataclass(frozen=True, slots=True)
class Measure:
    """How much of everything.

    Attributes:
      turns: finished ones.
      requests: of each page.
      pages: that follow.
      seconds: for which they follow.
    """

    turns: int = 1_000_000
    requests: int = 50
    pages: int = 3
    seconds: float = 60.0


def fill(urls: Urls, turns: int) -> str:
    """Write the history; return one of its conversations."""
    with closing(App(urls)) as app:
        app.rows("SET session_replication_role = replica")  # the rows refer to nothing of the app's
        for first in range(1, turns + 1, BATCH):
            bounds = {"first": first, "last": min(turns, first + BATCH - 1), "turns": turns}
            for statement in FILL:
                with app.connection.cursor() as cursor:
                    cursor.execute(statement, bounds)
        for statement in REST:
            app.rows(statement)
        return str(app.value("SELECT match_id FROM bridge.turns WHERE id = %s", turns // 2))


@contextmanager
def console(urls: Urls, redis_url: str) -> Iterator[int]:
    """Run the console; gives its port."""
    port = free_port()
    process = subprocess.Popen(
        (sys.executable, "-m", "bridge_service", "console"),
        cwd=ROOT,
        env={"DATABASE_URL": urls.service, "REDIS_URL": redis_url, "PORT": str(port), "PYTHONUTF8": "1"},
    )
    try:
        eventually(lambda: _answers(port), 60)
        yield port
    finally:
        process.terminate()
        process.wait(20)


def _answers(port: int) -> bool:
    try:
        return ask(port, "/health/ready").status == 200
    except OSError:
        return False


def time_of(port: int, path: str) -> float:
    """Return the seconds of one request."""
    begun = time.monotonic()
    answer = ask(port, path)
    assert answer.status == 200, f"{path}: {answer.status}"
    return time.monotonic() - begun


def follow(port: int, path: str, ended: Event) -> int:
    """Read a page's stream until the end; return how many frames came."""
    frames = 0
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=20)) as connection:
        connection.request("GET", path)
        stream = connection.getresponse()
        while not ended.is_set():
            frames += stream.readline().startswith(b"data:")
    return frames


def cpu_of(server: PostgresServer) -> float:
    """Return the CPU seconds of all of PostgreSQL's processes, with those that have ended."""
    main = psutil.Process(int((server.directory / "data" / "postmaster.pid").read_text(encoding="utf-8").split()[0]))
    own, children = main.cpu_times(), [each.cpu_times() for each in main.children()]
    ended = own.children_user + own.children_system
    return ended + sum(each.user + each.system for each in (own, *children))


def share(server: PostgresServer, seconds: float) -> float:
    """Return the share of a core that PostgreSQL uses in the next seconds."""
    before = cpu_of(server)
    time.sleep(seconds)
    return (cpu_of(server) - before) / seconds


def run(measure: Measure, server: PostgresServer, urls: Urls, redis_url: str) -> bool:
    """Measure, print, and return whether both goals are met."""
    begun = time.monotonic()
    match = fill(urls, measure.turns)
    print(f"{measure.turns} finished turns, written in {time.monotonic() - begun:.0f} s")  # noqa: T201 - a tool of the terminal
    good = True
    with console(urls, redis_url) as port:
        for path in ("/", "/bots", "/dead", "/actions", f"/conversations/{match}", "/metrics"):
            times = []
            for _ in range(measure.requests):
                times.append(time_of(port, path))
                time.sleep(LOOK_SECONDS)
            times.sort()
            p99 = times[min(len(times) - 1, int(len(times) * 0.99))]
            good &= p99 < ANSWER_SECONDS
            shown = "/conversations/ID" if path.startswith("/conversations/") else path
            print(f"{shown:18} p50 {times[len(times) // 2] * 1000:6.1f} ms   p99 {p99 * 1000:6.1f} ms")  # noqa: T201
        idle = share(server, measure.seconds)
        ended = Event()
        paths = ("/live", "/bots/live", "/dead/live")
        threads = [
            Thread(target=follow, args=(port, paths[number % len(paths)], ended)) for number in range(measure.pages)
        ]
        for thread in threads:
            thread.start()
        busy = share(server, measure.seconds)
        ended.set()
        for thread in threads:
            thread.join()
    print(f"PostgreSQL while {measure.pages} pages follow: {busy:.2%} of a core; idle {idle:.2%}")  # noqa: T201
    return good and busy - idle < CORE_SHARE


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure once; exit code 0 if the goals are met."""
    parser = argparse.ArgumentParser(prog="python -m tests.acceptance.history", description=__doc__)
    defaults = Measure()
    for name in ("turns", "requests", "pages", "seconds"):
        default = getattr(defaults, name)
        parser.add_argument(f"--{name}", type=type(default), default=default, help="default: %(default)s")
    measure = Measure(**vars(parser.parse_args(arguments)))
    with (
        tempfile.TemporaryDirectory(prefix="bridge-history-") as directory,
        PostgresServer(Path(directory) / "postgres") as postgres,
        RedisServer(Path(directory) / "redis") as redis_server,
    ):
        urls = make_template(postgres, "history")
        install(urls)
        return int(not run(measure, postgres, urls, redis_server.url()))


if __name__ == "__main__":
    sys.exit(main())
