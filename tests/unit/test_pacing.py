"""How long a bot thinks and types."""

import random
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge_service.turns import Line
from bridge_service.worker.pacing import (
    EMOJI_PAUSE_SECONDS,
    JUST_SPOKE,
    MAXIMUM_TYPING_SECONDS,
    PUNCTUATION_PAUSE_SECONDS,
    Pace,
    is_urgent,
    just_spoke,
    pause_before_delivery,
    pause_before_part,
    thinking_seconds,
    typing_seconds,
)

delays = st.floats(0, 1e6)
groups = st.lists(st.text(), max_size=10)


def draws(seed: int) -> random.Random:
    """Make a source of random numbers that is always the same for a seed."""
    return random.Random(seed)  # noqa: S311 - a pace is no secret


@given(groups, delays, delays, st.integers(), st.booleans())
def test_thinking_stays_within_its_bounds(
    messages: list[str],
    one: float,
    other: float,
    seed: int,
    warm: bool,  # noqa: FBT001 - Hypothesis passes it
) -> None:
    """Thinking takes at least the minimum and at most the maximum, whatever the group."""
    minimum, maximum = sorted((one, other))

    assert minimum <= thinking_seconds(messages, minimum, maximum, draws(seed), warm=warm) <= maximum


@given(groups, st.integers())
def test_a_bot_that_has_just_spoken_thinks_for_less_time(messages: list[str], seed: int) -> None:
    """With the same draw it never takes longer than a bot that comes back after a while."""
    warm, cold = (thinking_seconds(messages, 2, 15, draws(seed), warm=each) for each in (True, False))

    assert warm < cold


@given(groups, st.integers())
def test_an_urgent_group_is_answered_sooner(messages: list[str], seed: int) -> None:
    """With the same draw the same group takes less time if an exclamation mark stands in it, and not a full stop."""
    calm = [text.replace("!", "").replace("！", "") for text in messages]
    urgent, other = (thinking_seconds([*calm, f"viens{mark}"], 2, 15, draws(seed)) for mark in "!.")

    assert urgent <= other


@pytest.mark.parametrize(
    ("text", "urgent"),
    [
        ("réponds !", True),
        ("REPONDS stp", True),
        ("RÉPONDS", True),
        ("c'est urgent", True),
        ("Vite", True),
        ("au secours", True),
        ("à l’aide", True),
        ("please help me", True),
        ("emergency", True),
        ("ok", False),
        ("OK MDR", False),
        ("Paris", False),
        ("invite tes amis, rien d'autre", False),
        ("helpful", False),
        ("", False),
    ],
)
def test_what_is_urgent(text: str, urgent: bool) -> None:  # noqa: FBT001
    """An exclamation mark, a word of four letters in capitals, or a word of urgency, in French and English."""
    assert is_urgent([text]) is urgent
    assert is_urgent(["salut", text, "tu es là"]) is urgent


def test_a_huge_group_is_not_read_whole_for_its_pause() -> None:
    """Only the end of a message and the latest messages tell that a group is urgent."""
    assert not is_urgent(["vite" + " " * 1_000_000])
    assert not is_urgent(["vite", *["salut"] * 100])


NOW = datetime(2026, 12, 1, 12, 0, tzinfo=UTC)


def line(age: timedelta | None, *, bot: bool) -> Line:
    """Make a message of that age."""
    return Line(None, bot, "coucou", None if age is None else NOW - age)


@pytest.mark.parametrize(
    ("history", "now", "spoke"),
    [
        ([], NOW, False),
        ([line(timedelta(seconds=10), bot=True)], NOW, True),
        ([line(timedelta(seconds=10), bot=True), line(timedelta(seconds=5), bot=False)], NOW, True),
        ([line(timedelta(seconds=5), bot=False)], NOW, False),
        ([line(JUST_SPOKE, bot=True)], NOW, False),
        ([line(timedelta(seconds=-1), bot=True)], NOW, True),
        ([line(timedelta(days=-1), bot=True)], NOW, False),
        ([line(timedelta(seconds=5), bot=True), line(None, bot=True)], NOW, False),
        ([line(timedelta(seconds=5), bot=True)], None, False),
    ],
)
def test_when_a_bot_has_just_spoken(history: list[Line], now: datetime | None, spoke: bool) -> None:  # noqa: FBT001
    """Its last message is younger than 30 s at the claim, by the app's clock, which may be a little ahead."""
    assert just_spoke(history, now) is spoke


@pytest.mark.parametrize(
    ("shorter", "longer"),
    [
        ([], ["salut"]),
        (["salut"], ["salut", "ça va"]),
        (["tu viens"], ["tu viens avec nous dimanche, si le temps le permet"]),
        (["tu viens."], ["tu viens?"]),
    ],
)
def test_more_to_read_takes_longer(shorter: list[str], longer: list[str]) -> None:
    """With the same draw, more messages, longer ones and questions take more time to think about."""
    quick, slow = (thinking_seconds(messages, 2, 15, draws(1)) for messages in (shorter, longer))

    assert quick < slow


def test_equal_groups_do_not_take_equal_times() -> None:
    """Chance has its share, so that a bot does not answer like a clock."""
    rng = draws(1)

    assert len({thinking_seconds(["salut"], 2, 15, rng) for _ in range(10)}) == 10


@pytest.mark.parametrize("seconds", [0.0, 2.5])
def test_equal_bounds_leave_no_choice(seconds: float) -> None:
    """A minimum that is the maximum is the time exactly."""
    assert thinking_seconds(["tu viens ?"], seconds, seconds, draws(1)) == seconds
    assert thinking_seconds(["VITE !"], seconds, seconds, draws(1), warm=True) == seconds


@pytest.mark.parametrize(
    ("reply", "pauses"),
    [
        ("bonjour", 0),
        ("oui, bien", PUNCTUATION_PAUSE_SECONDS),
        ("oui... non ?!", 2 * PUNCTUATION_PAUSE_SECONDS),
        ("super 😀", EMOJI_PAUSE_SECONDS),
        ("🥾 et ⛰️ ou 👩🏽‍🚀", 3 * EMOJI_PAUSE_SECONDS),
    ],
)
def test_typing_takes_each_character_and_the_pauses(reply: str, pauses: float) -> None:
    """A reply takes its length at the given speed, 0.3 s a punctuation mark and 0.5 s an emoji; a run is one."""
    assert typing_seconds(reply, 3.5) == pytest.approx(len(reply) / 3.5 + pauses)


@given(st.text(), st.floats(min_value=0, exclude_min=True, allow_infinity=False))
def test_typing_has_an_end(reply: str, characters_per_second: float) -> None:
    """No text and no speed, however slow, make typing last longer than its maximum."""
    assert 0 <= typing_seconds(reply, characters_per_second) <= MAXIMUM_TYPING_SECONDS


def test_a_very_long_reply_arrives() -> None:
    """A hundred thousand characters are typed in the maximum, not in eight hours."""
    assert typing_seconds("a" * 100_000, 3.5) == MAXIMUM_TYPING_SECONDS


@given(groups, st.text(), st.integers())
def test_no_pause_at_all(messages: list[str], reply: str, seed: int) -> None:
    """With thinking from 0 to 0 and a speed of 0 the reply is due at once, its punctuation and emojis included."""
    assert pause_before_delivery(messages, f"{reply}. 😀", Pace(0, 0, 0), draws(seed)) == 0.0


def test_a_message_after_the_first_waits_for_its_pause_and_its_typing() -> None:
    """The pause lies within the bot's range, and a pace of zeros gives none."""
    pace = Pace(2, 15, 3.5, part_pause_min=1.5, part_pause_max=3)
    pause = pause_before_part("oui.", pace, draws(7)) - typing_seconds("oui.", 3.5)
    assert pause == pytest.approx(1.5 + 1.5 * draws(7).random())
    assert pause_before_part("oui.", Pace(0, 0, 0), draws(7)) == 0.0


def test_the_pause_is_thinking_and_typing() -> None:
    """A reply is due after thinking about the group and typing the text."""
    pause = pause_before_delivery(["tu viens ?"], "oui.", Pace(2, 15, 3.5), draws(7))

    assert pause == thinking_seconds(["tu viens ?"], 2, 15, draws(7)) + typing_seconds("oui.", 3.5)
