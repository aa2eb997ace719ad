"""The loop that groups: a bell rings or a look is due, and ungrouped events become turns.

A bell is a hint. A bell that is lost, late, doubled or forged changes nothing, because every look reads bridge.events.
Looks also follow the start, each reconnection and each batch, and the planner's sweep asks for one.
"""

import time
from collections import deque
from collections.abc import Callable
from typing import Final

from psycopg2.extensions import Notify

from bridge_service.errors import BadMessage, BridgeError
from bridge_service.machine.answers import Grouped
from bridge_service.machine.database import Connection
from bridge_service.machine.steps import Store
from bridge_service.process.loop import Loop
from bridge_service.telemetry.signals import (
    Emit,
    ListenActive,
    MatchDetected,
    MessageGrouped,
    NotificationReceived,
    NotificationRejected,
    TurnCancelled,
    database_trouble,
)
from bridge_service.turns import Kind
from schedulers.bells import Bells
from schedulers.foreign import ForeignCapture
from schedulers.grouper import Grouper
from schedulers.looks import Looks
from schedulers.notifications import MATCH_CHANNEL, MESSAGE_CHANNEL, parse
from schedulers.overtaker import Overtaker

DUE_CHANNEL: Final = "bridge_due"
"""The bridge's own channel: a turn is due earlier than the planner knows."""

RECONNECT_SECONDS: Final = 1.0

REPORT_AFTER_SECONDS: Final = 0.005
"""How long reporting a batch waits for the thread that pushes it: both need the interpreter, and the push is urgent."""


class Listener(Loop):
    """Turns bells and looks into turns."""

    def __init__(
        self,
        store: Store,
        connect: Callable[[], Connection],
        *,
        on_grouped: Callable[[list[Grouped]], None],
        on_due: Callable[[], None],
        emit: Emit,
    ) -> None:
        """Wire a listener.

        Parameters:
          connect: opens a connection to LISTEN on.
          on_grouped: receives each batch that was grouped.
          on_due: called when something may be due.
        """
        super().__init__("listener")
        self._store = store
        self._on_grouped = on_grouped
        self._on_due = on_due
        self._emit = emit
        channels = (DUE_CHANNEL, MESSAGE_CHANNEL, MATCH_CHANNEL)
        self._bells = Bells(connect, channels, store.notify, emit, self.stopping.is_set)
        self._looks = Looks()
        self._grouper = Grouper(store, emit)
        self._overtaker = Overtaker(store, emit)
        self._foreign = ForeignCapture(store, emit)
        self._capturing = True  # the bridge's triggers are installed
        self._unreported: deque[NotificationReceived] = deque()

    def listening(self) -> bool:
        """Whether there is a connection to listen on, for the probes."""
        return self._bells.listening

    def look(self) -> None:
        """Ask for a look at every ungrouped event; from any thread."""
        self._looks.ask()
        self._bells.ring()

    def wake(self) -> None:
        """End the wait under way."""
        self._bells.ring()

    def turn(self) -> None:
        """Connect if need be; then hear, look, report and wait, once."""
        try:
            if not self._bells.listening:
                self._open()
            if self._bells.check():
                self._capturing = self._store.triggers_installed()
            try:
                self._hear()
                self._look()
            finally:
                self._report()
            self._bells.wait(self._looks.next())
        except BridgeError as error:
            self._bells.close()
            self._emit(database_trouble(error))
            self.pause(RECONNECT_SECONDS)

    def last(self) -> None:
        """Close the connection."""
        self._bells.close()

    def _open(self) -> None:
        self._bells.open()
        self._capturing = self._store.triggers_installed()
        # From here on every commit rings, so a look at everything misses nothing. It comes before ListenActive, or it
        # could report a message before the message's notification is heard.
        self._looks.ask()
        self._look()
        if self._bells.delivers:
            self._emit(ListenActive())
        self._on_due()

    def _hear(self) -> None:
        for bell in self._bells.heard():
            if bell.channel == DUE_CHANNEL:
                self._on_due()
            else:
                self._looks.plan(time.monotonic())
                self._read(bell)
        self._foreign.capture(self.beat)

    def _read(self, bell: Notify) -> None:
        try:
            notification = parse(bell.channel, bell.payload)
        except BadMessage as error:
            self._emit(NotificationRejected(bell.channel, str(error)))
            return
        self._unreported.append(
            NotificationReceived(bell.pid, bell.channel, notification.payload, notification.match_id)
        )
        if not self._capturing:
            self._foreign.add(notification)

    def _look(self) -> None:
        self._looks.polling = not self._bells.delivers
        after = self._looks.begin(time.monotonic())
        if after is None:
            return
        looked = self._grouper.look(after, self.beat)
        if looked.events:
            self._looks.found(time.monotonic(), looked.events)
            self._on_grouped(looked.events)
            self._overtaker.add(looked.events)
        self._overtaker.overtake(everywhere=self._looks.at_everything)
        if looked.events:
            self.pause(REPORT_AFTER_SECONDS)
            self._report()
            self._report_groups(looked.events)
        if looked.again_at is not None:
            self._looks.plan(looked.again_at)
        if not looked.complete and after == 0:
            self._looks.ask()
        if not self._bells.delivers:
            self._on_due()  # no bell says what is due

    def _report(self) -> None:
        """Report the bells that were heard; after the look, which is more urgent."""
        while self._unreported:
            self._emit(self._unreported.popleft())

    def _report_groups(self, events: list[Grouped]) -> None:
        for event in events:
            if event.kind == "match":
                self._emit(MatchDetected(event.match_id, event.bot_id))
            elif event.kind == "change":
                continue  # no message: nothing joins a group
            elif event.state == "cancelled":
                if event.place == 1:
                    self._emit(TurnCancelled(event.turn_id, event.match_id, Kind.REPLY, event.reason or "left"))
            else:
                delay = 0.0 if event.due_at is None else (event.due_at - event.opened_at).total_seconds()
                self._emit(MessageGrouped(event.match_id, event.turn_id, event.event_id, event.place, delay))
