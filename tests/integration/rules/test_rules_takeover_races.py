"""Rule H2 under chance: a human's INSERT races with each way in which a reply is delivered.

BRIDGE_TAKEOVERS=2000 makes as many races instead of what `make test` has time for.
"""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from random import Random
from typing import TYPE_CHECKING, Final

from tests.support.rules import CAMILLE, Bridge, without

if TYPE_CHECKING:
    from collections.abc import Callable

RACES: Final = int(os.environ.get("BRIDGE_TAKEOVERS", "45"))
SEED: Final = 22
LONGEST: Final = 0.004
"""Seconds that one of the two sides starts after the other, at most."""

# A delivery has looked, and stays open this long. Without the lock a human's message gets in between.
SLOW_REPLIES: Final = """
    CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(0.002); RETURN NEW; END $$;
    CREATE TRIGGER slow BEFORE INSERT ON messages FOR EACH ROW WHEN (NEW.content = 'coucou') EXECUTE FUNCTION slow()
"""
SAID: Final = "SELECT count(*) FROM messages WHERE match_id = %s AND content = 'coucou'"


@without(("silenced", "FOR UPDATE SKIP LOCKED", "FOR KEY SHARE"))
def test_H2_no_reply_commits_after_a_human_s_message(bridge: Bridge) -> None:
    """What the app finds of our replies once its INSERT has returned is all that there will ever be."""
    chance = Random(SEED)  # noqa: S311 - the same seed makes the same choices
    bridge.impatient()
    bridge.rows(SLOW_REPLIES, connection=bridge.people)
    store = bridge.another_store()
    human = bridge.connect()
    ends: dict[str, int] = {}
    with ThreadPoolExecutor(2) as threads:
        for number in range(RACES):
            match = bridge.match(opener=chance.random() < 0.5)
            bridge.write(match)
            claim = bridge.claimed(match)
            way: Callable[[], object] = partial(store.finish, claim.turn, claim.token, "coucou", pause=0)
            if number % 3:
                bridge.finish(claim)
                bridge.advance(6)
                way = partial(store.deliver, claim.turn) if number % 3 == 1 else partial(store.deliver_due, 16, [])
            late = chance.uniform(-LONGEST, LONGEST)

            def deliver(way: Callable[[], object] = way, late: float = late) -> None:
                time.sleep(max(0.0, late))
                way()

            def write(match: str = match, late: float = late) -> int:
                time.sleep(max(0.0, -late))
                bridge.write(match, "moi", sender=CAMILLE, connection=human)
                return int(bridge.value(SAID, match, connection=human))

            delivery, writing = threads.submit(deliver), threads.submit(write)
            seen = writing.result()
            delivery.result()
            bridge.group()
            turn = bridge.turn(claim.turn)
            assert bridge.value(SAID, match) == seen, f"race {number}: a reply was delivered after the human's message"
            end = turn.reason or turn.state
            ends[end] = ends.get(end, 0) + 1
    assert set(ends) == {"answered", "taken_over"}, ends
