"""What ends a process: a signal, or a loop that the process cannot do without."""

import logging
import signal
import sys
import threading
from typing import Final

from bridge_service.errors import ConfigurationError, type_of
from bridge_service.process.loop import Loop
from bridge_service.telemetry import logs
from bridge_service.telemetry.signals import Emit, FatalError

SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)


def print_faults(error: ConfigurationError) -> None:
    """Print a line for each fault of the environment: the process ends before it has a log."""
    for fault in error.faults:
        sys.stderr.write(f"❌ Erreur fatale: {logs.escape(fault)}\n")
    sys.stderr.flush()


class Ending:
    """Sets `stopping` when the process has to end, and remembers whether it crashed."""

    def __init__(self, emit: Emit) -> None:
        self.stopping = threading.Event()
        self.crashed = False
        self._emit = emit

    def crash(self, loop: str, error: BaseException) -> None:
        """Stop all because a loop failed: without it the process would be deaf or idle. See Loop.crash."""
        logging.getLogger("bridge").debug("loop %s failed", loop, exc_info=error)
        self.crashed = True
        try:
            self._emit(FatalError(f"{type_of(error)} in {loop}, {logs.place_of(error.__traceback__)}"))
        finally:
            self.stopping.set()


class Signals(Loop):
    """Sets `stopping` at a signal. Call `block_signals` before the process starts any thread."""

    def __init__(self, stopping: threading.Event) -> None:
        super().__init__("signals")
        self._told = stopping

    def turn(self) -> None:
        """Wait for a signal."""
        signal.sigwait(SIGNALS)
        self._told.set()


def block_signals() -> None:
    """Block the signals in this thread and in those that it starts, so that only Signals takes them."""
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
