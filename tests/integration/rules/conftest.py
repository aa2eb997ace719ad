"""A database for each test of a rule, with the rule or without it."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from tests.support.clock import install_clock
from tests.support.databases import copy, copy_of
from tests.support.rules import Bridge

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bridge_service.demo.servers import PostgresServer


@pytest.fixture(scope="session")
def rules_template(postgres: PostgresServer, bridge_template: str) -> str:
    """Give the name of a template with the app's tables, its people, the bridge and a clock to move."""
    install_clock(copy(postgres, bridge_template, "rules_template"))
    return "rules_template"


@pytest.fixture
def bridge(request: pytest.FixtureRequest, postgres: PostgresServer, rules_template: str) -> Iterator[Bridge]:
    """Give a fresh bridge; one from which `without` took a rule, if the test asks for it."""
    with copy_of(postgres, rules_template) as urls, closing(Bridge(urls, getattr(request, "param", ()))) as bridge:
        yield bridge
