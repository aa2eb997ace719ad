"""`console`: the web process, with a page for people, probes for a platform and numbers for Prometheus."""

import logging
import sys
from typing import Final

from bridge_service.brokers.redis_client import connect
from bridge_service.machine.database import Connection, Database
from bridge_service.operate.output import Output
from bridge_service.process.startup import announce
from bridge_service.settings import Settings, secrets
from bridge_service.telemetry import logs
from bridge_service.telemetry.journal import Journal
from bridge_service.telemetry.signals import Stopped
from bridge_service.web.console import Console, serve

TIMEOUT_SECONDS: Final = 3.0


def run(settings: Settings, output: Output) -> bool:
    """Serve until SIGTERM or Ctrl-C. PostgreSQL and Redis may be away: the page says so."""
    del output  # from here on this process logs, as the scheduler and the workers do
    logs.configure(settings.log_level, settings.log_format, secrets(settings), sys.stdout)
    journal = Journal(logging.getLogger("bridge"))
    announce(settings, "console", journal, serves="PORT")
    database = Database(
        lambda: Connection(settings.database_url, application="bridge console", seconds=TIMEOUT_SECONDS)
    )
    client = connect(settings.redis_url, timeout=TIMEOUT_SECONDS)
    try:
        serve(Console(database, client, settings.console_token), settings.host, settings.port)
    finally:
        client.close()
        database.close()
    journal(Stopped())
    return True
