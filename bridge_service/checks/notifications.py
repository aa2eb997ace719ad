"""Looks at notifications: whether one arrives, and whether PostgreSQL's queue of them fills."""

import secrets
import select
import time
from contextlib import closing
from typing import Final

from bridge_service.checks.finding import TIMEOUT_SECONDS, Found, judge, well, wrong
from bridge_service.checks.look import connect, row
from bridge_service.machine.database import Connection

LISTEN_SECONDS: Final = 2.0

BELL_STOPS_AT: Final = 0.5
"""Share of the notification queue above which steps/notify.sql sends nothing."""


def listen(connection: Connection, url: str) -> Found:
    """Send this connection a notification and wait for it."""
    channel = f"bridge_check_{secrets.token_hex(8)}"
    connection.execute(f"LISTEN {channel}", seconds=TIMEOUT_SECONDS)
    began = time.monotonic()
    # A pooler hands a connection its own notification with the answer, so another connection has to send it.
    with closing(connect(url)) as other:
        row(other, "SELECT pg_catalog.pg_notify(%s, '')", channel)
    if _hears(connection, channel, began + LISTEN_SECONDS):
        connection.execute(f"UNLISTEN {channel}", seconds=TIMEOUT_SECONDS)
        took = (time.monotonic() - began) * 1000
        return well(f"a notification came back in {took:.0f} ms")
    return wrong(
        f"no notification came back within {LISTEN_SECONDS:g} s",
        "DATABASE_URL: is it a pooler in transaction mode? use its session mode or the direct port;"
        " the bridge polls meanwhile",
    )


def _hears(connection: Connection, channel: str, deadline: float) -> bool:
    poller = select.poll()
    poller.register(connection.fileno(), select.POLLIN)
    while True:
        connection.receive()
        if any(notify.channel == channel for notify in connection.raw.notifies):
            return True
        left = deadline - time.monotonic()
        if left <= 0 or not poller.poll(left * 1000):
            return False


def notify_queue(connection: Connection) -> Found:
    """Look how full the notification queue is."""
    [usage] = row(connection, "SELECT pg_catalog.pg_notification_queue_usage()")
    remedy = "end the session that LISTENs and stays in a transaction: the oldest xact_start of pg_stat_activity"
    return judge(f"{usage:.0%} full", remedy, ok=usage < BELL_STOPS_AT)
