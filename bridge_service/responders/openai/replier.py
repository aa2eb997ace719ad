"""How often a model is asked for one reply: once, or once more where the first answer is missing or repeats."""

import asyncio
import itertools
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Self

from bridge_service.errors import OverLimit, ResponderUnavailable
from bridge_service.responders.budget import Budget, Call
from bridge_service.responders.openai.answers import (
    REPEAT_LINES,
    ModelFault,
    nearly_repeats,
    reply_of,
    tells,
    text_of,
    usage_of,
)
from bridge_service.responders.openai.client import Client, Refusal
from bridge_service.responders.openai.prompt import Message, messages, tokens
from bridge_service.settings import Settings
from bridge_service.turns import Model, Reply, Task

SHARE: Final = 0.9
"""Of RESPONDER_TIMEOUT, after which a reply is given up: the worker would call the responder hung."""

_LOG: Final = logging.getLogger("bridge.model")
_AGAIN: Final = "Your draft was nearly one of your last messages: say something else, in other words."


@dataclass(frozen=True, slots=True)
class Replier:
    """Writes replies with a model.

    Attributes:
      own: the model of this process's environment, where policy names none: its scheduler may be of the version before.
      seconds: for one reply, with all its requests.
      budget: what its requests are paid from; None: nobody counts them.
    """

    client: Client
    own: Model
    seconds: float
    budget: Budget | None = None

    @classmethod
    def of(cls, settings: Settings, budget: Budget | None = None) -> Self:
        """Make one of the settings, with its own client."""
        return cls(
            client=Client(settings),
            own=Model(
                settings.openai_model,
                settings.openai_fallback_model,
                settings.openai_temperature,
                settings.openai_max_tokens,
                settings.openai_history_tokens,
            ),
            seconds=SHARE * settings.responder_timeout,
            budget=budget,
        )

    async def reply(self, task: Task) -> Reply:
        """Write the reply to a task: at most three requests.

        Raises:
          ResponderUnavailable: the model's server is away.
          ModelFault: it refuses, or what it writes is of no use.
          OverLimit: no further request may be begun.
        """
        reply = None
        numbers = itertools.count(1)
        try:
            async with asyncio.timeout(self.seconds):
                name, reply = await self._first(task, numbers)
                said = [line.content for line in task.history if line.from_bot][-REPEAT_LINES:]
                if any(nearly_repeats(part, said) for part in reply.parts):
                    reply = await self._ask(name, task, numbers, _AGAIN)
        except (TimeoutError, ResponderUnavailable, ModelFault, OverLimit) as error:
            if reply is not None:
                return reply  # a repetition is better than no answer
            if isinstance(error, OverLimit):
                raise
            if isinstance(error, TimeoutError):
                error = ResponderUnavailable(f"the model took longer than {self.seconds:g} s")
            # The worker's own line tells no more of an error than its type; these texts are ours and quote nothing.
            _LOG.warning("%s", error)
            raise error from None
        return reply

    def _model(self, task: Task) -> Model:
        return task.model if task.model.name else self.own

    async def _first(self, task: Task, numbers: Iterator[int]) -> tuple[str, Reply]:
        """Return the model that answers, and its reply."""
        model = self._model(task)
        if not model.name:
            raise ModelFault("no model is named for this bot: set OPENAI_MODEL")
        try:
            return model.name, await self._ask(model.name, task, numbers)
        except (ResponderUnavailable, ModelFault) as error:
            if model.fallback is None:
                raise
            first = error
        try:
            return model.fallback, await self._ask(model.fallback, task, numbers)
        except ResponderUnavailable as error:
            # A turn is not given up while one of the two is only away.
            raise (first if isinstance(first, ResponderUnavailable) else error) from None
        except ModelFault:
            raise first from None

    async def _ask(self, name: str, task: Task, numbers: Iterator[int], *more_hints: str) -> Reply:
        model = self._model(task)
        told = messages(task, model.history_tokens, *more_hints)
        reserved = sum(tokens(each["content"]) for each in told)
        call = Call(task.claim, next(numbers), task.turn_id, name, reserved, model.max_tokens, self.client.seconds)
        reply = reply_of(text_of(await self._request(call, told, model)), task.bot_name, model.max_tokens)
        if tells("\n".join(reply.parts), "\n".join(each["content"] for each in told if each["role"] == "system")):
            raise ModelFault("the model repeats its instructions")
        return reply

    async def _request(self, call: Call, told: Sequence[Message], model: Model) -> bytes:
        """Make one request that is reserved before and settled after; one whose cost is unknown stays reserved (M1)."""
        if self.budget is not None:
            await self.budget.reserve(call)
        try:
            body = await self.client.ask(call.model, told, model)
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
