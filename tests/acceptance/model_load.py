"""`python -m tests.acceptance.model_load`: what people wait for while a model writes, on servers of its own.

One scheduler, one worker (--processes 2 --threads 8) and a model's server that takes its time. One line a figure;
give names to measure some of them. The figures are worth something only on a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
import threading
import time
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4

import psycopg2

from bridge_service.demo.servers import PostgresServer, RedisServer
from tests.chaos.crowd import bot_id, person_id, settle
from tests.chaos.script import BOTS, PEOPLE
from tests.chaos.test_money import LIMIT, MESSAGES, kill
from tests.support.app import App
from tests.support.databases import copy_of, install, make_template
from tests.support.quick_model import quick_model
from tests.support.roles import SERVICE
from tests.support.service import QUICK, Service
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from tests.support.quick_model import QuickModel
    from tests.support.service import ServiceProcess

MODEL_SECONDS: Final = 3.0
PATIENCE_SECONDS: Final = 180.0
SAMPLE_SECONDS: Final = 0.2
MEGABYTE: Final = 1_000_000

_MEET: Final = "INSERT INTO matches (id, user1_id, user2_id) SELECT * FROM unnest(%s::uuid[], %s::uuid[], %s::uuid[])"
_WRITE: Final = (
    "INSERT INTO messages (match_id, sender_id, content)"
    " SELECT m.id, m.user1_id, %s FROM matches m WHERE m.id = ANY (%s::uuid[])"
)
_REPLIES: Final = (
    "SELECT r.match_id::text, extract(epoch FROM r.created_at)::float8, r.content"
    " FROM messages r JOIN profiles p ON p.id = r.sender_id WHERE p.is_bot"
)
_UNDER_WAY: Final = "SELECT count(*) FROM bridge.turns WHERE state IN ('queued', 'composing', 'typing')"


@dataclass
class Scene:
    """A service and its model, and the hands of the app."""

    service: Service
    app: App
    model: QuickModel
    worker: ServiceProcess | None = None

    def start(self, **environment: str) -> None:
        """Start the processes."""
        self.service.environment.update(environment)
        scheduler = self.service.start_scheduler()
        self.worker = self.service.start_worker(processes=2, threads=8)
        for process in (scheduler, self.worker):
            self.service.wait_until_ready(process)

    def meet(self, count: int, *, person: int | None = None) -> list[str]:
        """Return so many matches from before the installation, of many people and bots or of one person."""
        matches = [str(uuid4()) for _ in range(count)]
        people = [person_id(number % PEOPLE if person is None else person) for number in range(count)]
        self.app.rows("SET session_replication_role = replica")
        self.app.rows(_MEET, matches, people, [bot_id(number % BOTS) for number in range(count)])
        self.app.rows("RESET session_replication_role")
        return matches

    def write(self, text: str, *matches: str) -> float:
        """Write a text into matches, in one transaction; return the time."""
        self.app.people.rows(_WRITE, text, list(matches))
        return time.time()

    def replies(self, count: int) -> list[tuple[str, float, str]]:
        """Return (match, time, text) of what the bots said, once there are so many."""
        eventually(lambda: len(self.app.rows(_REPLIES)) >= count, PATIENCE_SECONDS)
        return self.app.rows(_REPLIES)


@dataclass
class Samples:
    """The most of what was there at any time, and what it cost."""

    connections: int = 0
    megabytes: list[int] = field(default_factory=list)
    cpu: float = 0.0


@contextmanager
def sampled(scene: Scene) -> Iterator[Samples]:
    """Sample the service's connections to PostgreSQL and the worker's memory and CPU while the block runs."""
    assert scene.worker is not None
    children = scene.worker.children()
    samples = Samples(megabytes=[0] * len(children))
    done = threading.Event()

    def look() -> None:
        with closing(psycopg2.connect(scene.app.urls.admin)) as connection, connection.cursor() as cursor:
            connection.autocommit = True
            while not done.wait(SAMPLE_SECONDS):
                cursor.execute("SELECT count(*) FROM pg_stat_activity WHERE usename = %s", (SERVICE,))
                samples.connections = max(samples.connections, *cursor.fetchone() or (0,))
                now = [child.memory_info().rss // MEGABYTE for child in children]
                samples.megabytes = [max(pair) for pair in zip(samples.megabytes, now, strict=True)]

    def spent() -> float:
        return sum(sum(child.cpu_times()[:2]) for child in children)

    before = spent()
    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield samples
    finally:
        samples.cpu = spent() - before
        done.set()
        thread.join()


def crowd(scene: Scene) -> str:
    """Write in 1,000 conversations at once; with 200 calls a process they are three rounds of calls."""
    scene.start(RESPONDER="openai", GROUPING_DELAY="0")
    matches = scene.meet(1000)
    with sampled(scene) as samples:
        written = scene.write("salut", *matches)
        replies = scene.replies(len(matches))
    took = [at - written for _, at, _ in replies]
    return (
        f"1,000 conversations at once, a model of {MODEL_SECONDS:g} s:"
        f" last answer after {max(took):.1f} s"
        f" (p50 {share(took, 0.5):.1f} s), {len(replies)} replies, {len(scene.model.calls)} calls;"
        f" {samples.connections} connections of the service to PostgreSQL;"
        f" worker processes: RSS {' and '.join(map(str, samples.megabytes))} MB, CPU {samples.cpu:.1f} s"
    )


def due(scene: Scene) -> str:
    """Let 100 replies come due while 200 calls of 20 s are under way."""
    scene.start(RESPONDER="openai", GROUPING_DELAY="0", THINKING_DELAY_MIN="8", THINKING_DELAY_MAX="8")
    slow, quick = scene.meet(200), scene.meet(100)
    scene.write("20 s", *slow)
    eventually(lambda: len(scene.model.calls) >= len(slow), PATIENCE_SECONDS)
    scene.write("0 s", *quick)
    scene.replies(len(quick))
    under_way = sum(call.ended is None for call in scene.model.calls)
    late = scene.app.rows(
        "SELECT extract(epoch FROM m.created_at - t.deliver_at)::float8"
        " FROM bridge.turns t JOIN messages m ON m.id = t.reply_message_id"
    )
    seconds = [each for (each,) in late]
    return (
        f"{len(seconds)} replies due while {under_way} calls of 20 s are under way:"
        f" late p50 {1000 * share(seconds, 0.5):.0f} ms, p99 {1000 * share(seconds, 0.99):.0f} ms"
    )


def second(scene: Scene, count: int = 60, apart: float = 0.3) -> str:
    """Write a second message a second after the claim."""
    scene.start(RESPONDER="openai", GROUPING_DELAY="1", THINKING_DELAY_MIN="10", THINKING_DELAY_MAX="10")
    matches = scene.meet(count)
    number = {match: place for place, match in enumerate(matches)}
    began = time.time()
    claimed: dict[str, float] = {}
    written: dict[str, float] = {}
    first = 0
    while len(written) < count:
        while first < count and time.time() >= began + first * apart:
            scene.write(f"a{first}", matches[first])
            first += 1
        for (match,) in scene.app.rows("SELECT match_id::text FROM bridge.turns WHERE state = 'composing'"):
            claimed.setdefault(match, time.time())
        for match, at in claimed.items():
            if match not in written and time.time() >= at + 1:
                written[match] = scene.write(f"b{number[match]}", match)
        time.sleep(0.01)
    replies = scene.replies(count)
    took = [at - written[match] for match, at, _ in replies]
    both = sum(text == f"a{number[match]}\nb{number[match]}" for match, _, text in replies)
    by_text = {f"a{number[match]}": at for match, at in written.items()}
    closed = [call.ended - by_text[call.text] for call in scene.model.calls if call.closed and call.ended]
    return (
        f"window 1 s, thinking 10 s, a model of {MODEL_SECONDS:g} s, a second message 1 s after the claim:"
        f" {len(replies)} replies in {count} conversations, {both} of them cover both; after the second message"
        f" p50 {share(took, 0.5):.1f} s, p95 {share(took, 0.95):.1f} s;"
        f" {len(closed)} first calls closed, p95 {share(closed, 0.95):.2f} s after it"
    )


def money(scene: Scene) -> str:
    """Let one person write 1,000 messages while the worker is killed every 2 s."""
    scene.service.environment.update(RESPONDER="openai", LIMIT_CALLS_PERSON_DAY=str(LIMIT))
    scene.service.up(workers=0)
    matches = scene.meet(20, person=0)
    done = threading.Event()
    killer = threading.Thread(target=kill, args=(scene.service, done))
    killer.start()
    try:
        for place in range(MESSAGES):
            scene.write("0.3 s", matches[place % len(matches)])
            done.wait(0.03)
    finally:
        done.set()
        killer.join()
    eventually(lambda: scene.app.value(_UNDER_WAY) == 0, PATIENCE_SECONDS)
    counted = scene.app.value("SELECT calls FROM bridge.budgets WHERE kind = 'person'")
    return (
        f"LIMIT_CALLS_PERSON_DAY={LIMIT}, {MESSAGES} messages of one person, a kill every 2 s:"
        f" the server saw {len(scene.model.calls)} calls, the budget counts {counted}"
    )


def lone(scene: Scene, count: int = 200) -> str:
    """Write one message after the other."""
    scene.start(RESPONDER="echo", GROUPING_DELAY="0")
    took = []
    for place, match in enumerate(scene.meet(count)):
        written = scene.write("salut", match)
        replies = {said_in: at for said_in, at, _ in scene.replies(place + 1)}
        took.append(replies[match] - written)
        time.sleep(0.05)
    return f"a lone message, echo: p50 {1000 * share(took, 0.5):.0f} ms, p99 {1000 * share(took, 0.99):.0f} ms"


FIGURES: Final[dict[str, Callable[[Scene], str]]] = {each.__name__: each for each in (crowd, due, second, money, lone)}


def share(values: Sequence[float], part: float) -> float:
    """Return the smallest value that at least this part does not exceed."""
    return sorted(values)[max(0, math.ceil(part * len(values)) - 1)] if values else math.nan


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and print a line for each figure."""
    parser = argparse.ArgumentParser(prog="python -m tests.acceptance.model_load", description=__doc__)
    parser.add_argument("figures", nargs="*", metavar="FIGURE", help=", ".join(FIGURES))
    chosen: list[Any] = parser.parse_args(arguments).figures or list(FIGURES)
    if unknown := [name for name in chosen if name not in FIGURES]:
        parser.error(f"no such figure: {', '.join(unknown)}")
    with (
        tempfile.TemporaryDirectory(prefix="bridge-load-") as directory,
        PostgresServer(Path(directory) / "postgres") as postgres,
        RedisServer(Path(directory) / "redis") as redis_server,
    ):
        template = make_template(postgres, "model_load")
        install(template)
        with closing(psycopg2.connect(template.admin)) as connection, connection:
            settle(connection)
        for name in chosen:
            with ExitStack() as open_:
                urls = open_.enter_context(copy_of(postgres, template.name))
                model = open_.enter_context(quick_model(MODEL_SECONDS))
                environment = {
                    **QUICK,
                    "DATABASE_URL": urls.service,
                    "REDIS_URL": redis_server.url(),
                    "OPENAI_MODEL": "local",
                    "OPENAI_BASE_URL": model.url,
                }
                app = open_.enter_context(closing(App(urls)))
                service = open_.enter_context(Service(environment))
                sys.stdout.write(f"{name}: {FIGURES[name](Scene(service, app, model))}\n")
                sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
