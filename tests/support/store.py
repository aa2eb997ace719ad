"""The machine's steps on a database, for tests that play one part of the service."""

from __future__ import annotations

from contextlib import ExitStack, closing, contextmanager
from typing import TYPE_CHECKING

from bridge_service.machine.database import Connection, Database
from bridge_service.machine.steps import Store

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.roles import Urls


@contextmanager
def store_on(urls: Urls) -> Iterator[Store]:
    """Give a store with a pool of its own; in the end every connection that it opened is closed."""
    with ExitStack() as stack:

        def connect() -> Connection:
            return stack.enter_context(closing(Connection(urls.service, application="test")))

        database = Database(connect)
        stack.callback(database.close)
        yield Store(database)
