"""What a variable accepts and its default, in words, derived from the field: for faults and for pages."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal, get_args, get_origin

from pydantic.fields import FieldInfo

_NUMBERS: Final[dict[object, str]] = {float: "a number", int: "a whole number"}


@dataclass(frozen=True, slots=True)
class Accepts:
    """Says what a variable accepts if its type alone does not.

    Attributes:
      words: follow "must be".
    """

    words: str


def accepts(field: FieldInfo) -> str:
    """Return what a field accepts, in words that follow "must be"."""
    kind = next((part for part in get_args(field.annotation) if part is not type(None)), field.annotation)
    kind = get_args(kind)[0] if hasattr(kind, "__metadata__") else kind
    bounds: dict[str, object] = {}
    for each in _metadata(field):
        if isinstance(each, Accepts):
            return each.words
        bounds |= {name: getattr(each, name) for name in ("ge", "gt", "le") if hasattr(each, name)}
    if get_origin(field.annotation) is Literal:
        *words, last = get_args(field.annotation)
        return f"{', '.join(words)} or {last}"
    low = f"from {bounds['ge']}" if "ge" in bounds else f"above {bounds['gt']}"
    return f"{_NUMBERS[kind]} {low} to {bounds['le']}"


def _metadata(field: FieldInfo) -> Iterator[object]:
    """Yield what `Annotated` adds to the type, also inside `... | None` and a nested `Field`."""
    nested = (each for part in get_args(field.annotation) for each in getattr(part, "__metadata__", ()))
    for each in (*field.metadata, *nested):
        yield from each.metadata if isinstance(each, FieldInfo) else (each,)


def as_text(value: object) -> str:
    """Return a value as a person writes it: numbers as %g, booleans as true or false, nothing for None."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)
