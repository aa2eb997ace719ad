"""The variables that are policy: a scheduler writes its own into the row `environment` of `bridge.bots`."""

from collections.abc import Mapping
from typing import Final

from bridge_service.settings.fields import BY_TEST_MODE, Settings

POLICY: Final = (
    "grouping_delay",
    "initiation_delay_min",
    "initiation_delay_max",
    "initiation_probability",
    "thinking_delay_min",
    "thinking_delay_max",
    "typing_speed_cps",
    "max_merges",
    "ignore_older_days",
)
"""The fields that `bridge.bots` has as columns."""


def policy(settings: Settings, environ: Mapping[str, str]) -> dict[str, float]:
    """Return what the environment sets of the policy, by column of `bridge.bots`.

    TEST_MODE sets the fields in BY_TEST_MODE.
    """
    return {
        name: getattr(settings, name)
        for name in POLICY
        if environ.get(name.upper(), "").strip() or (settings.test_mode and name in BY_TEST_MODE)
    }
