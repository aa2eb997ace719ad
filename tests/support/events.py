"""Every event, samples of them, and a clock to move, for the tests of those who tell what happened."""

from dataclasses import fields
from typing import Final

from bridge_service.telemetry import signals as events
from bridge_service.telemetry.signals import Event

MATCH: Final = "de31323b-fb0b-4ac0-aa5a-e5b3299a5567"

EVENTS: Final = [
    each for each in vars(events).values() if isinstance(each, type) and issubclass(each, Event) and each is not Event
]
"""The class of every event."""


class Clock:
    """A clock that stands still until a test sets `now`, in seconds."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now


def sample(kind: type[Event], text: str = "x") -> Event:
    """Return an event of this kind with `text` in every field that takes one."""
    values: dict[object, object] = {int: 2, float: 1.5, str: text}
    return kind(**{field.name: values.get(field.type, {text: text}) for field in fields(kind)})
