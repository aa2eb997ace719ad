"""Notifications of the app's own trigger, captured where the bridge's triggers are not installed."""

from collections import deque
from collections.abc import Callable
from typing import Final

from bridge_service.errors import DatabaseRefused
from bridge_service.machine.steps import Store
from bridge_service.telemetry.signals import Emit, NotificationRejected
from schedulers.notifications import Notification

UNCAPTURED: Final = 10_000


class ForeignCapture:
    """Captures notifications in their order, and keeps those that PostgreSQL does not take yet."""

    def __init__(self, store: Store, emit: Emit) -> None:
        self._store = store
        self._emit = emit
        self._uncaptured: deque[Notification] = deque(maxlen=UNCAPTURED)

    def add(self, notification: Notification) -> None:
        """Keep a notification until it is captured."""
        self._uncaptured.append(notification)

    def capture(self, beat: Callable[[], None]) -> None:
        """Capture what is kept; `beat` is called after each notification.

        Raises:
          DatabaseUnavailable, SchemaMissing, RightMissing: try again; no other source tells of these messages.
        """
        while self._uncaptured:
            self._capture(self._uncaptured[0])
            self._uncaptured.popleft()
            beat()

    def _capture(self, notification: Notification) -> None:
        try:
            captured = self._store.capture_notified(notification.match_id, notification.message_id)
        except DatabaseRefused as error:
            self._emit(NotificationRejected(notification.channel, str(error)))
            return
        if captured is None:
            self._emit(NotificationRejected(notification.channel, "it names nothing that is to be answered"))
