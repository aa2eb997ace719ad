import json
import logging

import pytest

from bridge_service.telemetry import signals
from bridge_service.telemetry.journal import LINES, ONE_A_SECOND, Journal
from bridge_service.telemetry.signals import (
    MessageGrouped,
    NotificationReceived,
    NotificationRejected,
    Signal,
    TurnPushed,
)
from bridge_service.turns import Kind
from tests.support.signals import MATCH, SIGNALS, Clock, sample

BOT = "0e7a2c5e-58a3-4f0e-9d0c-6a1d1f1a7a10"
SENDER = "6f9619ff-8b86-4011-b42d-00c04fc964ff"

# The lines of the contract, and the few whose words were agreed beside it.
CONTRACT: list[tuple[Signal, str]] = [
    (
        signals.ProcessStarted({"GROUPING_DELAY": "15", "TEST_MODE": "false"}, role="scheduler"),
        "⚙️ GROUPING_DELAY=15 TEST_MODE=false",
    ),
    (signals.PostgresConnected(), "✅ Connecté à PostgreSQL"),
    (signals.RedisConnected(), "✅ Connecté à Redis"),
    (signals.ListenStarting(), "👂 Démarrage écoute 'bot_events' et 'new_match'..."),
    (signals.ListenActive(), "✅ Écoute active"),
    (
        NotificationReceived(4711, "bot_events", {"sender_id": SENDER, "match_id": MATCH}, MATCH),
        f"""\
📨 Notification reçue (pid=4711, channel=bot_events)
   Payload: {{"match_id":"{MATCH}","sender_id":"{SENDER}"}}
   Match ID: {MATCH}""",
    ),
    (MessageGrouped(MATCH, 1, 10, position=1, delay_seconds=15.0), "⏰ Nouveau message, démarrage timer 15s"),
    (MessageGrouped(MATCH, 1, 10, position=1, delay_seconds=0.25), "⏰ Nouveau message, démarrage timer 0.25s"),
    (MessageGrouped(MATCH, 1, 11, position=2, delay_seconds=15.0), "🔄 Grouping: +1 message (2 total)"),
    (MessageGrouped(MATCH, 1, 12, position=3, delay_seconds=15.0), "🔄 Grouping: +1 message (3 total)"),
    (signals.GroupClosed(1, MATCH, messages=3), "📦 Grouping: 3 messages"),
    (signals.GroupClosed(1, MATCH, messages=1), "📦 Grouping: 1 messages"),
    (TurnPushed(1, MATCH, Kind.REPLY), "✅ Message poussé dans queue"),
    (signals.MatchDetected(MATCH, BOT), "🔍 Nouveau match détecté"),
    (signals.InitiationDue(1, MATCH), f"💬 Initiation pour match {MATCH}"),
    (
        signals.RedisAttemptFailed(1, 3, "Connection reset"),
        "⚠️ Tentative 1/3 - Connexion Redis perdue: Connection reset",
    ),
    (signals.RetryIn(1.0), "⏳ Retry dans 1s..."),
    (signals.RedisReconnecting(), "🔄 Reconnexion Redis..."),
    (signals.RedisReconnected(), "✅ Reconnexion Redis réussie"),
    (signals.RedisGivenUp(3), "❌ Échec définitif après 3 tentatives"),
    (signals.FatalError("[Errno 61] Connection refused"), "❌ Erreur fatale: [Errno 61] Connection refused"),
]
AGREED: list[tuple[Signal, str]] = [
    (signals.RedisLost("Connection reset"), "⚠️ Connexion Redis perdue, en attente: Connection reset"),
    (signals.PostgresLost("server closed"), "⚠️ Connexion PostgreSQL perdue: server closed"),
    (
        signals.PostgresRefused("permission denied"),
        "⛔ PostgreSQL refuse: permission denied (voir python -m bridge_service check)",
    ),
    (signals.WaitingForPostgres("refused"), "⏳ En attente de PostgreSQL: refused"),
    (signals.WaitingForRedis("refused"), "⏳ En attente de Redis: refused"),
    (
        signals.CheckFailed("clock", "PostgreSQL's clock is +9.0 s from this machine's", "set the clocks by NTP"),
        "🩺 Contrôle clock: PostgreSQL's clock is +9.0 s from this machine's → set the clocks by NTP",
    ),
    (signals.DuplicatePrevented(7, "claim"), "♻️ Étape déjà faite, rien à faire (tour 7, claim)"),
    (signals.SchemaAbsent(), "⏳ Schéma bridge absent: lancez python -m bridge_service migrate"),
    (
        signals.ReplyDelivered(1, MATCH, BOT, Kind.REPLY, characters=80, covered=2, lateness_seconds=0.04),
        f"💬 Réponse envoyée (match {MATCH}, messages: 2, retard: 0.0s)",
    ),
    (
        signals.ReplyDelivered(1, MATCH, BOT, Kind.INITIATION, characters=7, covered=0, lateness_seconds=1.26),
        f"💬 Ouverture envoyée (match {MATCH}, messages: 0, retard: 1.3s)",
    ),
    (
        signals.ReplyInterrupted(1, MATCH, "gone", said=1, withheld=2),
        f"✂️ Réponse interrompue (match {MATCH}, dites: 1, retenues: 2): gone",
    ),
]
GREPPED = (
    "Message poussé", "Grouping", "Initiation", "Nouveau match", "Nouveau message", "Tentative", "Échec définitif",
    "Notification", "timer", "Connecté", "Écoute active", "Payload", "Match ID", "Retry", "Reconnexion",
    "Erreur fatale", "GROUPING_DELAY", "Connection lost",
)  # fmt: skip


class ListHandler(logging.Handler):
    """Keeps the records."""

    def __init__(self, records: list[logging.LogRecord]) -> None:
        super().__init__()
        self.records = records

    def emit(self, record: logging.LogRecord) -> None:
        """Keep `record`."""
        self.records.append(record)


class Desk:
    """A journal, its clock, and what it wrote."""

    def __init__(self, level: int = logging.DEBUG) -> None:
        self.clock = Clock()
        self.records: list[logging.LogRecord] = []
        logger = logging.Logger("bridge", level)  # noqa: LOG001 - one that nobody else has
        logger.addHandler(ListHandler(self.records))
        self.journal = Journal(logger, self.clock)

    def take_lines(self) -> list[str]:
        """Return the lines since the last call."""
        lines = [record.getMessage() for record in self.records]
        self.records.clear()
        return lines


@pytest.mark.parametrize(("signal", "line"), CONTRACT + AGREED)
def test_line(signal: Signal, line: str) -> None:
    """The words of the line are those of the contract, to the letter, at the level of the event."""
    desk = Desk()
    desk.journal(signal)
    assert [(record.levelno, record.getMessage()) for record in desk.records] == [(signal.level, line)]


REPEATED = {
    signals.NotificationRejected,
    signals.BadBrokerMessage,
    signals.RedisLost,
    signals.PostgresLost,
    signals.PostgresRefused,
    signals.WaitingForPostgres,
    signals.WaitingForRedis,
    signals.SchemaAbsent,
    signals.ResponderAway,
    signals.TurnFailed,
}


@pytest.mark.parametrize(
    ("level", "kinds"),
    [
        (
            logging.WARNING,
            REPEATED - {signals.PostgresRefused}
            | {signals.RedisAttemptFailed, signals.ListenSilent, signals.ParentLost, signals.RepliesLimited}
            | {signals.PlaintextUrl, signals.PagesOpen, signals.CheckFailed, signals.Distress},
        ),
        (logging.ERROR, {signals.RedisGivenUp, signals.TurnDead, signals.EventSetAside, signals.PostgresRefused}),
        (logging.CRITICAL, {signals.FatalError, signals.WatchdogBarked}),
    ],
)
def test_level(level: int, kinds: set[type[Signal]]) -> None:
    """These events, and no others, are above INFO."""
    assert {each for each in SIGNALS if each.level == level} == kinds


def test_every_event_has_a_line() -> None:
    """No event is without words, and all of them fit its fields."""
    assert set(LINES) == set(SIGNALS)
    for each in SIGNALS:
        desk = Desk()
        desk.journal(sample(each))
        [line] = desk.take_lines()
        assert line.strip()


def test_no_other_line_has_the_words_that_people_grep() -> None:
    """Counting by a contract phrase counts only what the contract means by it."""
    for each in set(SIGNALS) - {type(signal) for signal, _ in CONTRACT}:
        desk = Desk()
        desk.journal(sample(each))
        [line] = desk.take_lines()
        assert not [phrase for phrase in GREPPED if phrase in line], line


def test_a_payload_is_cut_at_200_characters_after_its_content_was_removed() -> None:
    """However long the message, the shown part of the payload is ids."""
    names = ("message_id", "sender_id", "bot_id", "id", "user1_id", "user2_id")
    payload = {"message_content": "canary" * 50, "match_id": MATCH} | dict.fromkeys(names, SENDER)
    desk = Desk()
    desk.journal(NotificationReceived(1, "bot_events", payload, MATCH))
    shown = desk.take_lines()[0].split("\n")[1].removeprefix("   Payload: ")
    assert len(shown) == 200
    assert shown.startswith(f'{{"match_id":"{MATCH}","bot_id":"{SENDER}","sender_id":"{SENDER}","message_id":')


def test_a_message_text_never_shows() -> None:
    """A canary in the content, whatever the key it hides under, is in no record."""
    payload = {
        "match_id": MATCH,
        "content": "canary text",
        "message_content": "canary text",
        "text": "canary text",
        "a": ["canary text"],
    }
    desk = Desk()
    desk.journal(NotificationReceived(1, "bot_events", payload, MATCH))
    assert "canary text" not in repr([vars(record) for record in desk.records])


def test_the_event_goes_along_for_other_formats() -> None:
    """The record carries the event itself."""
    desk = Desk()
    signal = TurnPushed(7, MATCH, "reply")
    desk.journal(signal)
    assert vars(desk.records[0])["bridge_signal"] is signal


def test_a_burst_writes_100_lines_and_then_one_that_counts_the_rest() -> None:
    """Of 250 groupings at once 100 have their line, and one line counts 150, without any further event."""
    desk = Desk()
    for position in range(1, 251):
        desk.journal(MessageGrouped(MATCH, 1, position, position, 15.0))
    lines = desk.take_lines()
    assert len(lines) == 100
    assert lines[0].startswith("⏰")
    assert lines[1:] == [f"🔄 Grouping: +1 message ({position} total)" for position in range(2, 101)]
    desk.clock.now += 0.5
    desk.journal.flush()
    assert desk.take_lines() == []
    desk.clock.now += 0.5
    desk.journal.flush()
    assert desk.take_lines() == ["🔇 Lignes omises: 150 (message_grouped)"]
    desk.clock.now += 5
    desk.journal.flush()
    assert desk.take_lines() == []


def test_kinds_have_limits_of_their_own() -> None:
    """A flood of groupings hides no push."""
    desk = Desk()
    for number in range(200):
        desk.journal(MessageGrouped(MATCH, 1, number, 2, 15.0))
    desk.take_lines()
    desk.journal(TurnPushed(1, MATCH, "reply"))
    assert desk.take_lines() == ["✅ Message poussé dans queue"]


def test_the_next_event_of_the_kind_tells_the_count_first() -> None:
    """Lines left out are counted before the next line of their kind."""
    desk = Desk()
    for number in range(103):
        desk.journal(TurnPushed(number, MATCH, "reply"))
    desk.take_lines()
    desk.clock.now += 1
    desk.journal(TurnPushed(1, MATCH, "reply"))
    assert desk.take_lines() == ["🔇 Lignes omises: 3 (turn_pushed)", "✅ Message poussé dans queue"]


def test_the_next_event_of_another_kind_tells_the_count_too() -> None:
    """Counts do not wait for an event of their own kind."""
    desk = Desk()
    for number in range(103):
        desk.journal(TurnPushed(number, MATCH, "reply"))
    desk.take_lines()
    desk.clock.now += 1
    desk.journal(signals.RedisConnected())
    assert desk.take_lines() == ["✅ Connecté à Redis", "🔇 Lignes omises: 3 (turn_pushed)"]


@pytest.mark.parametrize("last", [signals.Stopped(), signals.FatalError("x")])
def test_the_last_line_comes_after_all_counts(last: Signal) -> None:
    """A process that ends owes no count."""
    desk = Desk()
    for number in range(103):
        desk.journal(TurnPushed(number, MATCH, "reply"))
    desk.take_lines()
    desk.journal(last)
    lines = desk.take_lines()
    assert lines[0] == "🔇 Lignes omises: 3 (turn_pushed)"
    assert len(lines) == 2


def test_a_count_has_the_level_of_what_it_counts() -> None:
    """Where INFO is not logged, errors left out are counted all the same."""
    desk = Desk(logging.ERROR)
    for number in range(101):
        desk.journal(signals.EventSetAside(number, MATCH, "x"))
        desk.journal(TurnPushed(number, MATCH, "reply"))
    desk.clock.now += 1
    desk.journal.flush()
    assert len(desk.records) == 101
    assert desk.records[-1].getMessage() == "🔇 Lignes omises: 1 (event_set_aside)"
    assert {record.levelno for record in desk.records} == {logging.ERROR}


def test_what_repeats_without_end_is_limited() -> None:
    """These kinds have one line a second."""
    assert ONE_A_SECOND == REPEATED


@pytest.mark.parametrize("kind", [each for each in SIGNALS if each in ONE_A_SECOND])
def test_one_line_a_second_counts_those_before_it(kind: type[Signal]) -> None:
    """The second and third are left out, and the next line says how many were."""
    desk = Desk()
    for _ in range(3):
        desk.journal(sample(kind))
    [line] = desk.take_lines()
    desk.clock.now += 1
    desk.journal(sample(kind))
    assert desk.take_lines() == [line + " (+2 depuis la ligne précédente)"]


def test_one_line_a_second_even_if_only_flush_comes() -> None:
    """The latest one left out is written after its second, with the number of the others, and only once."""
    desk = Desk()
    for reason in ("first", "second", "third", "fourth"):
        desk.journal(NotificationRejected("bot_events", reason))
    assert desk.take_lines() == ["🚫 Annonce ignorée (channel=bot_events): first"]
    desk.clock.now += 1
    desk.journal.flush()
    desk.journal.flush()
    assert desk.take_lines() == ["🚫 Annonce ignorée (channel=bot_events): fourth (+2 depuis la ligne précédente)"]


def test_forged_notifications_never_write_more_than_a_line_a_second() -> None:
    """Ten seconds of a flood, with a flush every second beside it, are ten lines that account for every one."""
    desk = Desk()
    for step in range(1000):
        desk.clock.now = 1000 + step / 100
        if step % 100 == 0:
            desk.journal.flush()
        desk.journal(NotificationRejected("bot_events", "x"))
    desk.journal.flush(everything=True)
    told = [vars(record)["held_back"] + 1 for record in desk.records]
    assert len(told) <= 11
    assert sum(told) == 1000


def test_a_level_that_is_not_logged_costs_no_line() -> None:
    """What LOG_LEVEL hides is neither written nor counted."""
    desk = Desk(logging.WARNING)
    for number in range(300):
        desk.journal(TurnPushed(number, MATCH, "reply"))
    desk.clock.now += 1
    desk.journal.flush(everything=True)
    assert desk.records == []


def test_a_shown_payload_is_json_while_it_is_short() -> None:
    """Odd and empty values do not break the line."""
    desk = Desk()
    payload = {"match_id": MATCH, "bot_id": 1.5, "created_at": None}
    desk.journal(NotificationReceived(1, "bot_events", payload, MATCH))
    shown = desk.take_lines()[0].split("\n")[1].removeprefix("   Payload: ")
    assert json.loads(shown) == {**payload, "bot_id": "…"}
