"""With HEALTH_PORT set, scheduler and worker tell their health and their numbers on it."""

from __future__ import annotations

import json
import socket
import string
from functools import partial
from typing import TYPE_CHECKING

import psutil
import pytest

from bridge_service.version import VERSION
from tests.support.http import ask, basic, free_port, samples
from tests.support.service import QUICK, Service
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from tests.support.app import App

CANARY = "canary-51c0"
ROLES = ("scheduler", "worker")


def answers(port: int, path: str, status: int, body: str) -> bool:
    """Tell whether a path gives this answer."""
    try:
        return ask(port, path)[::2] == (status, body)
    except OSError:
        return False


def numbers(port: int) -> dict[str, float]:
    """Return what a process shows."""
    return samples(ask(port, "/metrics").body)


def test_the_numbers_of_a_conversation(service: Service, app: App) -> None:
    """Of one burst and its reply each process counts its part, the worker's two processes together, and no text."""
    ports = {role: free_port() for role in ROLES}
    service.start_scheduler(HEALTH_PORT=str(ports["scheduler"]))
    service.start_worker(processes=2, HEALTH_PORT=str(ports["worker"]))
    for port in ports.values():
        eventually(lambda port=port: answers(port, "/health/ready", 200, "ready\n"))  # type: ignore[misc]
        assert answers(port, "/health/live", 200, "alive\n")

    match = app.old_match()
    app.write(match, CANARY)
    app.write(match, "ça va ?")
    app.wait_for_replies(match, f"{CANARY}\nça va ?")

    def check() -> None:
        scheduler, worker = numbers(ports["scheduler"]), numbers(ports["worker"])
        assert scheduler['bridge_events_captured_total{kind="message"}'] == 2
        assert scheduler['bridge_turns_pushed_total{kind="reply"}'] == 1
        assert scheduler["bridge_listener_connected"] == 1
        assert worker["bridge_replies_total"] == 1
        assert worker["bridge_messages_answered_total"] == 2
        assert worker["bridge_responder_duration_seconds_count"] == 1
        assert worker['bridge_duplicates_prevented_total{stage="claim"}'] == 0
        assert [shown[f'bridge_build_info{{version="{VERSION}"}}'] for shown in (scheduler, worker)] == [1, 1]

        loops = [name for port in ports.values() for name in numbers(port) if name.startswith("bridge_loop_")]
        assert {name.partition('loop="')[2].rstrip('"}') for name in loops} == {
            "planner",
            "listener",
            "deliverer",
            "alone",
            "indicator",
            "consumer",
            "leases",
            "responders",
        }

    eventually(check)
    for port in ports.values():
        assert CANARY not in ask(port, "/metrics").body
        assert match not in ask(port, "/metrics").body
    assert service.stop() == [0, 0]


@pytest.mark.parametrize("role", ROLES)
def test_alive_while_everything_is_away(role: str) -> None:
    """A process that still waits for PostgreSQL and Redis lives, and is not ready."""
    port = free_port()
    nobody = f"127.0.0.1:{free_port()}"
    environment = {"DATABASE_URL": f"postgresql://{nobody}/app", "REDIS_URL": f"redis://{nobody}"}
    missing = "not ready: database redis" + (" listener\n" if role == "scheduler" else "\n")
    with Service({**QUICK, **environment, "HEALTH_PORT": str(port)}) as service:
        service.start_scheduler() if role == "scheduler" else service.start_worker()

        eventually(lambda: answers(port, "/health/ready", 503, missing))
        assert answers(port, "/health/live", 200, "alive\n")


def test_without_the_variable_nobody_listens(service: Service) -> None:
    """Without HEALTH_PORT neither process listens on anything, PORT included."""
    service.environment["PORT"] = str(free_port())
    service.up()

    for process in service.processes:
        for pid in (process.pid, *(child.pid for child in process.children())):
            assert _listening(pid) == []


def _listening(pid: int) -> list[int]:
    """Return the ports on which a process listens."""
    return [
        connection.laddr.port
        for connection in psutil.Process(pid).net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    ]


@pytest.mark.parametrize("role", ROLES)
def test_with_a_token(service: Service, role: str) -> None:
    """With CONSOLE_TOKEN the numbers are for who brings it, the probes for everybody, and no line has it."""
    port = free_port()
    token = f"{CANARY}-{string.punctuation}"
    everywhere = "0.0.0.0"  # noqa: S104 - where it may have to be said that there is no token
    service.environment.update(HEALTH_PORT=str(port), CONSOLE_TOKEN=token, HOST=everywhere, LOG_LEVEL="DEBUG")
    process = service.start_scheduler() if role == "scheduler" else service.start_worker(processes=2)
    eventually(lambda: answers(port, "/health/ready", 200, "ready\n"))
    assert answers(port, "/health/live", 200, "alive\n")

    refused = [ask(port, "/metrics", authorization=each) for each in (None, f"Bearer {token}x", basic(token[1:]))]
    shown = [ask(port, "/metrics", authorization=each) for each in (f"Bearer {token}", basic(token))]

    assert [answer.status for answer in refused] == [401, 401, 401]
    assert {answer.headers["WWW-Authenticate"] for answer in refused} == {'Basic realm="bridge"'}
    assert [answer.status for answer in shown] == [200, 200]
    assert all("bridge_turns_pushed_total" in answer.body for answer in shown)
    assert all(CANARY not in f"{answer.headers}{answer.body}" for answer in refused + shown)
    assert service.stop() == [0]
    assert service.lines("⚙️ ", process=process)
    assert not service.lines(f"{CANARY}|🚪")


@pytest.mark.parametrize("role", ROLES)
def test_numbers_that_are_open_are_told_of(service: Service, role: str) -> None:
    """On a HOST that others reach and without a token each service says so, once; not if it serves nothing."""
    everywhere = "0.0.0.0"  # noqa: S104 - what is told of
    service.environment.update(HOST=everywhere)
    start = service.start_scheduler if role == "scheduler" else partial(service.start_worker, processes=2)
    port = free_port()
    service.wait_until_ready(start())
    serving = start(HEALTH_PORT=str(port))
    eventually(lambda: answers(port, "/health/ready", 200, "ready\n"))

    assert ask(port, "/metrics").status == 200
    assert service.stop() == [0, 0]  # after which every line is there
    [told] = service.lines("🚪")
    assert told.process == serving.name
    assert told.text.startswith("🚪 HEALTH_PORT: ")
    assert "CONSOLE_TOKEN" in told.text


@pytest.mark.parametrize("role", ROLES)
def test_a_port_that_is_taken_is_told_in_the_chosen_format(service: Service, role: str) -> None:
    """A port that somebody else has is one line of JSON like the others, and the process works without it."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        service.environment.update(HEALTH_PORT=str(taken.getsockname()[1]), LOG_FORMAT="json")
        process = service.start_scheduler() if role == "scheduler" else service.start_worker()
        service.wait_until_ready(process)

        [told] = service.wait_for_line("cannot be listened on", process=process)
        assert json.loads(told.raw)["logger"] == "bridge.health"
