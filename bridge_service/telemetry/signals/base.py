"""A signal: something that happened, as a class with a name and fields."""

import logging
import re
from collections.abc import Callable
from dataclasses import Field, dataclass, fields
from typing import Any, ClassVar, TypeAlias, dataclass_transform


@dataclass_transform(frozen_default=True)
class Signal:
    """Something that happened. Each class that inherits from it is a frozen dataclass.

    Attributes:
      name: the class's name in snake_case. Logs and alerts know the signal by it, so a class is not renamed.
      level: how much it matters, a level of `logging`.
    """

    name: ClassVar[str]
    level: ClassVar[int]
    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]

    def __init_subclass__(cls, *, level: int = logging.INFO) -> None:
        """Name the signal and make it a dataclass."""
        cls.name = re.sub(r"(?<!^)(?=[A-Z])", "_", cls.__name__).lower()
        cls.level = level
        dataclass(frozen=True)(cls)

    def __post_init__(self) -> None:
        """Keep the first line of an error or reason: in the next ones PostgreSQL quotes the row, so the message."""
        for text in ("error", "reason"):
            value = getattr(self, text, None)
            if isinstance(value, str):
                object.__setattr__(self, text, value.strip().partition("\n")[0].rstrip())

    def fields(self) -> dict[str, object]:
        """Return what the signal carries, by field name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


Emit: TypeAlias = Callable[[Signal], None]
"""Takes note of a signal: quick, from any thread, and never raises."""
