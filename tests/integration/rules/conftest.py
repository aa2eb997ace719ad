"""A database for each test of a rule, with the rule or without it."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from bridge_service.migrate import migrate
from tests.conftest import DEMO_FOLDER
from tests.support.clock import install_clock
from tests.support.databases import copy_of, make_template
from tests.support.rules import Bridge

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bridge_service.demo.servers import PostgresServer


@pytest.fixture(scope="session")
def rules_template(postgres: PostgresServer) -> str:
    """Give the name of a template with the app's tables, its people, the bridge and a clock to move."""
    url = make_template(postgres, "rules_template", DEMO_FOLDER / "app.sql", DEMO_FOLDER / "people.sql")
    migrate(url)
    install_clock(url)
    return "rules_template"


@pytest.fixture
def bridge(request: pytest.FixtureRequest, postgres: PostgresServer, rules_template: str) -> Iterator[Bridge]:
    """Give a fresh bridge; one from which `without` took a rule, if the test asks for it."""
    with copy_of(postgres, rules_template) as url, closing(Bridge(url, getattr(request, "param", ()))) as bridge:
        yield bridge
