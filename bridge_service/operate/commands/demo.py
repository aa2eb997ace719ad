"""`demo`: the bridge at work, on servers that the demo starts."""

from collections.abc import Mapping
from importlib.util import find_spec
from typing import Final

from bridge_service.errors import EX_CONFIG, BridgeError, ConfigurationError
from bridge_service.operate.output import Output

_NEEDED: Final = ("honcho", "psutil")


def run(environ: Mapping[str, str], *, ends: bool) -> int:
    """Show it; return the exit code.

    Parameters:
      ends: end after the scenes instead of waiting for Ctrl-C.
    """
    output = Output(as_json=False)
    if missing := [name for name in _NEEDED if find_spec(name) is None]:
        output.complain(f"the demo needs {' and '.join(missing)}: pip install -r requirements-demo.txt")
        return 1
    from bridge_service.demo import show  # noqa: PLC0415 - only now, for it imports them

    try:
        # What ends by itself is a test, and a test spends nothing.
        return show.run({**environ, "RESPONDER": "scripted"} if ends else environ, ends=ends)
    except ConfigurationError as error:
        for fault in error.faults:
            output.complain(fault)
        return EX_CONFIG
    except BridgeError as error:
        output.complain(output.describe(error))
        return 1
