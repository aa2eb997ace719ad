"""`python -m tests.chaos.model FILE CALLS`: a model that outlives the workers, and misbehaves as FILE says.

It answers with the group, so that a reply proves what it covers, half of the time in the JSON that it is told. Each
request is a byte in the file CALLS before anything comes of it: what was asked has to be paid for (M1).
"""

from __future__ import annotations

import json
import random
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tests.chaos.responder import struck
from tests.support.ledger import OPENER
from tests.support.model_server import (
    ModelServer,
    answers,
    babbles,
    completion,
    drips,
    echoes_everything,
    floods,
    group_of,
    half_closed,
    says,
    sends,
    slow,
    status,
)

if TYPE_CHECKING:
    from tests.support.model_server import Act, Call, Handler

OPENAI_TIMEOUT: Final = 5.0

_random = random.Random()  # noqa: S311 - chance, not secrets


def misbehaves(mood: str, call: Call) -> Act:
    """Return what to do in a mood; without one, or in one that only takes time, the answer covers the group."""
    text = "\n".join(group_of(call.messages)) or OPENER
    good = says(_random.choice((text, json.dumps({"parts": [text], "action": "say"}))))
    late = 2 * OPENAI_TIMEOUT
    moods = {
        "is slow": (slow(_random.uniform(0.5, 0.8 * OPENAI_TIMEOUT), good),),
        "is too slow": (slow(late, good), drips(late)),
        "is away": [status(code, headers) for code in (429, 500, 503) for headers in ({}, {"Retry-After": "1"})],
        "lies": [answers(completion(text, usage=usage)) for usage in _USAGES],
        "babbles": (*_USELESS, says(call.said_by("system")[0]), echoes_everything(400)),
        "floods": (floods(10_000_000), floods(10**12)),  # the second one never ends by itself
    }
    return _random.choice(moods.get(mood, (good,)))


_USAGES: Final = (
    {"prompt_tokens": 10**30, "completion_tokens": 10**30},
    {"prompt_tokens": -5, "completion_tokens": "many"},
    {"prompt_tokens": 0, "completion_tokens": 0},
    ["usage"],
)
_USELESS: Final = (
    says(""),
    says(None, tool_calls=[{"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]),
    says('{"parts": ["half of it'),
    says('{"parts": "no list", "action": "say"}'),
    says('{"parts": ["both"], "action": "silence"}'),
    sends(b"<html>it works</html>"),
    sends(b"\xff\xfe{"),
    answers({"choices": []}),
    half_closed(b'{"choices": [{"message"'),
    babbles(b"SSH-2.0-OpenSSH_9.6\r\n"),
)


def main(control: str, calls: str) -> None:
    """Serve until this process is killed."""
    with ModelServer() as server, Path(calls).open("ab", buffering=0) as asked:

        def act(handler: Handler, call: Call) -> None:
            asked.write(b".")
            misbehaves(struck(Path(control)), call)(handler, call)

        server.does(act)
        sys.stdout.write(f"{server.port}\n")
        sys.stdout.flush()
        threading.Event().wait()


if __name__ == "__main__":
    main(*sys.argv[1:])
