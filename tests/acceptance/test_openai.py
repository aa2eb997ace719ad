"""RESPONDER=openai as it runs in production: real processes, and a model's server that counts what it is asked."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, Final

import pytest

from bridge_service.errors import EX_CONFIG
from tests.support.model_server import ModelServer, echoes_everything, says, slow, status
from tests.support.policy import set_policy
from tests.support.service import ROOT
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.app import App
    from tests.support.service import Service

CANARY: Final = "kanarienvogel"
KEY: Final = "sk-geheimnis"


@pytest.fixture
def server(service: Service) -> Iterator[ModelServer]:
    """Give a model's server that the service knows, and a service that has not started yet."""
    with ModelServer() as server:
        service.environment.update(OPENAI_BASE_URL=server.url, OPENAI_API_KEY=KEY, OPENAI_MODEL="local")
        yield server


def test_a_model_answers(service: Service, app: App, server: ModelServer) -> None:
    """A burst is one call and one reply; no line tells the key or what was said."""
    service.environment.update(RESPONDER="openai", GROUPING_DELAY="1")
    server.says(f"Salut {CANARY} !")
    service.up()
    match = app.old_match()
    for text in ("salut", f"ça va {CANARY} ?"):
        app.write(match, text)

    eventually(lambda: app.said(match) == [f"Salut {CANARY} !"])
    (call,) = server.calls
    assert call.said_by("user")[-2:] == ["salut", f"ça va {CANARY} ?"]
    assert call.headers["Authorization"] == f"Bearer {KEY}"
    service.stop()
    assert not service.lines(f"{CANARY}|{KEY}|HTTP Request")


def test_a_busy_model_is_asked_again_and_a_refusal_is_told(service: Service, app: App, server: ModelServer) -> None:
    """429 and 401 reach no person: the turn waits or tries again, the log says what to do, and one reply comes."""
    service.environment.update(RESPONDER="openai")
    server.next(status(429, {"Retry-After": "1"}), echoes_everything(401))
    service.up()
    match = app.old_match()
    app.write(match, CANARY)

    eventually(lambda: app.said(match) == ["Oui, bien sûr."], timeout=30)
    assert len(server.calls) == 3
    assert server.calls[1].began - server.calls[0].began >= 1
    service.wait_for_line("the model's server answers 401; it does not take the key: set OPENAI_API_KEY")
    assert not service.lines(f"{CANARY}|Traceback")


@pytest.mark.parametrize("responder", ["scripted", "echo", ""])
def test_without_openai_an_exported_key_spends_nothing(
    service: Service, app: App, server: ModelServer, responder: str
) -> None:
    """With key, model and address set and another responder, people are answered and the model is never asked."""
    service.environment.update(RESPONDER=responder)
    service.up()
    match = app.old_match()
    app.write(match, "salut, ça va ?")

    eventually(lambda: len(app.said(match)) == 1)
    assert not server.calls


def test_only_a_worker_with_openai_imports_the_library() -> None:
    """The library costs half a second and 20 MB: no other module than that worker's imports it."""
    look = """
import importlib, pkgutil, sys
import bridge_service, schedulers
for package in (bridge_service, schedulers):
    for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        if ".openai." not in found.name and not found.name.endswith("__main__"):
            importlib.import_module(found.name)
print(len(sys.modules) > 100, "openai" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", look], cwd=ROOT, capture_output=True, text=True, check=True)

    assert done.stdout.split() == ["True", "False"]


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"OPENAI_MODEL": ""}, "OPENAI_MODEL: not set: it must be a model's name"),
        ({"OPENAI_BASE_URL": f"http://{CANARY}.example.com"}, "OPENAI_BASE_URL: leads through a public network"),
        ({"OPENAI_TIMEOUT": "180"}, "OPENAI_TIMEOUT: not below RESPONDER_TIMEOUT"),
    ],
)
def test_a_wrong_environment_ends_the_worker(
    service: Service, server: ModelServer, changes: dict[str, str], fault: str
) -> None:
    """With exit code 78 and one line that names the variable."""
    service.environment.update(RESPONDER="openai", **changes)
    worker = service.start_worker(processes=2)

    assert worker.wait() == EX_CONFIG
    assert [line.removeprefix("❌ Erreur fatale: ")[: len(fault)] for line in service.texts("fatale")] == [fault]
    assert not service.lines(f"{CANARY}|Traceback")
    assert not server.calls


def test_a_worker_drains_while_a_model_is_slow(service: Service, app: App, server: ModelServer) -> None:
    """A stop waits for no model; the turn is given back, and the next worker's call answers it."""
    service.environment.update(RESPONDER="openai")
    server.next(slow(60, says("trop tard")))
    service.up()
    match = app.old_match()
    app.write(match, "salut")
    server.wait_for_call()

    assert set(service.stop()) == {0}
    assert server.calls[0].closed.wait(5)
    service.up()
    eventually(lambda: app.said(match) == ["Oui, bien sûr."], timeout=30)


def test_the_limit_of_calls_holds_while_workers_are_killed(service: Service, app: App, server: ModelServer) -> None:
    """The server's own counter never passes LIMIT_CALLS_PERSON_DAY; what is left waits, until the limit is raised."""
    service.environment.update(RESPONDER="openai", LIMIT_CALLS_PERSON_DAY="10")
    server.does(slow(0.3, says("oui")))
    service.up()
    set_policy(app.urls, over_limit="À demain.")
    worker = service.start_worker()
    matches = [app.old_match() for _ in range(8)]
    for calls in (3, 6, 9):
        for match in matches:
            app.write(match, "salut")
        server.wait_for_call(calls)
        service.kill(worker)
        worker = service.start_worker()

    held = "SELECT count(*) FROM bridge.turns WHERE state = 'open' AND held = 'limit_calls'"
    eventually(lambda: app.value(held) > 0, timeout=30)
    assert app.value("SELECT calls FROM bridge.budgets WHERE kind = 'person'") == 10
    assert len(server.calls) <= 10
    assert any("À demain." in app.said(match) for match in matches)
    set_policy(app.urls, limit_calls_person_day=100)
    eventually(lambda: app.value(held) == 0, timeout=30)
    eventually(lambda: len(server.calls) > 10)
