"""A person in distress: the bot's words are found in what people write, the match is marked, its text is said."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4

import pytest

from bridge_service.responders.budget import Call
from tests.support.policy import set_policy
from tests.support.rules import CAMILLE, GROUPING_DELAY, LEA, without

if TYPE_CHECKING:
    from tests.support.rules import Bridge

WORDS: Final = ["en finir", "suicide", "DÉPRIMÉ", "j'en peux plus", "🔪", "c++"]
HELP: Final = "Appelez le 3114."
TEXT: Final = "Je suis une machine."
REFUSES: Final = """
    CREATE FUNCTION refuses() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'no'; END $$;
    CREATE TRIGGER refuses BEFORE INSERT ON messages FOR EACH ROW
    WHEN (NEW.content = 'Appelez le 3114.') EXECUTE FUNCTION refuses()
"""


@pytest.fixture(autouse=True)
def words(bridge: Bridge) -> None:
    """Give all bots words and a text of distress."""
    set_policy(bridge.urls, distress_words=WORDS, distress_text=HELP)  # type: ignore[arg-type]


def said(bridge: Bridge, match: str) -> list[str]:
    """Return what the bot said in a match."""
    return [text for sender, text in bridge.messages(match) if sender == CAMILLE]


def marks(bridge: Bridge) -> list[Any]:
    """Return the rows of bridge.distress."""
    return bridge._records("SELECT * FROM bridge.distress ORDER BY first_at")


def raised(bridge: Bridge, match: str, *texts: str) -> tuple[int, int | None]:
    """Write these, claim and answer them: the turn, and the event that its claim names."""
    for text in texts:
        bridge.write(match, text)
    claim = bridge.claimed(match)
    assert bridge.finish(claim, pause=0).name == "answered"
    return claim.turn, claim.outcome.details.get("distress")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("je veux EN FINIR", True),
        ("en\nfinir...", True),
        ("suicide", True),
        ("un suicide?😢", True),
        ("suicides", False),
        ("antisuicide", False),
        ("en train de finir", False),
        ("je suis déprimé.", True),
        ("je suis de\u0301prime\u0301", True),
        ("deprime", False),
        ("déprimés", False),
        ("J’EN PEUX PLUS", True),
        ("«déprimé»", True),
        ("je suis en C", True),
        ("🔪 ?!", False),
        ("", False),
    ],
)
def test_words_are_found_whole_and_in_capitals_or_not(bridge: Bridge, text: str, found: bool) -> None:  # noqa: FBT001
    """Punctuation and line breaks part words, accents count, and an entry without a letter or digit finds nothing."""
    match = bridge.match()
    assert (raised(bridge, match, text)[1] is not None) is found
    assert said(bridge, match) == [HELP] * found + ["coucou"]


def test_a_claim_marks_the_conversation_and_names_the_event_once(bridge: Bridge) -> None:
    """The newest such message counts; a claim repeated in doubt says it again, a new one does not."""
    match, other = bridge.match(), bridge.match()
    bridge.write(match, "suicide")
    bridge.write(match, "en finir")
    bridge.write(match, "pardon")
    bridge.write(other, "ça va ?")
    claim = bridge.claimed(match)
    event = bridge.turn(claim.turn).covers
    assert claim.outcome.details["distress"] == bridge.turn(claim.turn).distress == event[1]
    assert bridge.store.claim(claim.turn, claim.token).details["distress"] == event[1]
    bridge.store.release({claim.turn: claim.token})
    assert "distress" not in bridge.claim(claim.turn).outcome.details

    [mark] = marks(bridge)
    captured = "SELECT captured_at FROM bridge.events WHERE id = %s"
    assert (mark.match_id, mark.event_id) == (match, event[1])
    assert mark.first_at == mark.last_at == bridge.value(captured, event[1])
    since = "SELECT bridge.distress_since(%s)"
    assert bridge.value(since, match) == mark.first_at
    assert bridge.value(since, other) is None


def test_the_text_is_said_before_the_reply_once_a_day(bridge: Bridge) -> None:
    """After the disclosure, 1 ms apart, and again on the next day; the mark keeps its first time."""
    set_policy(bridge.urls, disclosure=TEXT, timezone="UTC", ignore_older_days=0)
    bridge.rows("UPDATE bridge_test.clock SET stopped = '2027-06-15 12:00+00', ahead = '0'")
    match = bridge.match()
    turn, event = raised(bridge, match, "suicide")
    assert event is not None
    raised(bridge, match, "en finir")
    assert said(bridge, match) == [TEXT, HELP, "coucou", "coucou"]
    times = bridge.rows("SELECT created_at FROM messages WHERE sender_id = %s ORDER BY 1 LIMIT 3", CAMILLE)
    assert [(b - a).total_seconds() for (a,), (b,) in itertools.pairwise(times)] == [0.001, 0.001]
    reply = "SELECT content FROM messages WHERE id = %s"
    assert bridge.value(reply, bridge.turn(turn).reply_message_id) == "coucou"

    bridge.advance(86400)
    raised(bridge, match, "en finir")
    assert said(bridge, match)[4:] == [HELP, "coucou"]
    [mark] = marks(bridge)
    assert (mark.last_at - mark.first_at).days == 1
    assert bridge.value("SELECT bridge.answered_until(%s, %s)", match, LEA) is None
    assert bridge.value("SELECT bridge.undisclosed(30, 10) -> 'undisclosed'") == 0


@without(("deliver_turn", "IF t.distress IS NOT NULL AND t.parts_out = 0 THEN", "IF false THEN"))
def test_L1_a_person_in_distress_is_told_where_to_turn_although_the_bot_is_silent(bridge: Bridge) -> None:
    """A silence says nothing of its own, so the disclosure comes before the text of distress."""
    set_policy(bridge.urls, disclosure=TEXT)
    match = bridge.match()
    bridge.write(match, "suicide")
    claim = bridge.claimed(match)
    assert bridge.store.finish(claim.turn, claim.token, "", pause=0, action="silence").name == "answered"
    assert said(bridge, match) == [TEXT, HELP]
    assert bridge.turn(claim.turn).reply_message_id is None


@without(("claim", "IF v_raised <> '{}' AND v_held ->> 'cause' <> 'paused' THEN", "IF v_raised <> '{}' THEN"))
def test_H2_no_text_of_distress_is_said_beside_a_human_who_took_over(bridge: Bridge) -> None:
    """In a pause the bot says nothing of its own; the claim marks the conversation and tells of it all the same."""
    match = bridge.match()
    bridge.write(match, "je suis là", sender=CAMILLE)
    bridge.group()
    bridge.write(match, "suicide")
    claim = bridge.claim(bridge.pushed(match))
    assert (claim.outcome.name, claim.outcome.details["cause"]) == ("held", "paused")
    assert claim.outcome.details["distress"] is not None
    assert (said(bridge, match), len(marks(bridge))) == (["je suis là"], 1)


def test_the_reply_is_delivered_although_the_app_refuses_the_text(bridge: Bridge) -> None:
    """The turn's last error says that the text was not said, and no notice says that it was."""
    set_policy(bridge.urls, disclosure=TEXT)
    bridge.rows(REFUSES)
    match = bridge.match()
    turn, _ = raised(bridge, match, "suicide")
    assert said(bridge, match) == [TEXT, "coucou"]
    assert bridge.turn(turn).last_error == "the distress text was not said: P0001"
    assert not bridge.rows("SELECT FROM bridge.notices")


def test_the_text_goes_with_a_reply_that_fails(bridge: Bridge) -> None:
    """One transaction: the reply is refused, and the text is said with the next one."""
    bridge.rows(REFUSES.replace(HELP, "coucou"))
    match = bridge.match()
    bridge.write(match, "suicide")
    assert bridge.deliver(bridge.typing(match)).name == "failed"
    assert said(bridge, match) == []
    bridge.advance(60)
    bridge.push()
    assert bridge.finish(bridge.claim(bridge.turns(match)[-1].id), "autrement", pause=0).name == "answered"
    assert said(bridge, match) == [HELP, "autrement"]


def test_a_turn_over_a_limit_raises_it_at_once_and_says_the_text(bridge: Bridge) -> None:
    """A person in distress does not wait until the next day for the text."""
    set_policy(bridge.urls, limit_calls_person_day=1)
    match = bridge.match()
    bridge.write(match)
    claim = bridge.claimed(match)
    assert bridge.store.reserve_call(Call(claim.token, 1, claim.turn, "m", 1, 1, 1.0))["outcome"] == "reserved"
    bridge.finish(claim, pause=0)
    bridge.write(match, "suicide")
    outcome = bridge.claim(bridge.pushed(match)).outcome
    assert (outcome.name, "distress" in outcome.details) == ("held", True)
    assert said(bridge, match) == ["coucou", HELP]


def test_superseded_words_are_answered_with_the_newer_message(bridge: Bridge) -> None:
    """The events move into the waiting turn, whose claim marks it; the signal is not raised twice."""
    match = bridge.match()
    bridge.write(match, "suicide")
    turn = bridge.typing(match)
    bridge.write(match, "tu es là ?")
    assert bridge.deliver(turn).name == "superseded"
    bridge.group()
    bridge.advance(GROUPING_DELAY + 1)
    bridge.push()
    claim = bridge.claim(bridge.turns(match)[-1].id)
    assert "distress" not in claim.outcome.details
    assert bridge.finish(claim, pause=0).name == "answered"
    assert said(bridge, match) == [HELP, "coucou"]


def test_without_words_nothing_is_looked_for(bridge: Bridge) -> None:
    """A bot without distress words reads no message for them, and without a text it only raises the signal."""
    match = bridge.match()
    set_policy(bridge.urls, distress_text=None)
    assert raised(bridge, match, "suicide")[1] is not None
    set_policy(bridge.urls, distress_words=None)
    assert raised(bridge, match, "suicide")[1] is None
    assert said(bridge, match) == ["coucou", "coucou"]


def test_the_mark_goes_with_the_retention(bridge: Bridge) -> None:
    """What is known of a person's distress is not kept longer than the conversation's turns."""
    match = bridge.match()
    raised(bridge, match, "suicide")
    bridge.advance(29 * 86400)
    bridge.store.prune(30, 100)
    assert len(marks(bridge)) == 1
    bridge.advance(2 * 86400)
    bridge.store.prune(30, 100)
    assert marks(bridge) == []


def test_a_burst_of_long_messages_is_read_within_a_claim(bridge: Bridge) -> None:
    """Two thousand messages of 20,000 characters and two hundred words: the claim stays within its deadline."""
    set_policy(bridge.urls, distress_words=[f"mot{n} et {n}" for n in range(200)])  # type: ignore[arg-type]
    match = bridge.match()
    bridge.rows(
        "INSERT INTO messages (match_id, sender_id, content)"
        " SELECT %s, %s, repeat('été, oui ! ', 1900) FROM generate_series(1, 2000)",
        *(match, LEA),
    )
    assert bridge.store.claim(bridge.pushed(match), uuid4()).name == "claimed"
