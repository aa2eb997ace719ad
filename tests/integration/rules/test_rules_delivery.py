from __future__ import annotations

from typing import TYPE_CHECKING

from tests.support.rules import without

if TYPE_CHECKING:
    from tests.support.rules import Bridge


@without(("newer_turn", "IF v_first IS NULL THEN", "IF true THEN v_first := NULL;"))
def test_D1_a_message_that_nobody_grouped_yet_supersedes_the_reply(bridge: Bridge) -> None:
    """A reply makes way for a newer message that no scheduler has seen, and covers it with its own events."""
    match = bridge.match()
    first = bridge.write(match)
    turn = bridge.typing(match)
    second = bridge.write(match, "encore là ?")

    assert bridge.deliver(turn).name == "superseded"
    [_, waiting] = bridge.turns(match)
    assert bridge.covered(waiting.id) == [first]
    bridge.group()
    assert bridge.covered(waiting.id) == [first, second]
