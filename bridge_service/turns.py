"""The words of the domain: what a bot owes a conversation, and what a responder is told about it.

An *event* is one captured fact, a person's message to a bot or a new match. A *turn* is what a bot owes for it: a
reply to a group of events, or an initiation, which is the opener after a match. Pure: nothing here reads or writes.
"""

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from uuid import UUID


class Kind(StrEnum):
    """What a turn is for: a `reply` to a group of messages, or an `initiation`, the opener after a match."""

    REPLY = "reply"
    INITIATION = "initiation"


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
class Task:
    """All that a responder is told about the turn it is to write.

    Attributes:
      turn_id: the turn; the same turn may be asked for again after a failure.
      kind: whether to answer a group of messages, or to write the opener.
      match_id: the conversation.
      bot_id: the bot that speaks.
      bot_name: the bot's first name; '' if the app knows none.
      person_name: the other side's first name; '' if the app knows none.
      messages: the group to answer, whole and in the order of its commits; empty for an initiation. A group of more
        than 100 MB is never handed out: its turn is dead.
      history: what was said before the group, oldest first, at most 50 lines of at most 4,000 characters each; a longer
        message is cut there.
      attempts: how often this turn has failed.
      merges: how many overtaken replies this turn has inherited messages from.
      refused: why the app's table refused the last draft of this turn, as SQLSTATE, constraint and limit, or in the
        words of the app's own trigger; '' if it refused none. A draft that says the same is refused again.
      claim: the claim under which the calls of a model are counted; None in a task made by hand.
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
