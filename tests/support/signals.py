"""Every signal, samples of them, and a clock to move, for the tests of those who tell what happened."""

from dataclasses import fields
from typing import Final

from bridge_service.telemetry import signals
from bridge_service.telemetry.signals import Signal

MATCH: Final = "de31323b-fb0b-4ac0-aa5a-e5b3299a5567"

SIGNALS: Final = [
    each
    for each in vars(signals).values()
    if isinstance(each, type) and issubclass(each, Signal) and each is not Signal
]
"""The class of every signal."""


class Clock:
    """A clock that stands still until a test sets `now`, in seconds."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now


def sample(kind: type[Signal], text: str = "x") -> Signal:
    """Return a signal of this kind with `text` in every field that takes one."""
    values: dict[object, object] = {int: 2, float: 1.5, str: text}
    return kind(**{field.name: values.get(field.type, {text: text}) for field in fields(kind)})
