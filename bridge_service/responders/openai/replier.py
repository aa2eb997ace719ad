"""How often a model is asked for one reply: once, or once more where the first answer is missing or repeats."""

import asyncio
import logging
from dataclasses import dataclass
from typing import Final, Self

from bridge_service.errors import ResponderUnavailable
from bridge_service.responders.openai.answers import REPEAT_LINES, ModelFault, nearly_repeats, reply_of, tells
from bridge_service.responders.openai.client import Client
from bridge_service.responders.openai.prompt import messages
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
    """

    client: Client
    own: Model
    seconds: float

    @classmethod
    def of(cls, settings: Settings) -> Self:
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
        )

    async def reply(self, task: Task) -> Reply:
        """Write the reply to a task: at most three requests.

        Raises:
          ResponderUnavailable: the model's server is away.
          ModelFault: it refuses, or what it writes is of no use.
        """
        reply = None
        try:
            async with asyncio.timeout(self.seconds):
                name, reply = await self._first(task)
                said = [line.content for line in task.history if line.from_bot][-REPEAT_LINES:]
                if any(nearly_repeats(part, said) for part in reply.parts):
                    reply = await self._ask(name, task, _AGAIN)
        except (TimeoutError, ResponderUnavailable, ModelFault) as error:
            if reply is not None:
                return reply  # a repetition is better than no answer
            if isinstance(error, TimeoutError):
                error = ResponderUnavailable(f"the model took longer than {self.seconds:g} s")
            # The worker's own line tells no more of an error than its type; these texts are ours and quote nothing.
            _LOG.warning("%s", error)
            raise error from None
        return reply

    def _model(self, task: Task) -> Model:
        return task.model if task.model.name else self.own

    async def _first(self, task: Task) -> tuple[str, Reply]:
        """Return the model that answers, and its reply."""
        model = self._model(task)
        if not model.name:
            raise ModelFault("no model is named for this bot: set OPENAI_MODEL")
        try:
            return model.name, await self._ask(model.name, task)
        except (ResponderUnavailable, ModelFault) as error:
            if model.fallback is None:
                raise
            first = error
        try:
            return model.fallback, await self._ask(model.fallback, task)
        except ResponderUnavailable as error:
            # A turn is not given up while one of the two is only away.
            raise (first if isinstance(first, ResponderUnavailable) else error) from None
        except ModelFault:
            raise first from None

    async def _ask(self, name: str, task: Task, *more_hints: str) -> Reply:
        model = self._model(task)
        told = messages(task, model.history_tokens, *more_hints)
        reply = reply_of(await self.client.ask(name, told, model), task.bot_name, model.max_tokens)
        if tells("\n".join(reply.parts), "\n".join(each["content"] for each in told if each["role"] == "system")):
            raise ModelFault("the model repeats its instructions")
        return reply
