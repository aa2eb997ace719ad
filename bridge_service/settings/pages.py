"""What docs/CONFIGURATION.md, .env.example and compose.yaml say of the variables, written from the fields."""

import re
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydantic.fields import FieldInfo

from bridge_service.settings.fields import FIELDS, OTHER_NAMES, REQUIRED, ByTestMode
from bridge_service.settings.words import accepts, as_text

ROOT: Final = Path(__file__).parents[2]

_COMPOSE_DEFAULTS: Final = {
    "DATABASE_URL": "postgresql://postgres:${POSTGRES_PASSWORD:-postgres}@postgres/app",
    "REDIS_URL": "redis://redis:6379/0",
}
"""They lead to the containers of compose.yaml."""

_EXAMPLE_HEAD: Final = """\
# Copy to .env, which `make up` and `make migrate` read. Each line shows its default; empty counts as unset.
# `make docs` writes this file from bridge_service/settings/fields.py.
"""


@dataclass(frozen=True, slots=True)
class Variable:
    """One variable as the pages show it.

    Attributes:
      other_name: read where `name` is unset; empty if there is none.
      required: whether the processes cannot start without it.
      default: as a person writes it; empty if there is none.
      default_in_test_mode: empty if it does not differ.
      accepts: follows "must be".
      example: stands in .env.example where there is no default.
    """

    name: str
    other_name: str
    required: bool
    default: str
    default_in_test_mode: str
    accepts: str
    meaning: str
    example: str

    @property
    def default_text(self) -> str:
        """The default in one cell of a table."""
        if self.required:
            return "required"
        if self.default_in_test_mode:
            return f"{self.default}; {self.default_in_test_mode} in TEST_MODE"
        return self.default or "unset"


def _variable(name: str, field: FieldInfo) -> Variable:
    by_test_mode = next((func for each in field.metadata if isinstance(func := _func(each), ByTestMode)), None)
    return Variable(
        name=name.upper(),
        other_name=OTHER_NAMES.get(name, ""),
        required=name in REQUIRED,
        default=as_text(by_test_mode.live if by_test_mode else field.default),
        default_in_test_mode=as_text(by_test_mode.testing) if by_test_mode else "",
        accepts=accepts(field),
        meaning=field.description or "",
        example=next(iter(field.examples or ()), ""),
    )


def _func(metadata: object) -> object:
    return getattr(metadata, "func", None)


VARIABLES: Final = tuple(_variable(name, field) for name, field in FIELDS.items())
"""Every variable, in the order of the fields."""


def _table(page: str) -> str:
    """Write the rows of CONFIGURATION.md's table anew."""
    rows = "".join(
        f"| `{each.name}`{f' (or `{each.other_name}`)' if each.other_name else ''} | {each.default_text}"
        f" | {each.accepts} | {each.meaning} |\n"
        for each in VARIABLES
    )
    return _replaced(page, r"(?<=\| --- \| --- \| --- \| --- \|\n)(?:\|.*\n)*", rows)


def _example(page: str) -> str:
    """Write .env.example: each variable under a comment of its own."""
    del page
    return _EXAMPLE_HEAD + "".join(
        f"\n{_comment(each)}\n#{each.name}={each.default or each.example}\n" for each in VARIABLES
    )


def _comment(variable: Variable) -> str:
    sentences = [variable.meaning, f"Must be {variable.accepts}."]
    if variable.default_in_test_mode:
        sentences.append(f"In TEST_MODE {variable.default_in_test_mode} by default.")
    if variable.other_name:
        sentences.append(f"{variable.other_name} is read where it is unset.")
    if variable.required:
        sentences.append("Required.")
    return textwrap.fill(" ".join(sentences), 118, initial_indent="# ", subsequent_indent="# ")


def _environment(page: str) -> str:
    """Write the environment of compose.yaml: all of .env is handed on."""
    lines = "".join(f"    {each.name}: {_handed_on(each)}\n" for each in VARIABLES)
    return _replaced(page, r"(?<=  environment: &environment\n)(?:    .*\n)*", lines)


def _handed_on(variable: Variable) -> str:
    default = _COMPOSE_DEFAULTS.get(variable.name, "")
    for name in filter(None, (variable.other_name, variable.name)):
        default = f"${{{name}:-{default}}}"
    return default


def _replaced(page: str, pattern: str, text: str) -> str:
    replaced, found = re.subn(pattern, lambda _: text, page)
    if found != 1:
        raise ValueError(f"{found} places instead of 1 match {pattern!r}")
    return replaced


PAGES: Final[Mapping[str, Callable[[str], str]]] = {
    "docs/CONFIGURATION.md": _table,
    ".env.example": _example,
    "compose.yaml": _environment,
}
"""For each file a function that takes its text and returns it with the fields as they are now."""
