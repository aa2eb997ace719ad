"""What people do in a run: who meets whom, who writes what when. Pure, and the same for the same seed.

The shapes are those that races are made of: bursts of one to four messages, first words at the moment of the opener,
messages just when a group closes or a reply is delivered, transactions that stay open, that are rolled back, that write
in two conversations, and two devices that write at the same time.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Final
from uuid import UUID

if TYPE_CHECKING:
    import random
    from collections.abc import Iterator

BOTS: Final = 20
PEOPLE: Final = 200


@dataclass(frozen=True, slots=True)
class Match:
    """A conversation; `person` and `bot` are numbers. With `two_people` there is no bot and nobody is to answer."""

    number: int
    match_id: str
    person: int
    bot: int
    two_people: bool


class Deed(Enum):
    """What an app does beside new messages."""

    SPEAK = "a human writes in the bot's name"
    EDIT = "a person edits the newest message"
    DELETE = "a person deletes the newest message"
    HOLD = "a transaction holds the row of the bot's indicator"


@dataclass(frozen=True, slots=True)
class Act:
    """One transaction of the app.

    Attributes:
      at: seconds from the start.
      meets: matches that it makes.
      writes: matches in which it writes one message each, in order.
      hold: seconds between its last INSERT and its end.
      rolls_back: whether that end is a ROLLBACK.
      isolation: None: the default.
      deed: what it does with the newest message, or in the bot's name, in the conversation `on`.
    """

    at: float
    meets: tuple[Match, ...] = ()
    writes: tuple[Match, ...] = ()
    hold: float = 0.0
    rolls_back: bool = False
    isolation: str | None = None
    deed: Deed | None = None
    on: tuple[Match, ...] = ()

    @property
    def match(self) -> Match:
        """The conversation whose other acts it has to come after."""
        return (*self.meets, *self.writes, *self.on)[0]


@dataclass(frozen=True, slots=True)
class Habits:
    """How often people do what; shares from 0 to 1, seconds.

    Attributes:
      delay: GROUPING_DELAY, around which they like to write.
      opener: from when to when after a match the bot's first word may come.
      held, rolled_back, paired, repeatable: shares of transactions that stay open, are rolled back, write in two
        conversations, run as REPEATABLE READ.
      hold_seconds: how long those stay open that do.
      races: share of messages that come just when the group closes.
      first_words: share of matches whose person writes in the seconds of the opener.
      silent: share of matches in which nobody ever writes, for the opener's sake.
      two_people: share of matches without a bot.
      at_once: how many conversations are alive at a time.
      length: messages of a conversation, on average.
      tactful: how many bots, the first ones, have replies of three messages, a disclosure and a short TAKEOVER_PAUSE.
        The other habits concern their conversations: shares of the messages after which something comes.
      interrupts: a further message at the time of the reply.
      speaks, edits, deletes, holds: deeds.
    """

    delay: float = 1.0
    opener: tuple[float, float] = (0.5, 3.0)
    held: float = 0.05
    rolled_back: float = 0.03
    paired: float = 0.03
    repeatable: float = 0.05
    hold_seconds: tuple[float, float] = (0.1, 1.5)
    races: float = 0.2
    first_words: float = 0.6
    silent: float = 0.05
    two_people: float = 0.03
    at_once: int = 24
    length: int = 9
    tactful: int = 0
    interrupts: float = 0.5
    speaks: float = 0.06
    edits: float = 0.15
    deletes: float = 0.05
    holds: float = 0.05

    def are_tactful(self, match: Match) -> bool:
        """Whether a conversation is one of a tactful bot."""
        return match.bot < self.tactful and not match.two_people


def write_script(rng: random.Random, messages: int, seconds: float, habits: Habits) -> list[Act]:
    """Write about so many messages into so many seconds, and nothing after them; acts by time."""
    messages = round(messages / (1 + habits.interrupts * habits.tactful / BOTS))  # `_more` writes the others
    count = max(4, messages // habits.length)
    matches = [_match(rng, number, habits) for number in range(count)]
    # Conversations begin one after the other, and so many are alive at a time.
    life = seconds * min(1.0, habits.at_once / count)
    begins = [max(0.0, (seconds + life) * number / count - life) for number in range(count)]
    first = (_first_acts(rng, match, at, habits) for match, at in zip(matches, begins, strict=True))
    acts = [act for act in itertools.chain.from_iterable(first) if act.at <= seconds]
    talkative = [match for match in matches if rng.random() >= habits.silent]
    left = messages - sum(len(act.writes) for act in acts)
    while left > 0:
        match = rng.choice(talkative)
        at = min(seconds, begins[match.number] + rng.uniform(0.1, life))
        for act in _burst(rng, match, at, habits):
            another = rng.choice(talkative)
            writes = act.writes
            if rng.random() < habits.paired and another is not match and begins[another.number] < act.at - 1:
                writes = (*writes, another)
            if act.at <= seconds:
                acts.append(Act(act.at, (), writes, act.hold, act.rolls_back, act.isolation))
                left -= len(writes)
    if habits.tactful:
        acts += [more for act in acts[:] for more in _more(rng, act, habits) if more.at <= seconds]
    return sorted(acts, key=lambda act: act.at)


def _match(rng: random.Random, number: int, habits: Habits) -> Match:
    match_id = str(UUID(int=rng.getrandbits(128), version=4))
    return Match(number, match_id, rng.randrange(PEOPLE), rng.randrange(BOTS), rng.random() < habits.two_people)


def _first_acts(rng: random.Random, match: Match, at: float, habits: Habits) -> Iterator[Act]:
    if rng.random() < 0.05:  # now and then an app does both in one transaction
        yield Act(at, (match,), (match,))
        return
    yield Act(at, (match,), hold=rng.uniform(*habits.hold_seconds) if rng.random() < habits.held else 0.0)
    if rng.random() < habits.first_words:
        soon, late = habits.opener
        hold = rng.uniform(*habits.hold_seconds) if rng.random() < 0.5 else 0.0  # half of them
        yield Act(at + rng.uniform(soon - 0.3, late + 0.3), (), (match,), hold)


def _burst(rng: random.Random, match: Match, at: float, habits: Habits) -> Iterator[Act]:
    for _ in range(rng.choice((1, 1, 2, 2, 3, 4))):
        hold = rng.uniform(*habits.hold_seconds) if rng.random() < habits.held else 0.0
        isolation = "REPEATABLE READ" if rng.random() < habits.repeatable else None
        yield Act(at, (), (match,), hold, rng.random() < habits.rolled_back, isolation)
        at += habits.delay * rng.uniform(0.95, 1.05) if rng.random() < habits.races else rng.uniform(0.01, 0.4)


def _more(rng: random.Random, act: Act, habits: Habits) -> Iterator[Act]:
    """Give what comes after a message in the conversation of a tactful bot."""
    for match in act.writes:
        if not habits.are_tactful(match):
            continue
        if rng.random() < habits.interrupts:
            yield Act(act.at + habits.delay + rng.uniform(0.3, 2.0), (), (match,))
        shares = (
            (Deed.SPEAK, habits.speaks),
            (Deed.EDIT, habits.edits),
            (Deed.DELETE, habits.deletes),
            (Deed.HOLD, habits.holds),
        )
        for deed, share in shares:
            if rng.random() < share:
                stays = deed is Deed.HOLD or rng.random() < 0.4
                hold = rng.uniform(*habits.hold_seconds) if stays else 0.0
                at = act.at + rng.uniform(0.1, habits.delay + 2.0)
                yield Act(at, hold=hold, rolls_back=rng.random() < habits.rolled_back, deed=deed, on=(match,))
