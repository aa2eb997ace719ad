"""One request to a model's server by the chat/completions protocol, within its bounds."""

import asyncio
import math
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import urlsplit

import httpx2
import openai

from bridge_service.errors import ResponderUnavailable
from bridge_service.responders.openai.answers import ModelFault, fault_of
from bridge_service.responders.openai.pools import pools
from bridge_service.responders.openai.prompt import Message
from bridge_service.settings import Settings
from bridge_service.turns import Model

ANSWER_BYTES: Final = 1_000_000
"""Bytes of an answer that are read. The longest useful one, with the thoughts of a model that thinks aloud, is less."""

IDLE_CONNECTIONS: Final = 100
"""Connections that are kept for the next calls."""

_LIBRARY_URL: Final = "https://api.openai.com/v1"
_GATEWAY: Final = (HTTPStatus.BAD_GATEWAY, HTTPStatus.GATEWAY_TIMEOUT)
_NEW_LIMIT: Final = ("openai.com", "azure.com")  # hosts that refuse `max_tokens` for their newer models


class Refusal(Exception):
    """Raised when the server answered with an error's status: the model wrote nothing that could be billed.

    Parameters:
      fault: what the status means for the turn.
    """

    def __init__(self, fault: Exception) -> None:
        super().__init__()
        self.fault = fault


class Client:
    """Asks a model's server. Makes no connection before the first request; serves one event loop."""

    def __init__(self, settings: Settings) -> None:
        url = settings.openai_base_url or _LIBRARY_URL
        self._key = settings.openai_api_key
        self.seconds = settings.openai_timeout
        self._limit = "max_completion_tokens" if (urlsplit(url).hostname or "").endswith(_NEW_LIMIT) else "max_tokens"
        trust_env = url.startswith("https://")  # no proxy sees what is not encrypted
        http = httpx2.AsyncClient(
            timeout=self.seconds,
            limits=httpx2.Limits(max_keepalive_connections=IDLE_CONNECTIONS),  # MAX_COMPOSING bounds the busy ones
            transport=pools(IDLE_CONNECTIONS, trust_env=trust_env),
            trust_env=trust_env,
            headers={"Accept-Encoding": "identity"},
            event_hooks={"request": [self._authorize], "response": [_guard]},
        )
        # The library refuses to start without a key, and reads several more from the environment: `_authorize` decides.
        self._openai = openai.AsyncOpenAI(
            api_key=self._key or "none", base_url=url, timeout=self.seconds, max_retries=0, http_client=http
        )

    async def ask(self, model: str, messages: Sequence[Message], bounds: Model) -> bytes:
        """Make one request and return the body of the answer.

        Parameters:
          model: the one of the two that `bounds` names which is asked.

        Raises:
          Refusal: the server refuses, or is busy.
          ResponderUnavailable: it is away or too slow.
          ModelFault: its answer is of no use.
        """
        bounded: dict[str, Any] = {self._limit: bounds.max_tokens}
        if bounds.temperature is not None:
            bounded["temperature"] = bounds.temperature
        try:
            # The library's own time-out starts anew with each byte.
            async with asyncio.timeout(self.seconds):
                # `chat.completions.create` walks its types for each line of the history: a third of a call's CPU.
                answer = await self._openai.post(
                    "/chat/completions", body={"model": model, "messages": messages, **bounded}, cast_to=httpx2.Response
                )
        except (openai.APITimeoutError, TimeoutError):
            raise ResponderUnavailable(f"the model's server did not answer within {self.seconds:g} s") from None
        except openai.APIConnectionError as error:
            cause = type(error.__cause__ or error).__name__
            raise ResponderUnavailable(f"the connection to the model's server failed ({cause})") from None
        except openai.OpenAIError as error:
            raise ModelFault(f"the request to the model's server failed ({type(error).__name__})") from None
        return answer.content

    async def close(self) -> None:
        """Close the connections."""
        await self._openai.close()

    async def _authorize(self, request: httpx2.Request) -> None:
        request.headers.pop("Authorization", None)
        if self._key:
            request.headers["Authorization"] = f"Bearer {self._key}"


async def _guard(response: httpx2.Response) -> None:
    """Let nothing but a success be read, and that within bounds.

    An error may quote the whole prompt. A redirect, which ends here too, may lead out of a private network.
    """
    if not response.is_success:
        fault = fault_of(response.status_code, _retry_after(response.headers))
        # A gateway does not know what the server behind it wrote.
        raise fault if response.status_code in _GATEWAY else Refusal(fault)
    if response.headers.get("Content-Encoding", "identity").lower() != "identity":
        # A few compressed bytes may unpack to gigabytes.
        raise ModelFault("the model's server compresses its answer, although the request forbids it")
    response.stream = _Bounded(response.stream)


class _Bounded(httpx2.AsyncByteStream):
    """A stream that ends in an error above `ANSWER_BYTES`."""

    def __init__(self, stream: Any) -> None:  # noqa: ANN401 - httpx2's union of streams; here it is the async one
        self._stream = stream

    async def __aiter__(self) -> AsyncIterator[bytes]:
        read = 0
        async for chunk in self._stream:
            read += len(chunk)
            if read > ANSWER_BYTES:
                raise ModelFault(f"the model's answer is longer than {ANSWER_BYTES} bytes")
            yield chunk

    async def aclose(self) -> None:
        await self._stream.aclose()


def _retry_after(headers: httpx2.Headers) -> float | None:
    """Return the seconds that a Retry-After header asks for; None if there is none or it makes no sense."""
    text = headers.get("Retry-After", "").strip()
    try:
        seconds = float(text)
    except ValueError:
        try:
            date = parsedate_to_datetime(text)
        except (ValueError, TypeError, IndexError, OverflowError):
            return None
        date = date if date.tzinfo else date.replace(tzinfo=UTC)
        seconds = max(0.0, (date - datetime.now(UTC)).total_seconds())
    return seconds if math.isfinite(seconds) and seconds >= 0 else None
