"""At every point between two steps a process dies, hangs or repeats itself: nothing is lost, nothing is said twice."""

from __future__ import annotations

import itertools
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from tests.chaos.crashing import ACTIONS, MOMENTS, SCHEDULER_STEPS, WORKER_STEPS
from tests.support.app import CAMILLE, App
from tests.support.databases import copy_of
from tests.support.service import QUICK, Service
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bridge_service.demo.servers import PostgresServer, RedisServer
    from tests.support.roles import Urls

STEPS: Final = {"scheduler": SCHEDULER_STEPS, "worker": WORKER_STEPS}
SPRING_SECONDS: Final = 20.0
DONE_SECONDS: Final = 40.0
AT_ONCE: Final = 5
PAUSE: Final = {"THINKING_DELAY_MIN": "0.3", "THINKING_DELAY_MAX": "0.3"}
"""Its worker delivers a reply without one."""

TYPES_FOR_A_WHILE: Final = {"THINKING_DELAY_MIN": "1", "THINKING_DELAY_MAX": "1"}
"""Long enough for the next message to meet a reply under way."""


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("role", STEPS)
def test_every_crash_point(  # noqa: PLR0917 - pytest passes fixtures by name
    postgres: PostgresServer, redis_server: RedisServer, bridge_template: str, tmp_path: Path, role: str, action: str
) -> None:
    """Whichever step a process dies at, hangs at or does twice, each message has one answer, the match one opener."""
    points = [f"{moment}:{step}:{action}" for step, moment in itertools.product(STEPS[role], MOMENTS)]

    def run(number_and_point: tuple[int, str]) -> str | None:
        number, point = number_and_point
        with copy_of(postgres, bridge_template) as urls:
            environment = {
                **QUICK,
                "GROUPING_DELAY": "0.3",
                "TEST_MODE": "true",
                "INITIATION_DELAY_MAX": "0",
                "INITIATION_PROBABILITY": "1",
                **(PAUSE if "deliver_due" in point else {}),
                "DATABASE_URL": urls.service,
                "REDIS_URL": redis_server.url(number),
                **(TYPES_FOR_A_WHILE if ":overtake:" in point else {}),
                "CRASH": point,
                "CRASH_ONCE": str(tmp_path / point.replace(":", "-")),
            }
            return _problem(environment, urls)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        problems = dict(zip(points, pool.map(run, enumerate(points)), strict=True))
    assert {point: problem for point, problem in problems.items() if problem} == {}


@pytest.mark.slow
def test_a_message_that_kills_its_worker_as_it_comes_up_leaves_no_parent_behind(
    redis_server: RedisServer, bridge_database: Urls, tmp_path: Path
) -> None:
    """Nothing is handed out before Dramatiq's parent knows of the process: it ends with it, and another can start."""
    environment = {
        **QUICK,
        "GROUPING_DELAY": "0",
        "DATABASE_URL": bridge_database.service,
        "REDIS_URL": redis_server.url(),
    }
    trap = {"CRASH": "before:claim:die", "CRASH_ONCE": str(tmp_path / "once")}
    dramatiq = str(Path(sys.executable).with_name("dramatiq"))
    with Service(environment) as service, closing(App(bridge_database)) as app:
        service.start_scheduler()
        match = app.match()
        app.write(match, "salut")
        service.wait_for_line("Message poussé")
        command = (dramatiq, "tests.chaos.slow_boot", "--processes", "1", "--threads", "2")
        worker = service.start("worker", command, **trap)
        eventually(lambda: worker.exit_code is not None, 15)
        service.start_worker()
        eventually(lambda: app.said(match) == ["salut"], 25)


def _problem(environment: Mapping[str, str], urls: Urls) -> str | None:
    """Play a short conversation while the trap springs; say what came out wrong."""
    once = Path(environment["CRASH_ONCE"])
    with Service(environment) as service, closing(App(urls)) as app:
        trapped = {
            "scheduler": (sys.executable, "-m", "tests.chaos.crashing"),
            "worker": (
                str(Path(sys.executable).with_name("dramatiq")),
                "tests.chaos.crashing",
                *("--processes", "1", "--threads", "2"),
            ),
        }
        commands = {name: service.start(name, command) for name, command in trapped.items()}
        app.match()  # nobody writes there: it gets its opener
        match = app.match()
        sent = 0
        deadline = time.monotonic() + SPRING_SECONDS + DONE_SECONDS
        while time.monotonic() < deadline:
            if sent < 3 or not once.exists():
                sent += 1
                app.write(match, f"m{sent}")
            for name, process in commands.items():
                if process.exit_code is not None:  # what a platform does
                    commands[name] = service.start(name, trapped[name])
            time.sleep(0.4)
            if once.exists() and not _open_turns(app):
                break
        if not once.exists():
            return "the trap never sprang"
        return _fault(app, sent)


def _open_turns(app: App) -> int:
    return int(
        app.value(
            "SELECT (SELECT count(*) FROM bridge.events WHERE turn_id IS NULL)"
            " + (SELECT count(*) FROM bridge.turns WHERE state NOT IN ('answered', 'cancelled'))"
        )
    )


def _fault(app: App, sent: int) -> str | None:
    sql = "SELECT content FROM messages WHERE sender_id = %s ORDER BY created_at"
    replies = [content for (content,) in app.rows(sql, CAMILLE)]
    openers = replies.count("bonjour")
    covered = [line for reply in replies if reply != "bonjour" for line in reply.split("\n")]
    if covered != [f"m{number + 1}" for number in range(sent)]:
        return f"sent {sent}, covered {covered}"
    if openers not in (1, 2):  # the conversation's own opener may have been overtaken by its first message
        return f"{openers} openers"
    return None
