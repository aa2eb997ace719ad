"""Settings of a session: those that the URL or PGOPTIONS asks for, then ours; also where a server takes none.

A pooler that gives every transaction another session refuses start-up options, each in its own words. So after most
failures a connection is tried once more without options. If that one is accepted, the settings go with each call.
"""

import os
import re
import time
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple, TypeVar

import psycopg2
import psycopg2.extensions

from bridge_service.errors import DatabaseUnavailable

REFUSAL_SECONDS: Final = 600.0
"""How long a refusal is remembered, so that not every connection is tried twice. The server may also have refused the
first try for a reason that was gone a moment later, such as its own start."""

_NOT_THE_OPTIONS: Final = re.compile(
    "Connection refused|could not translate host name|password authentication failed|no password supplied|certificate"
)
"""Failures that are not worth a second try; in another language than English they get one."""

_PREFIX: Final = re.compile(r"-c|--")

C = TypeVar("C")

_refused_at: dict[str, float] = {}


class Setting(NamedTuple):
    """A setting that goes with each call."""

    name: str
    value: str


def connect(url: str, ours: str, open_with: Callable[[str], C]) -> tuple[C, bool]:
    """Connect with the session options that the user asks for and, after them, ours.

    Parameters:
      url: what libpq takes.
      ours: options in the form of PostgreSQL's command line.
      open_with: connects with the options that it is given, and with none if they are empty.

    Returns:
      The connection, and whether it was opened with the options. Without them, all settings have to go with each call.

    Raises:
      psycopg2.Error, DatabaseUnavailable: what `open_with` raises.
    """
    theirs = user_options(url)
    options = f"{theirs} {ours}".strip()
    can_do_without = _settings(theirs) is not None
    if can_do_without and time.monotonic() < _refused_at.get(url, -REFUSAL_SECONDS) + REFUSAL_SECONDS:
        return open_with(""), False
    try:
        return open_with(options), True
    except psycopg2.Error as error:
        if not (options and can_do_without) or _NOT_THE_OPTIONS.search(str(error)):
            raise
        refusal = error
    try:
        connection = open_with("")
    except (psycopg2.Error, DatabaseUnavailable):
        raise refusal from None
    _refused_at[url] = time.monotonic()
    return connection, False


def user_settings(url: str) -> list[Setting]:
    """Return the settings among the options that the user asks for; empty if one of these can go with no call."""
    return _settings(user_options(url)) or []


def user_options(url: str) -> str:
    """Return the options that the URL, or else PGOPTIONS, asks for."""
    named: Mapping[str, Any] = psycopg2.extensions.parse_dsn(url)
    return str(named["options"]) if "options" in named else os.environ.get("PGOPTIONS", "")


def _settings(options: str) -> list[Setting] | None:
    """Read options as PostgreSQL does; None if one of them is no setting, and can go with no call."""
    # A backslash keeps the next character, such as a space, from ending the option.
    words = [re.sub(r"\\(.)", r"\1", word, flags=re.DOTALL) for word in re.findall(r"(?:\\.|[^\s\\])+", options)]
    settings = []
    while words:
        word = words.pop(0)
        prefix = _PREFIX.match(word)
        if prefix is None:
            return None
        text = word[prefix.end() :] or (words.pop(0) if words else "")
        name, equals, value = text.partition("=")
        if not equals:
            return None
        settings.append(Setting(name.replace("-", "_"), value))
    return settings
