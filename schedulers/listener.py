"""The LISTEN thread: a bell rings, it looks, and what is ungrouped becomes turns. Nothing else.

A bell is only a hint: lost, late, doubled or forged ones change nothing. What is true is in bridge.events, where every
look finds it, and besides the bells there are looks at the start, after every reconnection, shortly after every batch,
and a sweep every few seconds.
"""

import contextlib
import os
import select
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Final
from uuid import uuid4

from bridge_service.errors import (
    BadMessage,
    BridgeError,
    DatabaseBusy,
    DatabaseRefused,
    RightMissing,
    SequenceBehind,
)
from bridge_service.machine.database import Connection
from bridge_service.machine.steps import Grouped, Store
from bridge_service.telemetry.signals import (
    Emit,
    EventSetAside,
    ListenActive,
    ListenSilent,
    ListenStarting,
    MatchDetected,
    MessageGrouped,
    NotificationReceived,
    NotificationRejected,
    database_trouble,
)
from schedulers.notifications import MATCH_CHANNEL, MESSAGE_CHANNEL, Notification, parse

DUE_CHANNEL: Final = "bridge_due"
"""The bridge's own channel: a turn became due earlier than the planner knows."""

LOOKS_AFTER_BATCH: Final = (0.02, 0.1, 0.5)
"""A bell that was not rung because somebody was about to look may belong to a commit just after that look (C4)."""

LOOK_SECONDS: Final = 0.02
"""Looks are this far apart under load; the first one comes at once."""

AFTER_YOU_SECONDS: Final = 0.005
"""How long telling of a batch waits for the thread that pushes it: both take the interpreter, and a push is awaited."""

POLL_SECONDS: Final = 0.5
"""How often to look where LISTEN delivers nothing."""

HEARTBEAT_SECONDS: Final = 4.0
HEARTBEAT_TIMEOUT_SECONDS: Final = 4.0
"""Together: a connection that swallows everything is found within 10 s."""

PROOF_SECONDS: Final = 2.0

PROVE_AGAIN_SECONDS: Final = 30.0
"""How often to try whether LISTEN delivers by now, where it did not: a full queue of notifications empties some day."""

RECONNECT_SECONDS: Final = 1.0

BOUND_SECONDS: Final = 10.0
"""Looks between sweeps ignore events below the highest id seen this long ago (C4)."""

LARGE_BATCH: Final = 1000
"""After so many events at once more may wait, perhaps below the highest id seen: the next look is at everything."""

BAD_BATCH: Final = 500

BUSY_BATCHES: Final = 2
"""Whole batches in a row that may meet a lock before conversations are grouped one by one."""

BUSY_TRIES: Final = 3
BUSY_SECONDS: Final = 1.0
"""A conversation that somebody holds costs 300 ms: one pass waits for so many at most, for each once in so long."""

UNCAPTURED: Final = 10_000


class Listener:
    """Turns bells and looks into turns."""

    def __init__(
        self,
        store: Store,
        connect: Callable[[], Connection],
        *,
        on_grouped: Callable[[list[Grouped]], None],
        on_due: Callable[[], None],
        emit: Emit,
        stopping: threading.Event,
        beat: Callable[[], None],
        listening: threading.Event,
    ) -> None:
        """Wire a listener.

        Parameters:
          connect: opens a connection to LISTEN on.
          on_grouped: told of each batch that was grouped.
          on_due: told that something may be due by now.
          beat: called each time the loop turns, for the watchdog.
          listening: set while there is a connection to listen on, for the probes.
        """
        self._store = store
        self._connect = connect
        self._on_grouped = on_grouped
        self._on_due = on_due
        self._emit = emit
        self._stopping = stopping
        self._beat = beat
        self._listening = listening
        self._wake_reader, self._wake_writer = os.pipe()
        os.set_blocking(self._wake_writer, False)
        self._sweep = True
        self._delivers = False
        self._proof: str | None = None
        self._proved_at = 0.0
        self._looks: list[float] = []
        self._looked_at = 0.0
        self._seen: deque[tuple[float, int]] = deque()
        self._uncaptured: deque[Notification] = deque(maxlen=UNCAPTURED)
        self._untold: deque[NotificationReceived] = deque()
        self._behind = False  # a sequence of the bridge's; said once
        self._busy_batches = 0
        self._busy: dict[str, float] = {}  # conversations that somebody holds, and when each was tried last

    def look(self) -> None:
        """Ask for a look at all that is ungrouped; from any thread."""
        self._sweep = True
        self._wake()

    def stop(self) -> None:
        """End the wait under way, once `stopping` is set."""
        self._wake()

    def _wake(self) -> None:
        with contextlib.suppress(BlockingIOError):  # the pipe is full of wake-ups already
            os.write(self._wake_writer, b"1")

    def run(self) -> None:
        """Listen and group until told to stop, reconnecting as often as it takes."""
        while not self._stopping.is_set():
            self._beat()
            try:
                self._listen()
            except BridgeError as error:
                self._emit(database_trouble(error))
                self._stopping.wait(RECONNECT_SECONDS)

    def _listen(self) -> None:
        connection = self._connect()
        try:
            self._emit(ListenStarting())
            for channel in (MESSAGE_CHANNEL, MATCH_CHANNEL, DUE_CHANNEL):
                connection.execute(f"LISTEN {channel}")
            self._delivers = self._prove(connection)
            capturing = self._store.triggers_installed()
            self._listening.set()
            # Only now can nothing slip by: look at everything, then wait. Who writes once "active" is told finds that
            # look behind him, which otherwise might tell of his message before its notification is heard.
            self._sweep = True
            self._look_if_wanted()
            if self._delivers:
                self._emit(ListenActive())
            self._on_due()
            heard_at = time.monotonic()
            while not self._stopping.is_set():
                self._beat()
                if time.monotonic() - heard_at >= HEARTBEAT_SECONDS:
                    self._proof = None  # what a pooler hands over with an answer proves nothing
                    connection.execute("SELECT 1", seconds=HEARTBEAT_TIMEOUT_SECONDS)
                    capturing = self._store.triggers_installed()
                    heard_at = time.monotonic()
                    self._prove_again()
                try:
                    self._hear(connection, capturing=capturing)
                    self._look_if_wanted()
                finally:
                    self._tell()
                self._wait(connection, heard_at + HEARTBEAT_SECONDS)
        finally:
            self._listening.clear()
            connection.close()

    def _prove(self, connection: Connection) -> bool:
        """Have a notification sent to oneself: a pooler in transaction mode accepts LISTEN and delivers nothing."""
        proof = self._send_proof()
        if proof is None:
            self._emit(ListenSilent("PostgreSQL's queue of notifications is full: who listens and does not read?"))
            return False
        deadline = time.monotonic() + PROOF_SECONDS
        poller = select.poll()
        poller.register(connection.fileno(), select.POLLIN)
        while not self._stopping.is_set():
            # Only heard, never asked for: a pooler lets whatever lies there slip through with the answer to a question.
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
        """Notify oneself; the payload to be heard, or None if PostgreSQL can send nothing now."""
        self._proved_at = time.monotonic()
        proof = f"proof {uuid4()}"
        try:
            # By another connection: a pooler hands one's own back with the answer, and others to nobody.
            return proof if self._store.notify(DUE_CHANNEL, proof) else None
        except RightMissing:
            raise
        except DatabaseRefused:  # it has filled between the look and the commit
            return None

    def _prove_again(self) -> None:
        """Try once more, where nothing was delivered; the proof is heard among the other bells."""
        if not self._delivers and time.monotonic() - self._proved_at >= PROVE_AGAIN_SECONDS:
            self._proof = self._send_proof()

    def _wait(self, connection: Connection, until: float) -> None:
        wanted = [until, *self._looks]
        if not self._delivers:
            wanted.append(self._looked_at + POLL_SECONDS)
        seconds = max(0.0, min(wanted) - time.monotonic())
        poller = select.poll()
        poller.register(connection.fileno(), select.POLLIN)
        poller.register(self._wake_reader, select.POLLIN)
        ready = poller.poll(seconds * 1000)
        if any(descriptor == self._wake_reader for descriptor, _ in ready):
            os.read(self._wake_reader, 4096)
        if not self._delivers and time.monotonic() >= self._looked_at + POLL_SECONDS:
            self._looks.append(time.monotonic())
            self._on_due()  # no bell tells of that either

    def _hear(self, connection: Connection, *, capturing: bool) -> None:
        """Take in what was notified since the last time."""
        connection.receive()
        bells = list(connection.raw.notifies)
        connection.raw.notifies.clear()
        for bell in bells:
            if bell.channel == DUE_CHANNEL:
                if bell.payload == self._proof:
                    self._delivers, self._proof = True, None
                    self._emit(ListenActive())
                self._on_due()
                continue
            self._looks.append(time.monotonic())
            try:
                notification = parse(bell.channel, bell.payload)
            except BadMessage as error:
                self._emit(NotificationRejected(bell.channel, str(error)))
                continue
            heard = NotificationReceived(bell.pid, bell.channel, notification.payload, notification.match_id)
            self._untold.append(heard)
            if not capturing:
                self._uncaptured.append(notification)
        while self._uncaptured:
            self._capture(self._uncaptured[0])
            self._uncaptured.popleft()
            self._beat()

    def _capture(self, notification: Notification) -> None:
        """Capture what somebody else's trigger tells of, where ours are not installed.

        Raises:
          DatabaseUnavailable, RightMissing: try again, for nothing else tells of it.
        """
        try:
            captured = self._store.capture_notified(notification.match_id, notification.message_id)
        except RightMissing:
            raise
        except DatabaseRefused as error:
            self._emit(NotificationRejected(notification.channel, str(error)))
            return
        if captured is None:
            self._emit(NotificationRejected(notification.channel, "it names nothing that is to be answered"))

    def _look_if_wanted(self) -> None:
        now = time.monotonic()
        due = [moment for moment in self._looks if moment <= now]
        if not due and not self._sweep:
            return
        if now - self._looked_at < LOOK_SECONDS and not self._sweep:
            self._looks = [max(moment, self._looked_at + LOOK_SECONDS) for moment in self._looks]
            return
        everything = self._sweep
        if everything:  # else another thread's wish of this very moment would be lost
            self._sweep = False
        self._looks = [moment for moment in self._looks if moment > now]
        self._looked_at = now
        try:
            self._group(after=0 if everything else self._bound(now))
        except DatabaseBusy:
            self._busy_batches += 1
            self._looks.append(now + LOOK_SECONDS)
            if everything:
                self._sweep = True
        except SequenceBehind as error:
            # No event is to blame: all stay ungrouped until `migrate` has set the sequence right.
            if not self._behind:
                self._emit(database_trouble(error))
            self._behind = True
            self._looks = [now + RECONNECT_SECONDS]
            if everything:
                self._sweep = True

    def _group(self, *, after: int) -> None:
        try:
            if self._busy or self._busy_batches >= BUSY_BATCHES:
                # Whoever holds one conversation's turn, for a moment or frozen, holds up no other.
                grouped = self._group_one_by_one()
            else:
                grouped = self._store.group(after=after)
        except RightMissing:
            raise  # setting events aside would lose them to an operator, and nobody's event is at fault
        except DatabaseRefused:
            grouped = self._group_one_by_one()
        self._busy_batches = 0
        if not grouped:
            return
        self._behind = False
        now = time.monotonic()
        self._looks = [now + delay for delay in LOOKS_AFTER_BATCH]
        if len(grouped) >= LARGE_BATCH:  # and never `|=`, which would lose another thread's wish of this very moment
            self._sweep = True
        self._seen.append((now, max(event.event_id for event in grouped)))
        self._on_grouped(grouped)
        self._stopping.wait(AFTER_YOU_SECONDS)
        self._tell()
        for event in grouped:
            if event.kind == "match":
                self._emit(MatchDetected(event.match_id, event.bot_id))
            else:
                delay = 0.0 if event.due_at is None else (event.due_at - event.opened_at).total_seconds()
                self._emit(MessageGrouped(event.match_id, event.turn_id, event.event_id, event.place, delay))

    def _tell(self) -> None:
        """Tell of the bells that were heard: nobody waits for a line, and somebody for the look that they ask for."""
        while self._untold:
            self._emit(self._untold.popleft())

    def _group_one_by_one(self) -> list[Grouped]:
        """Find the conversations that spoil the batch, and let the others go on (T2).

        Those that PostgreSQL refuses are set aside; those that somebody holds are left to a later look, and come last.
        """
        grouped: list[Grouped] = []
        ungrouped = self._store.ungrouped_matches(BAD_BATCH + len(self._busy))
        known = self._busy
        self._busy = {match_id: known[match_id] for match_id in ungrouped if match_id in known}
        tries = 0
        for match_id in sorted(ungrouped, key=lambda match_id: known.get(match_id, 0.0)):
            if match_id in known and time.monotonic() < known[match_id] + BUSY_SECONDS:
                continue
            if tries == BUSY_TRIES:
                self._looks.append(time.monotonic() + LOOK_SECONDS)
                break
            try:
                grouped += self._store.group(only=match_id)
                self._busy.pop(match_id, None)
            except DatabaseBusy:
                tries += 1
                self._busy[match_id] = time.monotonic()
            except RightMissing:
                raise
            except DatabaseRefused as error:
                count = self._store.set_aside(match_id, str(error))
                self._busy.pop(match_id, None)
                self._emit(EventSetAside(count, match_id, str(error)))
            self._beat()
        if self._busy:
            self._looks.append(min(self._busy.values()) + BUSY_SECONDS)
        return grouped

    def _bound(self, now: float) -> int:
        """The highest event id seen ten seconds ago."""
        bound = 0
        while self._seen and self._seen[0][0] <= now - BOUND_SECONDS:
            bound = self._seen.popleft()[1]
        if bound:
            self._seen.appendleft((now - BOUND_SECONDS, bound))
        return bound
