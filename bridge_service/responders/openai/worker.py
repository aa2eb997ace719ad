"""What a worker with RESPONDER=openai imports: the model's client, for the event loop of the worker's calls.

No other process imports this module, so no other one pays for the library or can spend the key.
"""

import os
from typing import Final

from bridge_service.responders import budget
from bridge_service.responders.openai.replier import Replier
from bridge_service.settings import Settings
from bridge_service.turns import Reply, Task

_REPLIER: Final = Replier.of(Settings.from_environ(os.environ, needs=("openai_model",)), budget.of_process())


async def reply(task: Task) -> Reply:
    """Write a reply; all calls share the connections to the model's server."""
    return await _REPLIER.reply(task)
