"""What a worker with RESPONDER=openai imports: the model's client and the event loop that it runs on.

No other process imports this module, so no other one pays for the library or can spend the key.
"""

import asyncio
import os
import threading
from typing import Final

from bridge_service.responders import budget
from bridge_service.responders.openai.replier import Replier
from bridge_service.settings import Settings
from bridge_service.turns import Task

_REPLIER: Final = Replier.of(Settings.from_environ(os.environ, needs=("openai_model",)), budget.of_process())
_LOOP: Final = asyncio.new_event_loop()
threading.Thread(target=_LOOP.run_forever, name="model", daemon=True).start()


def reply(task: Task) -> str:
    """Write a reply on the loop; the calling thread waits. All threads share the connections to the model's server."""
    writing = asyncio.run_coroutine_threadsafe(_REPLIER.reply(task), _LOOP)
    try:
        return writing.result()
    finally:
        writing.cancel()  # the request of a thread that was interrupted ends with it
