"""What an operator sets with `bots set`, for tests of one part of the service."""

from __future__ import annotations

import json
from contextlib import closing
from typing import TYPE_CHECKING, Final

import psycopg2

if TYPE_CHECKING:
    from tests.support.roles import Urls

MAX_ATTEMPTS: Final = 5
MAX_TAKEOVERS: Final = 20
"""As parts/max_attempts.sql and parts/max_takeovers.sql have them."""


def set_policy(urls: Urls, bot: str | None = None, **values: float | str | None) -> None:
    """Set these columns of bridge.bots for a bot, or for all of them."""
    with closing(psycopg2.connect(urls.admin)) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT bridge.set_bot(%s, %s)", (bot, json.dumps(values)))
        assert cursor.fetchone() == ({"outcome": "set"},)
        connection.commit()


def set_grouping(urls: Urls, delay: float, *, opener: float = 60, probability: float = 1) -> None:
    """Let groups close after `delay` seconds, and openers be planned after exactly `opener` seconds."""
    set_policy(
        urls,
        grouping_delay=delay,
        initiation_delay_min=opener,
        initiation_delay_max=opener,
        initiation_probability=probability,
    )
