"""What happens to a turn, from its first event to its end."""

import logging

from bridge_service.telemetry.signals.base import Signal


class MatchDetected(Signal):
    """A new match with a bot was grouped."""

    match_id: str
    bot_id: str


class MessageGrouped(Signal):
    """A message joined a turn as its `position`-th, counted from 1; the first starts the delay."""

    match_id: str
    turn_id: int
    event_id: int
    position: int
    delay_seconds: float


class EventSetAside(Signal, level=logging.ERROR):
    """`count` captured events of a conversation could not be grouped and wait for an operator."""

    count: int
    match_id: str
    error: str


class GroupClosed(Signal):
    """A group of messages is due and about to be pushed."""

    turn_id: int
    match_id: str
    messages: int


class InitiationDue(Signal):
    """An opener is due and about to be pushed."""

    turn_id: int
    match_id: str


class TurnPushed(Signal):
    """A turn was pushed for the first time."""

    turn_id: int
    match_id: str
    kind: str


class PushesRepeated(Signal):
    """`count` pushes that were taken for lost were made again."""

    count: int


class TurnsRecovered(Signal):
    """`count` turns were taken from workers that died, or were found without a push."""

    count: int
    reason: str


class TurnClaimed(Signal):
    """A worker has claimed a turn with `messages`."""

    turn_id: int
    match_id: str
    kind: str
    messages: int


class TurnTyping(Signal):
    """The draft is there; it is delivered after `seconds`."""

    turn_id: int
    match_id: str
    seconds: float


class ReplyDelivered(Signal):
    """A reply to `covered` messages, or an opener to none, was inserted; `lateness_seconds`: after its planned time."""

    turn_id: int
    match_id: str
    message_id: str
    kind: str
    characters: int
    covered: int
    lateness_seconds: float


class ReplyInterrupted(Signal):
    """Of a reply of several messages `said` were delivered, and `withheld` were not."""

    turn_id: int
    match_id: str
    reason: str
    said: int
    withheld: int


class TurnSilent(Signal):
    """A turn that covers `covered` messages, or an opener, was answered with a chosen silence."""

    turn_id: int
    match_id: str
    kind: str
    covered: int


class TurnCancelled(Signal):
    """A turn ended without a reply, because none is owed any more."""

    turn_id: int
    match_id: str
    kind: str
    reason: str


class TurnSuperseded(Signal):
    """A reply was overtaken by new messages; the `merges`-th in its chain."""

    turn_id: int
    match_id: str
    merges: int


class TurnHeld(Signal):
    """A turn waits until the next day: `cause` is limit_calls or limit_tokens; it may be answered after `until`."""

    turn_id: int
    match_id: str
    cause: str
    until: str


class TurnPaused(Signal):
    """A turn waits because its conversation or its bot is paused; it is looked at again at `until`."""

    turn_id: int
    match_id: str
    until: str


class TurnQuiet(Signal):
    """A turn waits because its bot sleeps; it may be answered after `until`.

    It was pushed or written before the hours began. What becomes due in them is held by the push, and not told of.
    """

    turn_id: int
    match_id: str
    until: str


class RepliesLimited(Signal, level=logging.WARNING):
    """A conversation got LIMIT_REPLIES_HOUR replies of its bot within an hour; it may go on after `until`."""

    turn_id: int
    match_id: str
    until: str


class Distress(Signal, level=logging.WARNING):
    """A claimed turn covers a message with one of its bot's `distress_words`: that of the event `event_id`."""

    turn_id: int
    match_id: str
    event_id: int


class TurnFailed(Signal, level=logging.WARNING):
    """A turn failed for the `attempts`-th time and is tried again."""

    turn_id: int
    match_id: str
    error_type: str
    attempts: int


class TurnDead(Signal, level=logging.ERROR):
    """A turn was given up; an operator decides."""

    turn_id: int
    match_id: str
    error_type: str


class ResponderAway(Signal, level=logging.WARNING):
    """The responder is away; the turn is tried again after `retry_seconds`."""

    turn_id: int
    match_id: str
    error_type: str
    retry_seconds: float


class CallSettled(Signal, level=logging.DEBUG):
    """A call of a model is over: answered, refused or cancelled; a cancelled one counts what was reserved for it."""

    turn_id: int
    outcome: str
    tokens_in: int
    tokens_out: int


class DuplicatePrevented(Signal, level=logging.DEBUG):
    """A step (`claim`, `finish`, `hold`, `deliver`) found nothing to do: it was done, or was another worker's."""

    turn_id: int
    stage: str
