"""What can go wrong, split by what the caller does about it.

    Exception
    └── BridgeError
        ├── ConfigurationError      end the process with EX_CONFIG
        ├── DatabaseUnavailable     run the step again later
        ├── DatabaseBusy            run the step again soon: another session holds the rows
        ├── StepRefused             PostgreSQL answered, and the same step would fail again
        │   ├── SchemaMissing       run `python -m bridge_service migrate`
        │   │   └── SchemaIncomplete    the same: rows are missing that `migrate` writes
        │   ├── RightMissing        wait until an operator grants or mends: no row is to blame
        │   │   └── SequenceBehind  run `python -m bridge_service migrate`
        │   ├── TablesUnfit         change the app's tables
        │   └── DatabaseRefused     count an attempt, or set the event aside: the row is to blame
        ├── ResponderUnavailable    ask again later; no attempt is counted
        ├── OverLimit               hold the turn until the next day; no attempt is counted
        └── BadMessage              drop it

The SQLSTATEs of each are in machine/sql/parts/blame.sql. These texts reach the log: none may hold a secret or the text
of a message.
"""

import operator
import sys
from typing import Final

EX_CONFIG: Final = 78
"""Exit code of a process whose configuration is wrong, as in sysexits.h."""


class BridgeError(Exception):
    """Base class of every error that this service raises on purpose."""


class ConfigurationError(BridgeError):
    """Raised when environment variables are missing or wrong.

    Parameters:
      faults: one line each, naming the variable and what to do, never its value.
    """

    def __init__(self, *faults: str) -> None:
        super().__init__(*faults)
        self.faults = faults

    def __str__(self) -> str:
        """Return the faults, one a line."""
        return "\n".join(self.faults)


class DatabaseUnavailable(BridgeError):
    """Raised when the connection to PostgreSQL failed or timed out: run the step again."""


class DatabaseBusy(BridgeError):
    """Raised when PostgreSQL did not grant a lock in time; the connection is fine, and nothing was changed."""


class StepRefused(BridgeError):
    """Raised when PostgreSQL answered that it does not carry out a step: the same step would fail again.

    Parameters:
      message: what may be logged of it.
      words: all of it, for a turn's row and an operator's terminal; a function of the app may quote a message in them.
    """

    def __init__(self, message: str = "", *, words: str | None = None) -> None:
        super().__init__(message)
        self.words = message if words is None else words


class SchemaMissing(StepRefused):
    """Raised when schema `bridge` is not there or too old: run `python -m bridge_service migrate`."""


class SchemaIncomplete(SchemaMissing):
    """Raised when schema `bridge` lacks rows that `migrate` writes, as after a restore of the schema alone."""


class RightMissing(StepRefused):
    """Raised when a right, a table or a setting is missing: every row is refused until an operator mends it."""


class SequenceBehind(RightMissing):
    """Raised when a sequence of schema `bridge` gives out ids that its table holds already: run `migrate`."""


class TablesUnfit(StepRefused):
    """Raised when the bridge cannot work on the app's tables; nothing was changed.

    Parameters:
      faults: one line each, naming the table and the column, or the function.
    """

    def __init__(self, *faults: str) -> None:
        super().__init__("; ".join(faults))
        self.faults = faults


class DatabaseRefused(StepRefused):
    """Raised when PostgreSQL refuses what one row holds.

    Parameters:
      by_text: whether another text might be taken.
    """

    def __init__(self, message: str = "", *, words: str | None = None, by_text: bool = False) -> None:
        super().__init__(message, words=words)
        self.by_text = by_text


class ResponderUnavailable(BridgeError):
    """Raised when the service behind a responder is away for a while (network, 429, 5xx): never counts as an attempt.

    Parameters:
      retry_after: seconds to wait before asking again, if that service named them.
    """

    def __init__(self, message: str = "", *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class OverLimit(BridgeError):
    """Raised when a limit of calls or tokens is reached: no call of a model is begun."""


class BadMessage(BridgeError):
    """Raised when a broker message or a notification is not understood."""


def type_of(error: BaseException) -> str:
    """Return the name of an error's class. A class made at run time may have any name, so its base's is returned."""
    return next(kind.__name__ for kind in type(error).__mro__ if kind is BaseException or _is_written(kind))


def _is_written(kind: type) -> bool:
    """Tell whether this class stands in source code: in its module, or inside a function."""
    if "<locals>" in kind.__qualname__:
        return True
    try:
        return operator.attrgetter(kind.__qualname__)(sys.modules[kind.__module__]) is kind
    except Exception:  # noqa: BLE001 - a module may define how its names are looked up
        return False
