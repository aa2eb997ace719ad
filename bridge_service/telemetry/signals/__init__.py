"""What can happen, each a signal.

The code reports once what happened, by an `Emit`. Subscribers turn it into lines, numbers and incidents. No signal
carries the text of a message: only ids, numbers, and the first line of an error.
"""

from bridge_service.telemetry.signals.base import *  # noqa: F403
from bridge_service.telemetry.signals.processes import *  # noqa: F403
from bridge_service.telemetry.signals.servers import *  # noqa: F403
from bridge_service.telemetry.signals.turns import *  # noqa: F403
