"""What a run of `migrate` did, or would do."""

from dataclasses import dataclass, field


@dataclass(slots=True)
class Report:
    """What a run changes.

    Attributes:
      functions: those that are laid, for the first time or again.
      kept: the adapter's functions that the app replaced. The run leaves them alone.
      bound: the app's tables, if `bridge.installation` did not name them or named them otherwise.
      sequences: those that stood behind the ids in their tables and are set right.
      found: migrations that a restored schema holds although `bridge.migrations` has no row of them.
    """

    migrations: list[str] = field(default_factory=list)
    functions: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    triggers: list[str] = field(default_factory=list)
    bound: list[str] = field(default_factory=list)
    sequences: list[str] = field(default_factory=list)
    found: list[str] = field(default_factory=list)
