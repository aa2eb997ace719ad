"""How often a model is asked for one reply: once, or once more where the first answer is missing or repeats."""

import asyncio
import itertools
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from bridge_service.errors import OverLimit, ResponderUnavailable
from bridge_service.responders.budget import Budget, Call
from bridge_service.responders.openai.answers import (
    REPEAT_LINES,
    ModelFault,
    cleaned,
    nearly_repeats,
    tells,
    text_of,
    usage_of,
)
from bridge_service.responders.openai.client import Client, Refusal
from bridge_service.responders.openai.prompt import Message, messages, tokens
from bridge_service.settings import Settings
from bridge_service.turns import Task

SHARE: Final = 0.9
"""Of RESPONDER_TIMEOUT, after which a reply is given up: the worker would call the responder hung."""

_LOG: Final = logging.getLogger("bridge.model")
_AGAIN: Final = "Your draft was nearly one of your last messages: say something else, in other words."


def local_time() -> datetime:
    """Return the time in Paris, or UTC where the machine has no time zones."""
    try:
        return datetime.now(ZoneInfo("Europe/Paris"))
    except ZoneInfoNotFoundError:
        return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class Replier:
    """Writes replies with a model.

    Attributes:
      model: asked first.
      fallback: asked once where `model` is away or refuses; None: no other model is asked.
      max_tokens, history_tokens: of the reply and of what is told.
      seconds: for one reply, with all its requests.
      budget: what its requests are paid from; None: nobody counts them.
    """

    client: Client
    model: str
    fallback: str | None
    max_tokens: int
    history_tokens: int
    seconds: float
    budget: Budget | None = None
    clock: Callable[[], datetime] = local_time

    @classmethod
    def of(cls, settings: Settings, budget: Budget | None = None) -> Self:
        """Make one of the settings, with its own client."""
        return cls(
            client=Client(settings),
            model=settings.openai_model or "",
            fallback=settings.openai_fallback_model,
            max_tokens=settings.openai_max_tokens,
            history_tokens=settings.openai_history_tokens,
            seconds=SHARE * settings.responder_timeout,
            budget=budget,
        )

    async def reply(self, task: Task) -> str:
        """Write the reply to a task: at most three requests.

        Raises:
          ResponderUnavailable: the model's server is away.
          ModelFault: it refuses, or what it writes is of no use.
          OverLimit: no further request may be begun.
        """
        text = None
        numbers = itertools.count(1)
        try:
            async with asyncio.timeout(self.seconds):
                model, text = await self._first(task, numbers)
                said = [line.content for line in task.history if line.from_bot][-REPEAT_LINES:]
                if nearly_repeats(text, said):
                    text = await self._ask(model, task, numbers, _AGAIN)
        except (TimeoutError, ResponderUnavailable, ModelFault, OverLimit) as error:
            if text is not None:
                return text  # a repetition is better than no answer
            if isinstance(error, OverLimit):
                raise
            if isinstance(error, TimeoutError):
                error = ResponderUnavailable(f"the model took longer than {self.seconds:g} s")
            # The worker's own line tells no more of an error than its type; these texts are ours and quote nothing.
            _LOG.warning("%s", error)
            raise error from None
        return text

    async def _first(self, task: Task, numbers: Iterator[int]) -> tuple[str, str]:
        """Return the model that answers, and its text."""
        try:
            return self.model, await self._ask(self.model, task, numbers)
        except (ResponderUnavailable, ModelFault) as error:
            if self.fallback is None:
                raise
            first = error
        try:
            return self.fallback, await self._ask(self.fallback, task, numbers)
        except ResponderUnavailable as error:
            # A turn is not given up while one of the two is only away.
            raise (first if isinstance(first, ResponderUnavailable) else error) from None
        except ModelFault:
            raise first from None

    async def _ask(self, model: str, task: Task, numbers: Iterator[int], *more_hints: str) -> str:
        told = messages(task, self.clock(), self.history_tokens, *more_hints)
        body = await self._request(
            Call(
                task.claim,
                next(numbers),
                task.turn_id,
                model,
                sum(tokens(each["content"]) for each in told),
                self.max_tokens,
                self.client.seconds,
            ),
            told,
        )
        text = cleaned(text_of(body), task.bot_name, self.max_tokens)
        if not text:
            raise ModelFault("the model's answer has no text")
        if tells(text, "\n".join(each["content"] for each in told if each["role"] == "system")):
            raise ModelFault("the model repeats its instructions")
        return text

    async def _request(self, call: Call, told: Sequence[Message]) -> bytes:
        """Make one request that is reserved before and settled after; one whose cost is unknown stays reserved (M1)."""
        if self.budget is not None:
            await self.budget.reserve(call)
        try:
            body = await self.client.ask(call.model, told)
        except Refusal as refusal:
            self._settle(call, (0, 0), "refused")
            raise refusal.fault from None
        except asyncio.CancelledError:
            self._settle(call, None, "cancelled")
            raise
        said_in, said_out = usage_of(body)
        # The body holds no less than the text, so this is the larger of our count and the server's.
        written = min(call.tokens_out, tokens(body.decode("utf-8", "replace")))
        self._settle(call, (max(call.tokens_in, said_in), max(written, said_out)), "answered")
        return body

    def _settle(self, call: Call, spent: tuple[int, int] | None, outcome: str) -> None:
        if self.budget is not None:
            self.budget.settle(call, spent, outcome)
