"""Rule L1: a bot's disclosure comes before its first own words in a conversation, once."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Any, Final

import pytest

from bridge_service.machine.database import Connection
from bridge_service.machine.ledger import Ledger
from bridge_service.responders.budget import Call
from tests.support.policy import MAX_ATTEMPTS, set_policy
from tests.support.roles import ADMIN, SERVICE
from tests.support.rules import CAMILLE, HUGO, LEA, without

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.rules import Bridge

TEXT: Final = "Je suis une machine."
SAYS_NOTHING: Final = ("disclose", "IF v_text IS NULL THEN", "IF true THEN")
"""The rule taken out: no delivery says the disclosure."""

REFUSES: Final = """
    CREATE FUNCTION refuses() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'no'; END $$;
    CREATE TRIGGER refuses BEFORE INSERT ON messages FOR EACH ROW
    WHEN (NEW.content = '{}') EXECUTE FUNCTION refuses()
"""
NULLS: Final = """
    CREATE OR REPLACE FUNCTION bridge.deliver(
        p_turn bigint, p_message uuid, p_match uuid, p_bot uuid, p_content text, p_created_at timestamptz)
    RETURNS uuid LANGUAGE plpgsql SECURITY DEFINER AS $$
    BEGIN
        IF p_turn IS NULL THEN
            RETURN NULL;
        END IF;
        INSERT INTO public.messages VALUES (p_message, p_match, p_bot, p_content, p_created_at);
        RETURN p_message;
    END $$
"""
"""An app whose `deliver` takes no message without a turn."""


@pytest.fixture
def ledger(bridge: Bridge) -> Iterator[Ledger]:
    """Give the operator's hands."""
    with closing(Connection(bridge.urls.service, application="operator")) as connection:
        yield Ledger(connection)


def disclose(bridge: Bridge, text: str = TEXT) -> None:
    """Set DISCLOSURE for all bots, a minute ago."""
    set_policy(bridge.urls, disclosure=text)
    bridge.advance(60)


def answered(bridge: Bridge, match: str, draft: str = "coucou") -> int:
    """Let the bot answer what is written now in a match, and return the turn."""
    bridge.write(match)
    turn = bridge.typing(match, draft)
    assert bridge.deliver(turn).name == "answered"
    return turn


def said(bridge: Bridge, match: str) -> list[str]:
    """Return what the bot said in a match."""
    return [text for sender, text in bridge.messages(match) if sender == CAMILLE]


def disclosures(bridge: Bridge, match: str) -> list[Any]:
    """Return the rows of bridge.disclosures of a match."""
    return bridge._records("SELECT * FROM bridge.disclosures WHERE match_id = %s", match)


def undisclosed(ledger: Ledger) -> tuple[int, tuple[str, ...]]:
    """Return what `verify` says of disclosures."""
    accounts = ledger.verify(30)
    assert (accounts.unaccounted, accounts.doubled) == (0, 0)
    return accounts.undisclosed, accounts.undisclosed_in


# The first own words


@without(SAYS_NOTHING)
def test_L1_the_first_reply_comes_after_the_disclosure_and_the_next_ones_alone(bridge: Bridge) -> None:
    """Once a conversation, 1 ms before the words; the turn's own message is the reply."""
    disclose(bridge)
    match = bridge.match()
    turn = answered(bridge, match)
    answered(bridge, match, "encore")

    assert said(bridge, match) == [TEXT, "coucou", "encore"]
    [row] = disclosures(bridge, match)
    apart = "SELECT r.created_at - d.created_at FROM messages r, messages d WHERE r.id = %s AND d.id = %s"
    assert bridge.value(apart, bridge.turn(turn).reply_message_id, row.message_id).total_seconds() == 0.001
    assert (row.bot_id, len(row.version), row.event_id) == (CAMILLE, 64, bridge.turn(turn).covers[-1])


@without(SAYS_NOTHING)
def test_L1_an_opener_discloses_and_the_reply_after_it_does_not(bridge: Bridge) -> None:
    """The opener's own look finds no message; the disclosure is inserted after it, in the same transaction."""
    disclose(bridge)
    match = bridge.match(opener=True)
    assert bridge.deliver(bridge.typing_opener(match)).name == "answered"
    answered(bridge, match)
    assert said(bridge, match) == [TEXT, "bonjour", "coucou"]
    assert [row.event_id for row in disclosures(bridge, match)] == [0]


@without(("say_over_limit", "bridge.disclose(t.id, t.match_id, t.bot_id, bridge.stamp(t.id))", "bridge.stamp(t.id)"))
def test_L1_the_text_over_a_limit_comes_after_the_disclosure(bridge: Bridge) -> None:
    """What the bot says of a limit may be its first own words."""
    disclose(bridge)
    set_policy(bridge.urls, over_limit="Demain.", limit_calls_person_day=1)
    match = bridge.match()
    bridge.write(match)
    claim = bridge.claimed(match)
    call = Call(claim.token, 1, claim.turn, "m", 1, 1, 1.0)
    assert bridge.store.reserve_call(call)["outcome"] == "reserved"
    assert bridge.store.hold(claim.turn, claim.token).name == "held"
    assert said(bridge, match) == [TEXT, "Demain."]


def test_L1_a_set_discloses_in_each_of_its_conversations(bridge: Bridge) -> None:
    """Two first replies of one set, each with its disclosure."""
    disclose(bridge)
    matches = [bridge.match(), bridge.match(HUGO)]
    bridge.write(matches[0])
    bridge.write(matches[1], sender=HUGO)
    for match in matches:
        bridge.typing(match)
    for _ in matches:  # a slow machine ends a set after the first
        bridge.store.deliver_due(16, [])
    assert [said(bridge, match) for match in matches] == [[TEXT, "coucou"]] * 2


def test_L1_a_silence_discloses_nothing(bridge: Bridge, ledger: Ledger) -> None:
    """The bot said nothing, so nothing is due; the next words disclose."""
    disclose(bridge)
    match = bridge.match()
    bridge.write(match)
    claim = bridge.claimed(match)
    assert bridge.store.finish(claim.turn, claim.token, "", pause=0, action="silence").name == "answered"
    assert (said(bridge, match), disclosures(bridge, match)) == ([], [])
    assert undisclosed(ledger) == (0, ())
    answered(bridge, match)
    assert said(bridge, match) == [TEXT, "coucou"]


def test_L1_the_policy_of_the_delivery_rules(bridge: Bridge) -> None:
    """A disclosure that was set after the claim is said; a changed text is not said again; another bot says its own."""
    match, other = bridge.match(), bridge.match()
    answered(bridge, match, "avant")
    bridge.write(match)
    turn = bridge.typing(match, "coucou")
    disclose(bridge)
    assert bridge.deliver(turn).name == "answered"
    disclose(bridge, "Autre texte.")
    answered(bridge, match, "encore")
    assert said(bridge, match) == ["avant", TEXT, "coucou", "encore"]

    set_policy(bridge.urls, CAMILLE, disclosure="none")
    answered(bridge, other)
    assert (said(bridge, other), disclosures(bridge, other)) == (["coucou"], [])


# Two at once, and what does not commit


@without(
    ("disclose", "ON CONFLICT (match_id, bot_id) DO NOTHING", ""),
    ("sql", "ALTER TABLE bridge.disclosures DROP CONSTRAINT disclosures_pkey"),
)
def test_L1_two_first_words_at_once_say_it_once(bridge: Bridge) -> None:
    """The second waits for the first one's row, and its words are stamped after the disclosure that it did not say."""
    disclose(bridge)
    match = bridge.match(opener=True)
    opener = bridge.typing_opener(match)
    first = bridge.session(SERVICE)
    bridge.rows("SELECT bridge.deliver_turn(%s)", opener, connection=first)
    other = bridge.execute(
        bridge.connect(ADMIN),
        "CREATE TABLE words AS SELECT bridge.disclose(%s, %s, %s, bridge.now() - interval '1 hour') AS at",
        *(opener, match, CAMILLE),
    )
    other.settle()
    first.commit()
    other.result()
    assert said(bridge, match) == [TEXT, "bonjour"]
    [row] = disclosures(bridge, match)
    assert (bridge.value("SELECT at FROM words") - row.said_at).total_seconds() == 0.001


def test_L1_the_second_says_it_if_the_first_does_not_commit(bridge: Bridge) -> None:
    """A delivery that is rolled back leaves no row, so whatever waited for it discloses."""
    disclose(bridge)
    match = bridge.match(opener=True)
    opener = bridge.typing_opener(match)
    first = bridge.session(SERVICE)
    bridge.rows("SELECT bridge.deliver_turn(%s)", opener, connection=first)
    at = "SELECT bridge.disclose(%s, %s, %s, bridge.now())"
    other = bridge.execute(bridge.connect(ADMIN), at, opener, match, CAMILLE)
    other.until_waiting()
    first.rollback()
    other.result()
    assert (said(bridge, match), len(disclosures(bridge, match))) == ([TEXT], 1)


def test_L1_an_opener_and_a_reply_in_turn_and_two_deliverers_say_it_once(bridge: Bridge) -> None:
    """A person writes while two deliverers have the opener: one disclosure, one opener, one reply."""
    disclose(bridge)
    match = bridge.match(opener=True)
    opener = bridge.typing_opener(match)
    first = bridge.session(SERVICE)
    bridge.rows("SELECT bridge.deliver_turn(%s)", opener, connection=first)
    second = bridge.run(lambda store: store.deliver(opener))
    writes = "INSERT INTO messages (match_id, sender_id, content) VALUES (%s, %s, 'salut')"
    person = bridge.execute(bridge.connect(), writes, match, LEA)
    second.until_waiting()
    person.until_waiting()
    first.commit()
    assert second.result().details["again"]
    person.result()
    stores = [bridge.another_store() for _ in range(2)]
    turn = bridge.typing(match)
    assert {store.deliver(turn).name for store in stores} == {"answered"}
    assert (said(bridge, match), len(disclosures(bridge, match))) == ([TEXT, "bonjour", "coucou"], 1)


def test_L1_a_delivery_that_fails_takes_the_disclosure_back(bridge: Bridge) -> None:
    """The app's table refuses the reply: neither stands there, and the next words disclose."""
    disclose(bridge)
    bridge.rows(REFUSES.format("coucou"))
    match = bridge.match()
    bridge.write(match)
    assert bridge.deliver(bridge.typing(match)).name == "failed"
    assert (said(bridge, match), disclosures(bridge, match)) == ([], [])
    bridge.advance(60)
    bridge.push()
    claim = bridge.claim(bridge.turns(match)[-1].id)
    assert bridge.finish(claim, "autrement", pause=0).name == "answered"
    assert said(bridge, match) == [TEXT, "autrement"]


@without(
    ("deliver_turn", "v_at := bridge.disclose(coalesce(t.follows, t.id), t.match_id, t.bot_id, v_at);",
     "BEGIN v_at := bridge.disclose(t.id, t.match_id, t.bot_id, v_at); EXCEPTION WHEN OTHERS THEN NULL; END;"),
)  # fmt: skip
@pytest.mark.parametrize("refusing", [REFUSES.format(TEXT), NULLS], ids=["raises", "returns NULL"])
def test_L1_without_the_disclosure_nothing_is_said(bridge: Bridge, refusing: str) -> None:
    """The table takes the reply and not the disclosure: attempts with the same draft, and the error names it."""
    disclose(bridge)
    bridge.rows(refusing)
    match = bridge.match()
    bridge.write(match)
    turn = bridge.typing(match)
    for attempt in range(1, MAX_ATTEMPTS):
        outcome = bridge.deliver(turn)
        assert (outcome.name, outcome.details.get("attempts")) == ("failed", attempt)
        assert outcome.details["named"].endswith(" at the disclosure")
        assert (bridge.turn(turn).state, bridge.turn(turn).draft) == ("typing", "coucou")
        bridge.advance(60)
    assert bridge.deliver(turn).name == "dead"
    assert bridge.turn(turn).last_error.startswith("the disclosure was refused: ")
    assert (said(bridge, match), disclosures(bridge, match)) == ([], [])


def test_L1_a_notice_is_not_said_without_the_disclosure(bridge: Bridge) -> None:
    """The table refuses the disclosure: the turn is held, and the bot says nothing of the limit."""
    disclose(bridge)
    bridge.rows(REFUSES.format(TEXT))
    set_policy(bridge.urls, over_limit="Demain.", limit_calls_person_day=1)
    match = bridge.match()
    bridge.write(match)
    claim = bridge.claimed(match)
    call = Call(claim.token, 1, claim.turn, "m", 1, 1, 1.0)
    assert bridge.store.reserve_call(call)["outcome"] == "reserved"
    assert bridge.store.hold(claim.turn, claim.token).name == "held"
    assert said(bridge, match) == []
    assert not bridge.rows("SELECT FROM bridge.notices")


# What knows it


@without(("known_lines", "WHERE d.match_id = p_match", "WHERE false"))
def test_L1_the_disclosure_is_the_bot_s_own_line(bridge: Bridge, ledger: Ledger) -> None:
    """It is history of the bot, answers nothing, and stands in its place whatever the app's times are."""
    disclose(bridge)
    match = bridge.match()
    answered(bridge, match)
    assert bridge.value("SELECT bridge.answered_until(%s, %s)", match, LEA) is None
    bridge.rows("UPDATE messages SET created_at = created_at - interval '1 day' WHERE content = %s", TEXT)
    bridge.write(match, "encore")
    task = bridge.claimed(match).outcome.task
    assert task is not None
    assert [(line.from_bot, line.content) for line in task.history] == [
        (False, "salut"),
        (True, TEXT),
        (True, "coucou"),
    ]
    assert undisclosed(ledger) == (0, ())
    assert ledger.replay(None, None, None, retention_days=30, dry_run=True).found == 0


@without(("prune", "DELETE FROM bridge.distress", "DELETE FROM bridge.disclosures; DELETE FROM bridge.distress"))
def test_L1_the_row_outlives_retention_and_goes_with_its_match(bridge: Bridge) -> None:
    """After the retention a conversation goes on without a second disclosure."""
    disclose(bridge)
    match = bridge.match()
    answered(bridge, match)
    bridge.advance(31 * 86400)
    assert bridge.store.prune(30, 100) == 1
    set_policy(bridge.urls, ignore_older_days=0)
    answered(bridge, match, "encore")
    assert said(bridge, match) == [TEXT, "coucou", "encore"]
    bridge.rows("DELETE FROM messages; DELETE FROM matches WHERE id = %s", match)
    bridge.value("SELECT bridge.forget_matches(%s::uuid[])", [match])
    assert disclosures(bridge, match) == []


# What `verify` counts


@without(SAYS_NOTHING)
def test_L1_verify_asks_for_it_where_the_bridge_spoke(bridge: Bridge, ledger: Ledger) -> None:
    """A disclosure that the app deleted is missed while the match and words of the bot are there."""
    before, match, gone = bridge.match(), bridge.match(), bridge.match()
    answered(bridge, before)
    disclose(bridge)
    for each in (match, gone):
        answered(bridge, each)
    assert undisclosed(ledger) == (0, ())

    bridge.rows("DELETE FROM messages WHERE content = %s", TEXT)
    assert undisclosed(ledger) == (2, tuple(sorted((match, gone))))
    bridge.rows("DELETE FROM messages WHERE match_id = %s AND sender_id = %s", match, CAMILLE)
    bridge.rows("DELETE FROM messages WHERE match_id = %s", gone)
    bridge.rows("DELETE FROM matches WHERE id = %s", gone)
    assert undisclosed(ledger) == (0, ())


def test_L1_verify_finds_words_that_nothing_disclosed(bridge: Bridge, ledger: Ledger) -> None:
    """It does not trust the row: without one, words after the policy was set count, and no earlier ones."""
    earlier, match = bridge.match(), bridge.match()
    bridge.stop_clock()
    answered(bridge, earlier)
    set_policy(bridge.urls, disclosure=TEXT)
    answered(bridge, match)
    bridge.rows("DELETE FROM bridge.disclosures")
    assert undisclosed(ledger) == (1, (match,))  # `typing` takes 22 s

    set_policy(bridge.urls, disclosure="Autre texte.")
    assert undisclosed(ledger) == (1, (match,))  # another text is no other time
    set_policy(bridge.urls, CAMILLE, disclosure="none")
    assert undisclosed(ledger) == (0, ())
    set_policy(bridge.urls, CAMILLE, disclosure=None)
    assert undisclosed(ledger) == (0, ())  # of the time before nothing is known
    bridge.advance(4)
    bridge.rows("UPDATE bridge.turns SET answered_at = bridge.now() WHERE state = 'answered'")
    assert undisclosed(ledger) == (0, ())  # a delivery may have looked just before the commit
    bridge.advance(2)
    bridge.rows("UPDATE bridge.turns SET answered_at = bridge.now() WHERE state = 'answered'")
    assert undisclosed(ledger) == (2, tuple(sorted((earlier, match))))


def test_L1_other_policy_is_no_new_time(bridge: Bridge, ledger: Ledger) -> None:
    """A bot's row without a disclosure changes nothing, nor does a scheduler that writes its environment again."""
    bridge.store.set_environment({"disclosure": TEXT})
    bridge.advance(60)
    match = bridge.match()
    answered(bridge, match)
    bridge.rows("DELETE FROM bridge.disclosures")
    set_policy(bridge.urls, CAMILLE, typing_speed_cps=2)
    bridge.store.set_environment({"disclosure": TEXT, "max_merges": 2})
    assert undisclosed(ledger) == (1, (match,))
    assert bridge.rows("SELECT scope, says FROM bridge.disclosing") == [("environment", True)]
