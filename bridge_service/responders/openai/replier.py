"""How often a model is asked for one reply: once, or once more where the first answer is missing or repeats."""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from bridge_service.errors import ResponderUnavailable
from bridge_service.responders.openai.answers import REPEAT_LINES, ModelFault, cleaned, nearly_repeats, tells
from bridge_service.responders.openai.client import Client
from bridge_service.responders.openai.prompt import messages
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
    """

    client: Client
    model: str
    fallback: str | None
    max_tokens: int
    history_tokens: int
    seconds: float
    clock: Callable[[], datetime] = local_time

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """Make one of the settings, with its own client."""
        return cls(
            client=Client(settings),
            model=settings.openai_model or "",
            fallback=settings.openai_fallback_model,
            max_tokens=settings.openai_max_tokens,
            history_tokens=settings.openai_history_tokens,
            seconds=SHARE * settings.responder_timeout,
        )

    async def reply(self, task: Task) -> str:
        """Write the reply to a task: at most three requests.

        Raises:
          ResponderUnavailable: the model's server is away.
          ModelFault: it refuses, or what it writes is of no use.
        """
        text = None
        try:
            async with asyncio.timeout(self.seconds):
                model, text = await self._first(task)
                said = [line.content for line in task.history if line.from_bot][-REPEAT_LINES:]
                if nearly_repeats(text, said):
                    text = await self._ask(model, task, _AGAIN)
        except (TimeoutError, ResponderUnavailable, ModelFault) as error:
            if text is not None:
                return text  # a repetition is better than no answer
            if isinstance(error, TimeoutError):
                error = ResponderUnavailable(f"the model took longer than {self.seconds:g} s")
            # The worker's own line tells no more of an error than its type; these texts are ours and quote nothing.
            _LOG.warning("%s", error)
            raise error from None
        return text

    async def _first(self, task: Task) -> tuple[str, str]:
        """Return the model that answers, and its text."""
        try:
            return self.model, await self._ask(self.model, task)
        except (ResponderUnavailable, ModelFault) as error:
            if self.fallback is None:
                raise
            first = error
        try:
            return self.fallback, await self._ask(self.fallback, task)
        except ResponderUnavailable as error:
            # A turn is not given up while one of the two is only away.
            raise (first if isinstance(first, ResponderUnavailable) else error) from None
        except ModelFault:
            raise first from None

    async def _ask(self, model: str, task: Task, *more_hints: str) -> str:
        told = messages(task, self.clock(), self.history_tokens, *more_hints)
        text = cleaned(await self.client.ask(model, told), task.bot_name, self.max_tokens)
        if not text:
            raise ModelFault("the model's answer has no text")
        if tells(text, "\n".join(each["content"] for each in told if each["role"] == "system")):
            raise ModelFault("the model repeats its instructions")
        return text
