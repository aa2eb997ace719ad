"""LISTEN: a connection that hears notifications, and proves by a notification to itself that it does."""

import contextlib
import os
import select
import time
from collections.abc import Callable, Sequence
from typing import Final
from uuid import uuid4

from psycopg2.extensions import Notify

from bridge_service.errors import DatabaseRefused
from bridge_service.machine.database import Connection
from bridge_service.telemetry.signals import Emit, ListenActive, ListenSilent, ListenStarting

HEARTBEAT_SECONDS: Final = 4.0
HEARTBEAT_TIMEOUT_SECONDS: Final = 4.0
"""Together: a connection that swallows everything is found within 10 s."""

PROOF_SECONDS: Final = 2.0

PROVE_AGAIN_SECONDS: Final = 30.0
"""How often a connection that heard nothing is tried again: PostgreSQL's queue of notifications may have emptied."""


class Bells:
    """Hears the notifications of some channels.

    `ring`, `listening` (there is a connection) and `delivers` (it has proved itself) are safe from any thread.

    Parameters:
      connect: opens a connection to LISTEN on.
      channels: to listen on; the proof is sent to the first.
      notify: sends a notification on another connection; returns False if PostgreSQL's queue takes none.
      stopped: whether to give up waiting for a proof.
    """

    def __init__(
        self,
        connect: Callable[[], Connection],
        channels: Sequence[str],
        notify: Callable[[str, str], bool],
        emit: Emit,
        stopped: Callable[[], bool],
    ) -> None:
        self._connect = connect
        self._channels = channels
        self._notify = notify
        self._emit = emit
        self._stopped = stopped
        self._proof: str | None = None
        self._proved_at = 0.0
        self._checked_at = 0.0
        self.listening = False
        self.delivers = False
        self._ring_reader, self._ring_writer = os.pipe()
        os.set_blocking(self._ring_writer, False)

    def open(self) -> None:
        """Connect, LISTEN, and find out whether notifications are delivered.

        Raises:
          BridgeError: there is no connection; try again.
        """
        connection = self._connect()
        try:
            self._emit(ListenStarting())
            for channel in self._channels:
                connection.execute(f"LISTEN {channel}")
            self.delivers = self._prove(connection)
        except BaseException:
            connection.close()
            raise
        self._connection = connection
        self._checked_at = time.monotonic()
        self.listening = True

    def close(self) -> None:
        """Close the connection, if there is one."""
        if self.listening:
            self.listening = False
            self._connection.close()

    def ring(self) -> None:
        """End the wait under way, or the next one."""
        with contextlib.suppress(BlockingIOError):  # the pipe is full, so the wait ends anyway
            os.write(self._ring_writer, b"1")

    def wait(self, until: float) -> None:
        """Wait for a notification, for `ring`, for the next check, or until a moment."""
        seconds = max(0.0, min(until, self._checked_at + HEARTBEAT_SECONDS) - time.monotonic())
        poller = select.poll()
        poller.register(self._connection.fileno(), select.POLLIN)
        poller.register(self._ring_reader, select.POLLIN)
        ready = poller.poll(seconds * 1000)
        if any(descriptor == self._ring_reader for descriptor, _ in ready):
            os.read(self._ring_reader, 4096)

    def check(self) -> bool:
        """Ask PostgreSQL for an answer if the last one is HEARTBEAT_SECONDS old; return whether it was asked.

        Raises:
          DatabaseUnavailable: the connection is gone.
        """
        if time.monotonic() - self._checked_at < HEARTBEAT_SECONDS:
            return False
        self._proof = None  # a pooler hands notifications over with an answer: such a proof proves nothing
        self._connection.execute("SELECT 1", seconds=HEARTBEAT_TIMEOUT_SECONDS)
        self._checked_at = time.monotonic()
        if not self.delivers and time.monotonic() - self._proved_at >= PROVE_AGAIN_SECONDS:
            self._proof = self._send_proof()
        return True

    def heard(self) -> list[Notify]:
        """Return what was notified since the last time.

        Raises:
          DatabaseUnavailable: the connection is gone.
        """
        self._connection.receive()
        bells = self._connection.raw.notifies
        self._connection.raw.notifies = []
        if self._proof is not None and any(bell.payload == self._proof for bell in bells):
            self.delivers, self._proof = True, None
            self._emit(ListenActive())
        return bells

    def _prove(self, connection: Connection) -> bool:
        """Hear a notification to oneself: a pooler in transaction mode accepts LISTEN and delivers nothing."""
        proof = self._send_proof()
        if proof is None:
            self._emit(
                ListenSilent("PostgreSQL's queue of notifications is full: which session listens, and reads none?")
            )
            return False
        deadline = time.monotonic() + PROOF_SECONDS
        poller = select.poll()
        poller.register(connection.fileno(), select.POLLIN)
        while not self._stopped():
            # Only `receive`, no statement: a pooler hands notifications over with the answer to a statement.
            connection.receive()
            if any(notify.payload == proof for notify in connection.raw.notifies):
                return True
            left = deadline - time.monotonic()
            if left <= 0:
                self._emit(
                    ListenSilent(f"no notification came back within {PROOF_SECONDS:g} s: a pooler in transaction mode?")
                )
                break
            poller.poll(min(left, 0.1) * 1000)
        return False

    def _send_proof(self) -> str | None:
        """Send a proof; return the payload to hear, None if PostgreSQL can send nothing now."""
        self._proved_at = time.monotonic()
        proof = f"proof {uuid4()}"
        try:
            # On another connection: a pooler hands a session's own notification back with the answer.
            return proof if self._notify(self._channels[0], proof) else None
        except DatabaseRefused:  # the queue filled between the look and the commit
            return None
