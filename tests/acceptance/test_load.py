"""Many conversations at once on the real processes: the promises hold for every message."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from tests.acceptance.load import ENVIRONMENT, Load, run

if TYPE_CHECKING:
    from tests.support.roles import Urls
    from tests.support.service import Service

SHORT = Load(rate=100, seconds=6, conversations=100, seed=2)


@pytest.mark.slow
@pytest.mark.parametrize(
    "load",
    [
        pytest.param(SHORT, id="one of each"),
        pytest.param(replace(SHORT, seconds=4, waiting=500), id="500 messages waiting"),
        pytest.param(replace(SHORT, seconds=4, schedulers=2), id="two schedulers"),
        pytest.param(replace(SHORT, seconds=4, workers=2), id="two workers"),
    ],
)
def test_every_message_is_answered_once_in_order_and_in_time(
    service: Service, bridge_database: Urls, load: Load
) -> None:
    """Bursts over a hundred conversations, late commits, rollbacks and first words among them, break no promise."""
    service.environment.update(ENVIRONMENT)

    ledger = run(load, service, bridge_database)

    assert ledger.faults == 0, ledger
    assert ledger.sent > load.waiting + 300
    # Where a crowd already waits, its messages may come before every opener.
    assert ledger.openers > 0 or load.waiting
    assert service.lines(" (ERROR|CRITICAL) ") == []
