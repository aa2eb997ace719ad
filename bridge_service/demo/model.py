"""The demo's responder: a built-in one, except while the file that `DEMO_MODEL_AWAY` names is there."""

import os
from collections.abc import Mapping
from functools import cache
from inspect import isawaitable
from pathlib import Path
from typing import Final

from bridge_service.responders import Responder, ResponderUnavailable, Task, load_responder

_AWAY: Final = "DEMO_MODEL_AWAY"
_CHOSEN: Final = "DEMO_RESPONDER"


def switchable(environ: Mapping[str, str], switch: Path) -> dict[str, str]:
    """Return the variables that put this responder before the chosen one; none if that one is not built in."""
    chosen = environ.get("RESPONDER", "").strip() or "scripted"
    if chosen not in ("scripted", "echo", "openai"):
        return {}
    return {"RESPONDER": f"{__name__}:reply", _CHOSEN: chosen, _AWAY: str(switch)}


async def reply(task: Task) -> object:
    """Answer as the chosen responder does; the plain ones do not block.

    Raises:
      ResponderUnavailable: the file is there.
    """
    if Path(os.environ[_AWAY]).exists():  # noqa: ASYNC240 - a look at a local file
        raise ResponderUnavailable("the demo's model is switched off")
    answer = _responder()(task)
    return await answer if isawaitable(answer) else answer


@cache
def _responder() -> Responder:
    return load_responder(os.environ[_CHOSEN])
