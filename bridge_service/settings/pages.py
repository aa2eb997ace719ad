"""Writes the variables into docs/CONFIGURATION.md, .env.example and compose.yaml, from the fields."""

import re
import textwrap
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from pydantic.fields import FieldInfo

from bridge_service.settings.fields import BY_TEST_MODE, FIELDS, OTHER_NAMES, REQUIRED
from bridge_service.settings.words import accepts, as_text

ROOT: Final = Path(__file__).parents[2]

_COMPOSE_DEFAULTS: Final = {
    "DATABASE_URL": "postgresql://postgres:${POSTGRES_PASSWORD:-postgres}@postgres/app",
    "REDIS_URL": "redis://redis:6379/0",
}
"""The containers of compose.yaml."""

_EXAMPLE_HEAD: Final = """\
# Copy to .env, which `make up` and `make migrate` read. Each line shows its default; empty counts as unset.
# `make docs` writes this file from bridge_service/settings/fields.py.
"""


class Variable:
    """One variable as the pages show it.

    Attributes:
      other_name: read if `name` is unset; empty if there is none.
      default: as a person writes it; empty if there is none.
      testing: the default in TEST_MODE; empty if it is the same.
      accepts: follows "must be".
      example: for .env.example; used if there is no default.
    """

    def __init__(self, field_name: str, field: FieldInfo) -> None:
        defaults = BY_TEST_MODE.get(field_name)
        self.name = field_name.upper()
        self.other_name = OTHER_NAMES.get(field_name, "")
        self.required = field_name in REQUIRED
        self.default = as_text(defaults.live if defaults else field.default)
        self.testing = as_text(defaults.testing) if defaults else ""
        self.accepts = accepts(field)
        self.meaning = field.description or ""
        self.example = next(iter(field.examples or ()), "")

    @property
    def default_text(self) -> str:
        """The default in one cell of a table."""
        if self.required:
            return "required"
        return f"{self.default}; {self.testing} in TEST_MODE" if self.testing else self.default or "unset"


VARIABLES: Final = tuple(Variable(name, field) for name, field in FIELDS.items())
"""Every variable, in the order of the fields."""


def _table(page: str) -> str:
    """Write the rows of CONFIGURATION.md's table."""
    rows = "".join(
        f"`{each.name}`{f' (or `{each.other_name}`)' if each.other_name else ''} | {each.default_text}"
        f" | {_short(each.accepts)} | {each.meaning}\n"
        for each in VARIABLES
    )
    return _replaced(page, r"(?<=--- \| --- \| --- \| ---\n)(?:`.*\n)*", rows)


def _short(accepts: str) -> str:
    return re.sub("^a (whole )?number (from )?", r"\1", accepts).partition(" (or 1")[0]


def _example(page: str) -> str:
    """Write .env.example: each variable under its comment."""
    del page
    return _EXAMPLE_HEAD + "".join(
        f"\n{_comment(each)}\n#{each.name}={each.default or each.example}\n" for each in VARIABLES
    )


def _comment(variable: Variable) -> str:
    sentences = [variable.meaning, f"Must be {variable.accepts}."]
    if variable.testing:
        sentences.append(f"In TEST_MODE {variable.testing} by default.")
    if variable.other_name:
        sentences.append(f"If it is unset, {variable.other_name} is read.")
    if variable.required:
        sentences.append("Required.")
    return textwrap.fill(" ".join(sentences), 118, initial_indent="# ", subsequent_indent="# ")


def _environment(page: str) -> str:
    """Write the environment of compose.yaml: each variable of .env."""
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
"""For each file the function that returns its text with the present fields."""
