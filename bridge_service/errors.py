"""What can go wrong, split by what the caller does about it.

    Exception
    └── BridgeError
        ├── ConfigurationError     end the process with EX_CONFIG
        ├── DatabaseUnavailable    run the step again
        │   └── DatabaseBusy       run it again soon: somebody holds the rows
        ├── SchemaMissing          run `python -m bridge_service migrate`
        │   └── SchemaIncomplete   the same: rows are missing that it writes
        ├── DatabaseRefused        running it again will not help
        │   ├── RightMissing       a right or a table is missing: no row is to blame
        │   │   └── SequenceBehind run `python -m bridge_service migrate`
        │   └── TablesUnfit        the app's tables are not as the bridge needs them
        ├── ResponderUnavailable   ask again later; no attempt is counted
        └── BadMessage             drop it

These texts reach the log: none may hold a secret or the text of a message.
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


class DatabaseBusy(DatabaseUnavailable):
    """Raised when a lock was not to be had in time; the connection is fine, and nothing was changed."""


class SchemaMissing(BridgeError):
    """Raised when schema `bridge` is not there or too old: run `python -m bridge_service migrate`."""


class SchemaIncomplete(SchemaMissing):
    """Raised when schema `bridge` lacks rows that `migrate` writes, as after a restore of the schema alone."""


class DatabaseRefused(BridgeError):
    """Raised when PostgreSQL refused a statement for another reason: a right or a table is missing.

    Parameters:
      message: what may be logged of it.
      words: all of it, for a turn's row and an operator's terminal; what a function of the app's raises may quote a
        message.
    """

    def __init__(self, message: str = "", *, words: str | None = None) -> None:
        super().__init__(message)
        self.words = message if words is None else words


class RightMissing(DatabaseRefused):
    """Raised when a right, a table or a setting is missing: every row is refused until somebody mends it."""


class SequenceBehind(RightMissing):
    """Raised when a sequence of schema `bridge` gives out ids that its table holds already: run `migrate`."""


class TablesUnfit(DatabaseRefused):
    """Raised when the bridge cannot work on the app's tables; nothing was changed.

    Parameters:
      faults: one line each, naming the table and the column, or the function.
    """

    def __init__(self, *faults: str) -> None:
        super().__init__("; ".join(faults))
        self.faults = faults


class ResponderUnavailable(BridgeError):
    """Raised when what answers for a bot is away for a while (network, 429, 5xx): never counts as an attempt.

    Parameters:
      retry_after: seconds to wait before asking again, where the other side said so.
    """

    def __init__(self, message: str = "", *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class BadMessage(BridgeError):
    """Raised when a broker message or a notification is not understood."""


def type_of(error: BaseException) -> str:
    """Return the name of an error's class; of one made at run time, which may be named after anything, its base's."""
    return next(kind.__name__ for kind in type(error).__mro__ if kind is BaseException or _is_written(kind))


def _is_written(kind: type) -> bool:
    """Tell whether somebody wrote this class: then it is found in its module, or was written inside a function."""
    if "<locals>" in kind.__qualname__:
        return True
    try:
        return operator.attrgetter(kind.__qualname__)(sys.modules[kind.__module__]) is kind
    except Exception:  # noqa: BLE001 - a module may answer with anything when it is asked for a name
        return False
