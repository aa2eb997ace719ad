"""The plans and scripts of a run are a matter of the seed alone, and as they have to be."""

# ruff: noqa: S311 - chance, not secrets

from __future__ import annotations

import random
from itertools import pairwise
from xml.etree import ElementTree as ET

import pytest

from tests.chaos import timeline
from tests.chaos.crew import Exit
from tests.chaos.faults import KINDS, Target
from tests.chaos.nemesis import WARM_UP_SECONDS, Band, Rhythm, plan
from tests.chaos.sabotage import BREAKAGES, Breakage
from tests.chaos.script import Habits, write_script
from tests.support.ledger import Dot
from tests.support.rules import without_them

SEEDS = range(8)
RHYTHM = Rhythm(at_once=4, pause=(1.0, 1.0))


def test_there_are_many_kinds_of_fault() -> None:
    """Each lane has at least three kinds, and every name is its own."""
    assert len(KINDS) >= 25
    for target in Target:
        assert sum(kind.target is target for kind in KINDS.values()) >= 3, target


@pytest.mark.parametrize("seed", SEEDS)
def test_every_kind_comes_once(seed: int) -> None:
    """A plan without an end has each kind once, and no two faults touch the same thing at a time."""
    planned = plan(random.Random(seed), tuple(KINDS), None, RHYTHM)
    assert sorted(fault.kind for fault in planned) == sorted(KINDS)
    for target in Target:
        same = sorted((fault.at, fault.end) for fault in planned if KINDS[fault.kind].target is target)
        assert all(earlier[1] < later[0] for earlier, later in pairwise(same))
    assert all(fault.at >= WARM_UP_SECONDS for fault in planned)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_plan_ends_in_time_and_comes_again(seed: int) -> None:
    """A plan with an end keeps it, and the same seed gives the same plan."""
    plans = [plan(random.Random(seed), tuple(KINDS), 60.0, RHYTHM) for _ in range(2)]
    assert plans[0] == plans[1]
    assert plans[0]
    assert all(fault.end <= 60 for fault in plans[0])


@pytest.mark.parametrize("kinds", [(), ("redis-kill",), ("worker-freeze", "worker-freeze-child")])
def test_small_choices_make_a_plan(kinds: tuple[str, ...]) -> None:
    """No fault, one fault and only long ones of one lane are planned too."""
    planned = plan(random.Random(1), kinds, None, RHYTHM)
    assert sorted(fault.kind for fault in planned) == sorted(kinds)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_script_meets_before_it_writes(seed: int) -> None:
    """A script writes about as much as it should, in order of time, and into matches that are made by then."""
    script = write_script(random.Random(seed), 500, 60.0, Habits())
    assert script == write_script(random.Random(seed), 500, 60.0, Habits())
    assert 500 <= sum(len(act.writes) for act in script) <= 520
    assert all(act.at <= 60 for act in script)
    assert script == sorted(script, key=lambda act: act.at)
    made: set[int] = set()
    for act in script:
        made.update(match.number for match in act.meets)
        assert {match.number for match in act.writes} <= made


def test_a_picture_is_svg() -> None:
    """The picture parses, and shows a rectangle a band and a circle a dot."""
    bands = [Band("redis-kill", Target.REDIS, 1.0, 3.0), Band("worker-freeze", Target.WORKER, 2.0)]
    dots = [Dot(2.0, 0.0, "m"), Dot(2.5, 100.0, "m")]
    picture = timeline.draw("<title> & more", (0.0, 10.0), bands, dots, [Exit("worker.1", 4.0, -9)])
    root = ET.fromstring(picture)  # noqa: S314 - our own
    names = [element.tag.rpartition("}")[2] for element in root.iter()]
    assert names.count("circle") == 2
    assert names.count("rect") == 1 + 2 * len(bands)


@pytest.mark.parametrize("breakage", BREAKAGES, ids=lambda breakage: breakage.name)
def test_a_breakage_fits_the_functions_as_they_are(breakage: Breakage) -> None:
    """What it takes out is there; a kit that breaks nothing would prove nothing, and says so half an hour later."""
    for broken in (False, True):
        without_them(breakage.run(broken=broken).taken)
