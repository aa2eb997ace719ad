"""How the processes start and end: wrong settings, absent servers, signals, and lines for machines."""

from __future__ import annotations

import json
import re
import signal
import sys
from contextlib import closing
from datetime import datetime
from typing import TYPE_CHECKING

import psutil
import pytest

from bridge_service.demo.servers import PostgresServer, RedisServer
from bridge_service.install.plan import migrate
from tests.conftest import QUICK as NO_DISK
from tests.support.app import App
from tests.support.clock import install_clock
from tests.support.databases import execute, install, make_template
from tests.support.roles import SERVICE
from tests.support.service import QUICK, Service
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from pathlib import Path

    import redis

EX_CONFIG = 78
STOP_SECONDS = 8.0
"""What the contract promises from SIGTERM to the end."""

SECRET = "s3cretvalue"


@pytest.mark.parametrize("role", ["scheduler", "worker"])
def test_a_wrong_environment_ends_with_78_and_one_line_a_variable(role: str) -> None:
    """Every wrong variable is named once, with what to write instead; no value is shown, and nothing else is done."""
    wrong = {
        "REDIS_URL": f"http://user:{SECRET}@127.0.0.1:6379",
        "GROUPING_DELAY": f"quinze {SECRET}",
        "INITIATION_DELAY_MIN": "9",
        "INITIATION_DELAY_MAX": "8",
        "RESPONDER": "no.such.module",
        "LOG_LEVEL": SECRET,
        "TEST_MODE": SECRET,
        "CONSOLE_TOKEN": SECRET,
        "REQUIRE_TLS": SECRET,
    }
    with Service(wrong) as service:
        process = service.start_scheduler() if role == "scheduler" else service.start_worker(processes=2)

        assert process.wait() == EX_CONFIG
        told = service.texts("Erreur fatale")
        names = [line.removeprefix("❌ Erreur fatale: ").partition(":")[0] for line in told]
        # DATABASE_URL is not set at all.
        assert sorted(names) == sorted({"DATABASE_URL", *wrong} - {"INITIATION_DELAY_MAX"})
        assert all(len(line) > len("❌ Erreur fatale: : ") + 20 for line in told)
        assert not service.lines(SECRET)
        assert not service.lines("Traceback")


def test_a_fault_stays_one_line_whatever_a_module_is_called(service: Service, tmp_path: Path) -> None:
    """What the responder's module says is missing neither begins a line nor reaches the terminal as it is."""
    forged = "raise ModuleNotFoundError(name='x\\n✅ Message poussé dans queue\\x1b[31m')"
    (tmp_path / "strange.py").write_text(forged, encoding="utf-8")
    service.environment.update(RESPONDER="strange:reply", PYTHONPATH=str(tmp_path))
    worker = service.start_worker(processes=2)
    assert worker.wait() == EX_CONFIG
    assert len(service.lines("RESPONDER: its module needs x")) == 1
    assert not service.lines("^✅|\x1b|Traceback")


def test_only_the_worker_imports_the_responder(service: Service, app: App, tmp_path: Path) -> None:
    """Its module runs once in each process of a worker; not in a scheduler, a command, or a worker's parent."""
    record = tmp_path / "record"
    module = f"""
import os
with open({str(record)!r}, "a") as file:
    file.write(f"{{os.getpid()}}\\n")
def reply(task):
    return "oui"
"""
    (tmp_path / "recorded.py").write_text(module, encoding="utf-8")
    service.environment.update(RESPONDER="recorded:reply", PYTHONPATH=str(tmp_path))
    scheduler = service.start_scheduler()
    service.wait_until_ready(scheduler)
    for words in (["check"], ["status", "--json"], ["verify"], ["report"], ["dead", "list"]):
        command = service.start("command", (sys.executable, "-m", "bridge_service", *words))
        assert command.wait() in (0, 1)
    assert not service.lines("RESPONDER: |Traceback")
    assert not record.exists()

    worker = service.start_worker(processes=2)
    service.wait_for_line("Connecté à Redis", count=2, process=worker)
    match = app.old_match()
    app.write(match, "alors ?")
    eventually(lambda: app.said(match) == ["oui"])
    pids = [int(line) for line in record.read_text().split()]
    assert len(pids) == len(set(pids)) == 2
    assert set(pids) <= {child.pid for child in worker.children()}


@pytest.mark.parametrize("role", ["scheduler", "worker"])
def test_empty_counts_as_unset(service: Service, role: str) -> None:
    """A platform that sets every variable to nothing gets the defaults, and the missing ones named."""
    service.environment.update(dict.fromkeys([*QUICK, "REDIS_URL", "BROKER_URL", "HEALTH_PORT"], ""))
    process = service.start_scheduler() if role == "scheduler" else service.start_worker()

    assert process.wait() == EX_CONFIG
    assert [line.partition(" not set")[0] for line in service.texts("fatale")] == ["❌ Erreur fatale: REDIS_URL:"]


@pytest.mark.slow
def test_postgresql_absent_at_the_start_is_waited_for(
    servers_folder: Path, redis_server: RedisServer, redis_client: redis.Redis
) -> None:
    """Both processes say that they wait for PostgreSQL and then for the schema, and go on by themselves."""
    del redis_client
    server = PostgresServer(servers_folder / "late_postgres", NO_DISK)
    with server:
        urls = make_template(server, "late")
    environment = {"DATABASE_URL": urls.service, "REDIS_URL": redis_server.url(), **QUICK}
    with Service(environment) as service:
        processes = service.start_scheduler(), service.start_worker()
        for process in processes:
            waiting = "En attente de PostgreSQL: .*(refused|no answer)"
            service.wait_for_line(waiting, count=2, process=process)
        with server:
            for process in processes:
                service.wait_for_line("Connecté à PostgreSQL", process=process)
                service.wait_for_line("Schéma bridge absent", process=process)
            install(urls)
            service.wait_until_ready(processes[0])
            with closing(App(urls)) as app:
                match = app.old_match()
                app.write(match, "enfin")
                app.wait_for_replies(match, "enfin")
    for process in processes:
        service.assert_at_most_once_a_second("En attente de PostgreSQL", process)
        service.assert_at_most_once_a_second("Schéma bridge absent", process)


def test_what_is_amiss_in_postgresql_is_told_of_at_the_start(service: Service, app: App) -> None:
    """Each process says it once, with the remedy, and works as far as it can; a worker's children do not repeat it."""
    app.rows("ALTER TABLE matches DISABLE TRIGGER bridge_after_match")
    scheduler, worker = service.start_scheduler(), service.start_worker(processes=2)
    for process in (scheduler, worker):
        service.wait_for_line("Contrôle triggers: disabled: bridge_after_match.*ENABLE TRIGGER", process=process)
    match = app.old_match()
    app.write(match, "quand même")
    app.wait_for_replies(match, "quand même")

    assert service.stop(STOP_SECONDS) == [0, 0]
    assert len(service.lines("Contrôle triggers")) == 2


def test_too_few_connections_are_told_of_at_the_start(service: Service, app: App, postgres: PostgresServer) -> None:
    """What scheduler and worker may open is counted against what is left, all children of a worker together."""
    execute(postgres.url(), "CREATE ROLE narrow LOGIN CONNECTION LIMIT 15")
    try:
        migrate(app.urls.owner, runtime_role="narrow")
        service.environment["DATABASE_URL"] = app.urls.of("narrow")
        # The first child may open 7 and has 7 to 13 left; the two together may open 14.
        worker = service.start_worker(processes=2, threads=2)
        [line] = service.wait_for_line("Contrôle connections: .*of the role's 15", process=worker)
        assert "14 have to be free" in line.text
        service.wait_for_line("Connecté à Redis", count=2, process=worker)

        assert service.stop(STOP_SECONDS) == [0]
        assert len(service.lines("Contrôle connections")) == 1
    finally:
        execute(app.urls.admin, "DROP OWNED BY narrow; DROP ROLE narrow")


def test_redis_absent_at_the_start_is_waited_for(service: Service, app: App, mortal_redis: RedisServer) -> None:
    """Both processes say that they wait for Redis, and go on by themselves when it comes."""
    scheduler, worker = service.start_scheduler(), service.start_worker()
    match = app.old_match()
    app.write(match, "enfin")
    service.wait_for_line("En attente de Redis: .*refused", count=2, process=scheduler)
    service.wait_for_line("Connexion Redis perdue, en attente: .*refused", process=worker)

    mortal_redis.start()
    app.wait_for_replies(match, "enfin")

    assert service.texts("Connecté à Redis", process=scheduler) == ["✅ Connecté à Redis"]
    assert service.texts("Connecté à Redis", process=worker) == ["✅ Connecté à Redis"]
    for process in (scheduler, worker):
        service.assert_at_most_once_a_second("Redis.*refused", process)


@pytest.mark.slow
def test_sigterm_ends_processes_that_wait(service: Service, servers_folder: Path) -> None:
    """While neither server is there a stop is as good as any other."""
    service.environment["DATABASE_URL"] = PostgresServer(servers_folder / "absent").url(user=SERVICE)
    service.environment["REDIS_URL"] = RedisServer(servers_folder / "absent").url()
    service.start_scheduler()
    service.start_worker(processes=2)
    service.wait_for_line("En attente de PostgreSQL", count=3)

    assert service.stop(STOP_SECONDS) == [0, 0]
    assert not service.lines("CRITICAL|Traceback")


def test_sigterm_ends_idle_processes(service: Service) -> None:
    """With nothing to do both end at once, in order, and say so."""
    service.up()

    assert service.stop(STOP_SECONDS) == [0, 0]
    assert service.texts("Arrêt terminé") == ["🛑 Arrêt terminé"] * 2
    assert not service.lines("CRITICAL|Traceback")


@pytest.mark.slow
def test_sigterm_ends_busy_processes_in_time(service: Service, app: App) -> None:
    """A turn whose responder does not return is given back, and the next worker answers it at once."""
    service.environment["RESPONDER"] = "tests.support.responders:stuck"
    service.up()
    match = app.old_match()
    app.write(match, "longue histoire")
    service.wait_for_line("en préparation")

    assert service.stop(STOP_SECONDS) == [0, 0]
    assert not service.lines("CRITICAL|Traceback")
    assert app.rows("SELECT state, token, takeovers FROM bridge.turns") == [("composing", None, 0)]

    service.environment["RESPONDER"] = "echo"
    service.up()
    app.wait_for_replies(match, "longue histoire", timeout=5)


@pytest.mark.slow
def test_sigterm_with_redis_dead(service: Service, app: App, mortal_redis: RedisServer) -> None:
    """Processes in the middle of their attempts on a dead Redis end in time, and the push is made by the next ones."""
    install_clock(app.urls)
    mortal_redis.start()
    service.up()
    match = app.old_match()
    mortal_redis.kill()
    app.write(match, "plus tard")
    service.wait_for_line("Tentative 1/3")
    service.wait_for_line("Connexion Redis perdue, en attente")

    assert service.stop(STOP_SECONDS) == [0, 0]
    assert not service.lines("CRITICAL|Traceback")

    mortal_redis.start()
    service.up()
    app.pass_time(10)  # until the first push is believed lost
    app.wait_for_replies(match, "plus tard")


def test_sigterm_to_everyone_twice_is_one_order(service: Service, app: App) -> None:
    """Platforms signal parent and children, and again; the turn under way is still finished."""
    service.environment["RESPONDER"] = "tests.support.responders:brief"
    scheduler = service.start_scheduler()
    worker = service.start_worker(processes=2)
    service.wait_until_ready(scheduler)
    service.wait_for_line("Connecté à Redis", count=2, process=worker)
    match = app.old_match()
    app.write(match, "au revoir")
    service.wait_for_line("en préparation")

    for _ in range(2):
        for process in (scheduler, worker):
            process.signal_all(signal.SIGTERM)
    service.wait_for_line("Arrêt demandé", count=3)
    for process in (scheduler, worker):
        process.signal_all(signal.SIGTERM)

    assert [process.wait(STOP_SECONDS) for process in (scheduler, worker)] == [0, 0]
    assert app.said(match) == ["au revoir"]
    assert not service.lines("CRITICAL|Traceback")


def test_without_a_locale_no_emoji_ends_a_process(service: Service, app: App) -> None:
    """Where Python would write ASCII, the scheduler writes UTF-8, and Dramatiq's parent escapes a worker's lines."""
    service.environment.update(LC_ALL="POSIX", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0")
    service.environment.pop("PYTHONIOENCODING", None)
    scheduler, worker = service.start_scheduler(), service.start_worker()
    service.wait_until_ready(scheduler)
    match = app.old_match()
    app.write(match, "déjà vu 🦊")
    app.wait_for_replies(match, "déjà vu 🦊")
    service.wait_for_line("✅ Message poussé", process=scheduler)
    service.wait_for_line(re.escape(r"\U0001f4ac R\xe9ponse envoy\xe9e"), process=worker)
    assert service.stop() == [0, 0]


def test_json_lines(service: Service, app: App) -> None:
    """In JSON format every line of scheduler and worker is one object with time, level, logger and event."""
    service.environment["LOG_FORMAT"] = "json"
    scheduler, worker = service.start_scheduler(), service.start_worker(processes=2)
    service.wait_for_line("listen_active", process=scheduler)
    service.wait_for_line("redis_connected", count=2, process=worker)
    match = app.old_match()
    app.write(match, "secret de famille")
    app.rows("NOTIFY bot_events, 'secret de famille'")
    app.wait_for_replies(match, "secret de famille")
    service.wait_for_line("reply_delivered")
    for process in (scheduler, worker):
        process.signal_all(signal.SIGINT)  # as Ctrl-C does
    assert [process.wait(STOP_SECONDS) for process in (scheduler, worker)] == [0, 0]

    records = [json.loads(line.raw) for line in service.lines() if "[dramatiq.MainProcess]" not in line.raw]
    for record in records:
        assert record.keys() >= {"ts", "level", "logger", "event"}, record
        assert datetime.fromisoformat(record["ts"]).tzinfo is not None
    events = {record["event"]: record for record in records}
    assert events.keys() >= {"process_started", "message_grouped", "notification_rejected", "turn_pushed", "stopped"}
    assert events["reply_delivered"]["match_id"] == match
    assert events["reply_delivered"]["turn_id"] == app.value("SELECT id FROM bridge.turns")
    assert not service.lines("secret de famille")


def test_a_lone_child_that_dies_does_not_leave_half_a_worker(service: Service, app: App) -> None:
    """A worker whose child is killed ends as a whole, so that the platform starts another one; the turn comes back."""
    install_clock(app.urls)
    service.environment["RESPONDER"] = "tests.support.responders:stuck"
    service.up()
    [worker] = service.processes[1:]
    match = app.old_match()
    app.write(match, "revenant")
    service.wait_for_line("en préparation")
    for child in worker.children():
        child.kill()

    assert worker.wait() != 0
    service.processes.remove(worker)
    service.start_worker(RESPONDER="echo")
    app.pass_time(15)  # until the lease runs out
    app.wait_for_replies(match, "revenant")


def test_a_responder_that_hangs_holds_up_no_other_conversation(service: Service, app: App) -> None:
    """As long as one thread is free it answers all others, and the turn that hangs, once its lease has run out."""
    install_clock(app.urls)
    service.environment["RESPONDER"] = "tests.support.responders:hanging"
    scheduler, worker = service.start_scheduler(), service.start_worker(threads=2)
    for process in (scheduler, worker):
        service.wait_until_ready(process)
    hung = app.old_match()
    app.write(hung, "silence")
    service.wait_for_line(f"en préparation .match {hung}")
    lease = "SELECT token FROM bridge.turns WHERE match_id = %s"
    first = app.value(lease, hung)
    for _ in range(3):
        other = app.old_match()
        app.write(other, "salut")
        app.wait_for_replies(other, "salut")
    assert app.said(hung) == []

    def lost() -> bool:
        if app.value(lease, hung) != first:
            return True
        app.pass_time(15)  # runs out unless it was renewed just now
        return False

    eventually(lost)
    app.wait_for_replies(hung, "silence")
    assert app.rows("SELECT attempts, takeovers > 0 FROM bridge.turns WHERE match_id = %s", hung) == [(0, True)]
    other = app.old_match()
    app.write(other, "encore là ?")
    app.wait_for_replies(other, "encore là ?")
    assert worker.exit_code is None


def test_children_do_not_outlive_their_parent(service: Service, app: App) -> None:
    """A worker's processes whose parent was killed finish the turn under way, say why, and end."""
    service.environment["RESPONDER"] = "tests.support.responders:brief"
    scheduler = service.start_scheduler()
    worker = service.start_worker(processes=2)
    service.wait_until_ready(scheduler)
    service.wait_for_line("Connecté à Redis", count=2, process=worker)
    children = worker.children()
    match = app.old_match()
    app.write(match, "orphelin")
    service.wait_for_line("en préparation")
    worker.signal(signal.SIGKILL)

    service.wait_for_line("Processus parent disparu", count=2, process=worker)
    service.wait_for_line("Arrêt terminé", count=2, process=worker)
    assert worker.wait(STOP_SECONDS) == -signal.SIGKILL
    service.processes.remove(worker)
    _, left = psutil.wait_procs(children, STOP_SECONDS)
    assert left == []
    assert app.said(match) == ["orphelin"]
    assert app.value("SELECT sum(times) FROM bridge.incidents WHERE kind = 'parent_lost'") == 2
