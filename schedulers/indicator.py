"""The loop that shows when a bot types: it switches indicators on, renews them and switches left ones off.

It has a thread of its own, so no delivery waits for the app's table of indicators (I-1). The table says what is due.
"""

import threading
import time
from typing import Final

from bridge_service.errors import BridgeError, DatabaseBusy
from bridge_service.machine.steps import Store
from bridge_service.process.loop import Loop
from bridge_service.telemetry.signals import Emit, database_trouble

BATCH: Final = 50

SWEEP_SECONDS: Final = 10.0
"""How often it looks without a bell: what a crash left on is off within 15 s."""

RETRY_SECONDS: Final = 1.0

APART_SECONDS: Final = 0.1
"""Looks are at least this far apart, so that an app's table that refuses everything costs little."""


class Indicator(Loop):
    """Looks at what is due, and plans its own next moment."""

    def __init__(self, store: Store, *, emit: Emit) -> None:
        super().__init__("indicator")
        self._store = store
        self._emit = emit
        self._wanted = threading.Event()
        self._seconds = 0.0  # until the next look

    def wake(self) -> None:
        """Ask for a look; from any thread, at once."""
        self._wanted.set()

    def turn(self) -> None:
        """Wait until an indicator is due, or a look is asked for, and look."""
        self._wanted.wait(self._seconds)
        self._wanted.clear()
        if self.stopping.is_set():
            return
        began = time.monotonic()
        try:
            due_in = self._store.show_due(BATCH)
        except DatabaseBusy:
            due_in = RETRY_SECONDS
        except BridgeError as error:
            self._emit(database_trouble(error))
            due_in = RETRY_SECONDS
            self.pause(RETRY_SECONDS)
        self._seconds = SWEEP_SECONDS if due_in is None else min(max(0.0, due_in), SWEEP_SECONDS)
        self.pause(max(0.0, began + APART_SECONDS - time.monotonic()))
