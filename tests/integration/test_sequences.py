"""Sequences that stand behind their tables, as a restore or a cut-over of logical replication leaves them."""

from __future__ import annotations

import threading
from contextlib import closing
from typing import TYPE_CHECKING, Final
from uuid import uuid4

import psycopg2
import pytest

from bridge_service.checks.postgresql import check_postgresql
from bridge_service.errors import SequenceBehind
from bridge_service.install.plan import migrate, plan
from bridge_service.machine.ledger import open_ledger
from bridge_service.process.startup import look_at_postgresql
from bridge_service.telemetry.signals import CheckFailed
from tests.support.app import CAMILLE, LEA, MATCH, WRITE, App
from tests.support.policy import set_grouping
from tests.support.recorder import Recorder
from tests.support.store import store_on
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bridge_service.checks.finding import Finding
    from tests.support.roles import Urls

SEQUENCES: Final = ("actions_id_seq", "events_id_seq", "incidents_id_seq", "pauses_id_seq", "turns_id_seq")


@pytest.fixture
def app(bridge_database: Urls) -> Iterator[App]:
    """Give the app, on a database with the bridge."""
    with closing(App(bridge_database)) as app:
        yield app


def rewind(app: App, *sequences: str) -> None:
    """Set sequences back to their beginning."""
    for sequence in sequences:
        app.rows("SELECT setval(%s, 1, false)", f"bridge.{sequence}")


def found(urls: Urls) -> Finding:
    """Return what `check` finds of the sequences, as the run-time role."""
    [finding] = check_postgresql(urls.service, describe=str, wanted=lambda name: name == "sequences")
    return finding


def sequences(app: App) -> list[str]:
    """Return the names of the sequences in schema `bridge`."""
    return [
        name for (name,) in app.rows("SELECT sequencename FROM pg_sequences WHERE schemaname = 'bridge' ORDER BY 1")
    ]


def test_no_message_or_match_is_dropped_silently(app: App) -> None:
    """A colliding id of an event makes the app's INSERT fail; what was captured before is still ignored."""
    match = app.match()
    message = app.write(match, "salut")
    rewind(app, "events_id_seq")
    with pytest.raises(psycopg2.errors.UniqueViolation, match="events_pkey"):
        app.write(match, "perdu ?")
    rewind(app, "events_id_seq")
    with pytest.raises(psycopg2.errors.UniqueViolation, match="events_pkey"):
        app.match()
    rewind(app, "events_id_seq")
    assert app.value("SELECT bridge.capture_message(%s, %s, %s, now())", message, match, LEA) is None
    assert app.value("SELECT bridge.capture_match(%s, %s, %s, now())", match, LEA, CAMILLE) is None
    assert app.value("SELECT count(*) FROM messages") == app.value("SELECT count(*) FROM bridge.events") - 1


def test_a_replay_says_that_a_sequence_stands_behind(app: App) -> None:
    """It captures nothing silently, and names the remedy."""
    match = app.match()
    app.write(match, "salut")
    app.rows("SET session_replication_role = replica")
    app.rows(WRITE, str(uuid4()), match, LEA, "manqué")
    app.rows("RESET session_replication_role")
    rewind(app, "events_id_seq")
    with (
        open_ledger(app.urls.service, "replay") as ledger,
        pytest.raises(SequenceBehind, match=r"bridge\.events .*migrate"),
    ):
        ledger.replay(None, None, None, retention_days=30, dry_run=False)


def test_events_stay_ungrouped_until_the_sequence_is_right(app: App) -> None:
    """A colliding id of a turn is no event's fault: none is set aside, and after `migrate` each is grouped."""
    first, other = app.match(), app.match()
    set_grouping(app.urls, 0, probability=0)
    with store_on(app.urls) as store:
        app.write(first, "salut")
        assert len(store.group()) == 3
        rewind(app, "turns_id_seq")
        app.write(other, "et moi ?")
        for only in (None, other):
            rewind(app, "turns_id_seq")
            with pytest.raises(SequenceBehind, match=r"bridge\.turns .*python -m bridge_service migrate"):
                store.group(only=only)
        assert app.value("SELECT count(*) FROM bridge.events WHERE error IS NOT NULL") == 0
        rewind(app, "turns_id_seq")
        assert migrate(app.urls.owner).sequences == ["bridge.turns_id_seq"]
        assert [event.match_id for event in store.group()] == [other]
    assert app.value("SELECT bridge.verify(30, 10)")["unaccounted"] == 0


def test_an_incident_waits_for_its_sequence(app: App) -> None:
    """It is refused like the others, so the process keeps it and writes it later."""
    with store_on(app.urls) as store:
        store.note_incident("postgres_lost", "worker", 1, 0.0)
        rewind(app, "incidents_id_seq")
        with pytest.raises(SequenceBehind):
            store.note_incident("postgres_lost", "worker", 1, 0.0)


def test_check_names_each_sequence_and_migrate_sets_it_right(app: App) -> None:
    """Every sequence of the schema is looked at, by the run-time role, and ids go on above those that there are."""
    assert sequences(app) == list(SEQUENCES)
    match = app.match()
    app.write(match, "salut")
    with store_on(app.urls) as store:
        store.group()
        store.note_incident("postgres_lost", "worker", 1, 0.0)
    app.rows("SELECT bridge.act('test', '127.0.0.1', 'drop', '1')")
    app.rows("SELECT bridge.pause(%s, NULL)", match)
    assert found(app.urls).ok
    assert plan(app.urls.owner)[1] == ""
    assert migrate(app.urls.owner).sequences == []
    rewind(app, *SEQUENCES)
    finding = found(app.urls)
    assert finding.ok is False
    assert all(f"bridge.{sequence}" in finding.detail for sequence in SEQUENCES)
    assert "migrate" in finding.remedy
    assert "LOCK TABLE bridge.events" in plan(app.urls.owner)[1]
    assert migrate(app.urls.owner).sequences == [f"bridge.{sequence}" for sequence in SEQUENCES]
    assert found(app.urls).ok
    assert migrate(app.urls.owner).sequences == []
    app.write(match, "encore")
    assert app.rows("SELECT count(*), max(id) > 2 FROM bridge.events") == [
        (3, True)
    ]  # each proof of `migrate` takes an id


def test_a_process_says_it_at_its_start(app: App) -> None:
    """The scheduler and the worker make the look of `check` as they start."""
    app.write(app.match(), "salut")
    rewind(app, "events_id_seq")
    told = Recorder()
    look_at_postgresql(app.urls.service, told, threading.Event(), connections=1)
    [failed] = [event for event in told.of(CheckFailed) if event.check == "sequences"]
    assert "bridge.events_id_seq" in failed.detail
    assert "migrate" in failed.remedy


@pytest.mark.parametrize(
    ("position", "called", "behind"),
    [(2, False, True), (2, True, False), (3, False, False), (1, True, True), (9, True, False)],
)
def test_the_next_id_decides(app: App, position: int, behind: bool, *, called: bool) -> None:  # noqa: FBT001 - a table
    """A sequence stands behind if the id that it gives out next is in the table, and only then."""
    app.write(app.match(), "salut")
    app.rows("SELECT setval('bridge.events_id_seq', %s, %s)", position, called)
    assert found(app.urls).ok is not behind
    assert bool(migrate(app.urls.owner).sequences) is behind
    app.match()


def test_an_empty_table_has_no_sequence_behind(app: App) -> None:
    """Nothing to collide with."""
    assert app.value("SELECT count(*) FROM bridge.events") == 0
    rewind(app, *SEQUENCES)
    assert found(app.urls).ok


def test_ids_that_are_not_committed_yet_are_waited_for(app: App) -> None:
    """`migrate` locks the table before it looks, so an INSERT under way cannot end above what it sets."""
    app.write(app.match(), "salut")
    app.rows("SELECT setval('bridge.events_id_seq', 2, false)")
    with closing(psycopg2.connect(app.urls.app)) as session, session.cursor() as cursor:
        with pytest.raises(psycopg2.errors.UniqueViolation):
            cursor.execute(MATCH, (LEA, CAMILLE))
        session.rollback()
        cursor.execute(MATCH, (LEA, CAMILLE))  # takes 3
        app.rows("SELECT setval('bridge.events_id_seq', 1, false)")
        runner = threading.Thread(target=migrate, args=(app.urls.owner,))
        runner.start()
        waiting = (
            "SELECT pid FROM pg_stat_activity WHERE application_name = 'bridge migrate' AND wait_event_type = 'Lock'"
        )
        eventually(lambda: bool(app.rows(waiting)))
        assert runner.is_alive()
        session.commit()
        runner.join(20)
    assert found(app.urls).ok
    app.match()
    assert app.value("SELECT max(id) FROM bridge.events") > 3
