"""What a bot says: the protocol of a responder, how one is found by its name, and what is accepted of it.

A responder imports `Task`, `Line`, `Reply` and `ResponderUnavailable` from here. It is any callable that takes a `Task`
and returns the reply's text or a `Reply`, or an `async` one. The worker renews the turn's lease while a call runs, and
may ask for the same turn again, after a failure or when a newer message has overtaken the draft. The responder has to
keep no state for that. It raises `ResponderUnavailable` if it cannot answer now and the turn is not the cause (network,
rate limit): the turn waits, and no attempt is counted. Any other exception is a failed attempt of the turn, SystemExit
included, and ends neither thread nor process.

A thread of the worker calls a plain responder. It may block. Nothing ends a call that does not return, so each of its
network calls needs its own timeout, below RESPONDER_TIMEOUT. One event loop a process runs the calls of an async
responder, MAX_COMPOSING at once. It must not block. The worker cancels its call after RESPONDER_TIMEOUT, or when the
turn was given away.
"""

import importlib
import inspect
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Final, TypeAlias, cast

from bridge_service.errors import ConfigurationError, ResponderUnavailable, type_of
from bridge_service.turns import ACTIONS, Line, Reply, Task

__all__ = ["Line", "Reply", "ResponderUnavailable", "Task"]  # what a responder imports; the rest is for the worker

Responder: TypeAlias = Callable[[Task], object]
"""Returns a text or a `Reply`, or an awaitable of one; `clean_reply` judges what it is."""

REPLY_LIMIT = 100_000_000
"""Characters of a reply that are kept: an echo of the largest group that a claim hands out fits. Far above any real
message; a reply of 70 million took 3 s to store on two busy cores, and a step may take 6."""

SPLIT_ABOVE: Final = 200
"""Characters of a single text above which it is split, if a reply may have several parts."""

# Marks, what closes them, and white space, unless a small letter follows, as after "etc.". A letter or a number alone
# before a dot is an initial or counts a list. A blank line ends a sentence without a mark.
_SENTENCE_END: Final = re.compile(
    r"""(?<!\b\w)(?<!\b\d\d)[.!?…]+["'»”’)\]]*(?:\s?»)?\s+(?=\S)(?![a-zà-öø-ÿ])|\n\s*\n(?=\S)"""
)


class Whole(str):
    """A text that is delivered as one message, however long it is and however many parts a reply may have."""

    __slots__ = ()


_BUILT_IN = {
    "scripted": "bridge_service.responders.scripted:reply",
    "echo": "bridge_service.responders.echo:reply",
    "openai": "bridge_service.responders.openai.worker:reply",
}


class NamedResponder:
    """The responder of a name; its module is imported by `load` and not before.

    Parameters:
      name: `scripted`, `echo`, `openai`, or `package.module:callable` for one of your own.
      wrap: returns what is called in its place.
    """

    def __init__(self, name: str, wrap: Callable[[Responder], Responder] = lambda responder: responder) -> None:
        self._name = name
        self._wrap = wrap
        self._function: Responder

    def load(self) -> None:
        """Import it, which only the worker does, as its process boots; raises as `load_responder` does."""
        self._function = self._wrap(load_responder(self._name))

    @property
    def is_async(self) -> bool:
        """Whether it returns an awaitable, so that a call of it can be cancelled."""
        return is_async(self._function)

    def __call__(self, task: Task) -> object:
        """Ask it."""
        return self._function(task)


def is_async(responder: Responder) -> bool:
    """Tell whether a responder is an `async` function, or an object whose `__call__` is one."""
    return inspect.iscoroutinefunction(responder) or inspect.iscoroutinefunction(type(responder).__call__)


def load_responder(name: str) -> Responder:
    """Import a responder.

    Raises:
      ConfigurationError: there is no such responder, its module does not import, or it is no function.
    """
    path, colon, attribute = _BUILT_IN.get(name, name).partition(":")
    if not colon:
        raise _fault(f"no such responder: use {', '.join(_BUILT_IN)} or package.module:callable")
    try:
        responder = getattr(importlib.import_module(path), attribute, None)
    except ModuleNotFoundError as error:
        if error.name and not f"{path}.".startswith(f"{error.name}."):
            raise _fault(f"its module needs {error.name}, which is not installed") from None
        raise _fault("its module was not found: look at the spelling, and at PYTHONPATH") from None
    except (Exception, SystemExit) as error:  # noqa: BLE001 - a module may raise anything while it is imported
        # Its words may quote the module's configuration, so only the type is told.
        raise _fault(f"its module raises {type_of(error)}: import it by hand to see why") from None
    if not callable(responder):
        raise _fault("its module has no function of that name, which takes a task and returns a text or a Reply")
    return cast("Responder", responder)


def clean_reply(answer: object, most: int = 1) -> Reply:
    """Return what a responder returned, in parts that PostgreSQL can hold: at most `most`, or none if nothing is said.

    A single long text becomes several parts (`split`), except a `Whole`. Of too many parts the last ones are joined.
    NUL characters are removed, lone surrogates become U+FFFD and what exceeds `REPLY_LIMIT` is cut off. The rest, outer
    whitespace included, stays as it is.

    Raises:
      ValueError: it is neither a text nor a Reply, or it contradicts itself. The error does not quote it.
    """
    reply = Reply((answer,)) if isinstance(answer, str) else answer
    if not isinstance(reply, Reply):
        raise ValueError(f"the responder returned {type(answer).__name__}, not a text or a Reply")  # noqa: TRY004 - as a blank one
    if reply.action not in ACTIONS:
        raise ValueError(f"the action of the reply is none of {', '.join(ACTIONS)}")
    if isinstance(reply.parts, str) or not isinstance(reply.parts, Sequence):
        raise ValueError("the parts of the reply are not a sequence of texts")  # noqa: TRY004 - as a blank one
    parts = [_clean_part(part) for part in reply.parts]
    whole = any(isinstance(part, Whole) for part in reply.parts)
    if reply.action == "silence" and parts:
        raise ValueError("the reply is silence and has parts: use say, or leave the parts out")
    if reply.action == "say" and not parts:
        raise ValueError("the reply says something and has no parts: use silence to say nothing")
    if len(parts) == 1 and not whole:
        parts = [*split(parts[0], most)]
    return Reply(joined(parts, most), reply.action)


def _clean_part(part: object) -> str:
    if not isinstance(part, str):
        raise ValueError(f"a part of the reply is {type(part).__name__}, not a text")  # noqa: TRY004 - as a blank one
    kept = storable(part, REPLY_LIMIT)
    if not kept.strip():
        raise ValueError("the responder returned a blank text")
    return kept


def split(text: str, most: int) -> tuple[str, ...]:
    """Return a text in at most `most` parts, cut at the ends of sentences, one for each `SPLIT_ABOVE` characters.

    A text of at most `SPLIT_ABOVE` characters, or of one sentence, is one part. White space at a cut is left out, and
    nothing else.
    """
    wanted = min(most, -(-len(text) // SPLIT_ABOVE))
    parts = []
    begin = 0
    ends = [match.end() for match in _SENTENCE_END.finditer(text)] if wanted > 1 else []
    for number in range(1, wanted):
        goal = begin + (len(text) - begin) / (wanted - number + 1)
        later = [end for end in ends if end > begin]
        if not later:
            break
        cut = min(later, key=lambda end: abs(end - goal))
        parts.append(text[begin:cut].rstrip())
        begin = cut
    return tuple(part for part in (*parts, text[begin:]) if part.strip()) or (text,)


def joined(parts: Iterable[str], most: int = 1) -> tuple[str, ...]:
    """Return at most `most` parts, together within `REPLY_LIMIT`: the rest joins the last one after a blank line."""
    kept = [*parts]
    kept[most - 1 :] = ["\n\n".join(kept[most - 1 :])] if len(kept) >= most else []
    left = REPLY_LIMIT
    for number, part in enumerate(kept):
        kept[number] = part[:left]
        left -= len(kept[number])
    return tuple(part for part in kept if part.strip())


def storable(text: str, limit: int) -> str:
    """Return at most `limit` characters of a text as PostgreSQL can hold them: no NUL, U+FFFD for lone surrogates."""
    return text.replace("\0", "")[:limit].encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _fault(text: str) -> ConfigurationError:
    return ConfigurationError(f"RESPONDER: {text}")
