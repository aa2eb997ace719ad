"""The words of the domain: what a bot owes a conversation, what a responder is told about it, and what it answers.

An *event* is one captured fact, a person's message to a bot or a new match. A *turn* is what a bot owes for it: a
reply to a group of events, an initiation, which is the opener after a match, or a follow-up after a silence. Pure:
nothing here reads or writes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Final, Literal, TypeAlias, get_args
from uuid import UUID

from bridge_service import hints

Action: TypeAlias = Literal["say", "silence", "leave"]
ACTIONS: Final = get_args(Action)


class Kind(StrEnum):
    """What a turn is for.

    A `reply` answers a group of messages. An `initiation` is the opener after a match. A `follow_up` is one friendly
    message after a silence that followed a reply.
    """

    REPLY = "reply"
    INITIATION = "initiation"
    FOLLOW_UP = "follow_up"


@dataclass(frozen=True, slots=True)
class Line:
    """One message of a conversation.

    Attributes:
      message_id: the app's id of the message; None if the app's history does not tell it.
      from_bot: whether the bot wrote it; otherwise the person did.
      content: the text; a message without one (NULL in the app's table) is ''.
      sent_at: the app's time of the message, aware; None if it is unknown or no date that Python can hold.
    """

    message_id: str | None
    from_bot: bool
    content: str
    sent_at: datetime | None


@dataclass(frozen=True, slots=True)
class Model:
    """Which model a bot asks, and its bounds: what policy says of the bot.

    Attributes:
      name: None if policy names none.
      fallback: asked once where the first one fails; None: no other model is asked.
      temperature: None: the model's own.
      max_tokens: of one reply.
      history_tokens: of the history that the model is told.
    """

    name: str | None = None
    fallback: str | None = None
    temperature: float | None = None
    max_tokens: int = 400
    history_tokens: int = 4000


@dataclass(frozen=True, slots=True)
class Reply:
    """What a responder answers, where a text alone does not say it.

    Attributes:
      parts: the texts, in order; each is a message of its own, up to REPLY_PARTS of them.
      action: `say` delivers the parts. `silence` ends the turn as answered without a text; it has no parts. `leave`
        delivers the parts, if there are any, and ends the conversation for the bot: no later message there is answered
        until an operator or the app resumes it.
    """

    parts: Sequence[str] = ()
    action: Action = "say"


@dataclass(frozen=True, slots=True)
class Task:
    """All that a responder is told about the turn it is to write.

    Attributes:
      turn_id: the turn; the same turn may be asked for again after a failure.
      kind: whether to answer a group of messages, to write the opener, or to follow up after a silence.
      match_id: the conversation.
      bot_id: the bot that speaks.
      bot_name: the bot's first name; '' if the app knows none.
      person_name: the other side's first name; '' if the app knows none.
      messages: the group to answer, whole and in the order of its commits; empty for an initiation and a follow-up. A
        group of more than 100 MB is never handed out: its turn is dead.
      history: what was said before the group, oldest first, at most 50 lines of at most 4,000 characters each; a longer
        message is cut there.
      attempts: how often this turn has failed.
      merges: how many overtaken replies this turn has inherited messages from.
      refused: why the app's table refused the last draft of this turn, as SQLSTATE, constraint and limit, or in the
        words of the app's own trigger; '' if it refused none. A draft that says the same is refused again.
      claim: the claim under which the calls of a model are counted; None in a task made by hand.
      persona: who the bot is, from bridge.bots or the app's `bridge.persona`; '' if neither says it.
      bot_profile, person_profile: what the app's `bridge.profile` tells of the two; empty unless the app replaced it.
      matched_at: the app's time of the match, aware; None as in `Line`.
      local_time: the time in the bot's TIMEZONE when the turn was claimed, aware; None in a task made by hand.
      said, withheld: the parts of the bot's last reply here that were delivered and that were not, if a newer message,
        which is among `messages`, interrupted it; the history holds those that were delivered.
      model: the model that policy names for the bot, and its bounds.
      most_parts: how many messages the reply may have; 1 for an opener and a follow-up.
    """

    turn_id: int
    kind: Kind
    match_id: str
    bot_id: str
    bot_name: str
    person_name: str
    messages: tuple[Line, ...]
    history: tuple[Line, ...]
    attempts: int
    merges: int
    refused: str = ""
    claim: UUID | None = field(default=None, repr=False, compare=False)
    persona: str = ""
    bot_profile: Mapping[str, Any] = field(default_factory=dict, hash=False)
    person_profile: Mapping[str, Any] = field(default_factory=dict, hash=False)
    matched_at: datetime | None = None
    local_time: datetime | None = None
    said: tuple[str, ...] = ()
    withheld: tuple[str, ...] = ()
    model: Model = Model()
    most_parts: int = 1

    @property
    def situation(self) -> tuple[str, ...]:
        """Sentences about the situation, such as "The person repeats an earlier message"; they quote nobody."""
        return hints.situation(self)
