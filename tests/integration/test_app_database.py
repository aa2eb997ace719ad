from __future__ import annotations

import threading
from contextlib import closing
from typing import TYPE_CHECKING

import psycopg2
import pytest

from tests.support.waiting import eventually, wait_for_lock_wait

if TYPE_CHECKING:
    import redis

    from tests.support.roles import Urls

CAMILLE = "b0000000-0000-4000-8000-000000000001"
LEA = "a0000000-0000-4000-8000-000000000001"


@pytest.mark.parametrize("turn", [1, 2])
def test_each_test_gets_a_fresh_database(app_database: Urls, turn: int) -> None:
    """The people are there, no message is, and what the other run of this test wrote is not."""
    with closing(psycopg2.connect(app_database.app)) as connection, connection, connection.cursor() as cursor:
        cursor.execute("SELECT array_agg(first_name ORDER BY first_name) FROM profiles WHERE is_bot")
        assert cursor.fetchone() == (["Camille", "Paul"],)
        cursor.execute("INSERT INTO matches (user1_id, user2_id) VALUES (%s, %s) RETURNING id", (LEA, CAMILLE))
        match = cursor.fetchone()
        cursor.execute(
            "INSERT INTO messages (match_id, sender_id, content) VALUES (%s, %s, %s)", (match, LEA, f"salut {turn}")
        )
        cursor.execute("SELECT count(*) FROM messages")
        assert cursor.fetchone() == (1,)


@pytest.mark.parametrize("turn", [1, 2])
def test_each_test_gets_an_empty_redis(redis_client: redis.Redis, turn: int) -> None:
    """What the other run of this test wrote is gone."""
    assert redis_client.keys() == []
    redis_client.set(f"key {turn}", "value")


def test_a_lock_wait_is_seen(app_database: Urls) -> None:
    """`wait_for_lock_wait` returns while the other backend is held up, and fails for one that is not."""
    take = "LOCK TABLE matches IN ACCESS EXCLUSIVE MODE"
    with closing(psycopg2.connect(app_database.app)) as holder, closing(psycopg2.connect(app_database.app)) as waiter:
        with holder.cursor() as cursor:
            cursor.execute(take)
        with pytest.raises(AssertionError, match="does not wait"):
            wait_for_lock_wait(holder, waiter.get_backend_pid(), timeout=0)

        with waiter.cursor() as cursor:
            thread = threading.Thread(target=cursor.execute, args=(take,))
            thread.start()
            wait_for_lock_wait(holder, waiter.get_backend_pid())
            holder.rollback()
            thread.join(timeout=5)
        assert not thread.is_alive()


def test_eventually_gives_the_last_reason() -> None:
    """What never holds fails with the check's own words; what holds at last passes."""
    answers = iter([False, False, True])
    eventually(lambda: next(answers))

    def check() -> None:
        assert answers is None, "still not"

    with pytest.raises(AssertionError, match="still not"):
        eventually(check, timeout=0)
    with pytest.raises(AssertionError, match="did not hold"):
        eventually(lambda: False, timeout=0)
