"""A question that many visitors ask is asked once."""

from __future__ import annotations

import asyncio
import threading

import pytest

from bridge_service.web.question import KEPT, Question, Questions
from tests.support.signals import Clock


def test_an_answer_is_kept_for_a_moment() -> None:
    """A visitor that asks again within the moment gets the same answer; later the question is asked anew."""
    clock = Clock()
    answers = iter(range(10))
    question = Question(lambda: next(answers), 2.0, clock)

    async def visit() -> None:
        assert [await question(), await question()] == [0, 0]
        clock.now += 2
        assert [await question(), await question()] == [1, 1]

    asyncio.run(visit())


def test_an_error_is_not_kept() -> None:
    """What the question raises reaches the visitor, and the next visitor asks anew."""
    outcomes: list[list[str]] = [[], ["well"]]
    question = Question(lambda: outcomes.pop(0)[0], 2.0, Clock())

    async def visit() -> None:
        with pytest.raises(IndexError):
            await question()
        assert await question() == "well"

    asyncio.run(visit())


def test_many_visitors_take_one_thread() -> None:
    """A thousand visitors of a question that hangs wait for one answer on one thread."""
    let_go = threading.Event()
    asked: list[str] = []

    def hang() -> str:
        asked.append(threading.current_thread().name)
        let_go.wait()
        return "well"

    question = Question(hang, 2.0)

    async def visit() -> list[str]:
        visitors = [asyncio.ensure_future(question()) for _ in range(1000)]
        await asyncio.sleep(0)
        assert sum(thread.name == "question" for thread in threading.enumerate()) == 1
        visitors.pop().cancel()  # a visitor that hangs up takes the answer from no other
        let_go.set()
        return await asyncio.gather(*visitors)

    assert set(asyncio.run(visit())) == {"well"}
    assert asked == ["question"]


def test_a_question_that_hangs_does_not_hold_the_end() -> None:
    """The server stops while a question is unanswered, and the answer that comes too late is dropped."""
    let_go = threading.Event()
    question = Question(let_go.wait, 2.0)

    async def visit() -> None:
        asyncio.ensure_future(question())  # noqa: RUF006 - it is cancelled with the loop
        await asyncio.sleep(0)

    asyncio.run(visit())
    [thread] = [thread for thread in threading.enumerate() if thread.name == "question"]
    assert thread.daemon
    let_go.set()
    thread.join(5)
    assert not thread.is_alive()


def test_each_key_has_an_answer_of_its_own_and_one_call_runs_at_a_time() -> None:
    """Many visitors of many keys cost one call a key, one after the other, and the oldest keys are forgotten."""
    asked: list[str] = []
    running = threading.Lock()

    def ask(key: str) -> str:
        assert running.acquire(blocking=False)
        asked.append(key)
        running.release()
        return key * 2

    async def visit() -> None:
        questions = Questions(ask, 3600)
        keys = [str(number) for number in range(KEPT)]
        answers = await asyncio.gather(*(questions(key) for key in keys * 3))
        assert answers == [key * 2 for key in keys] * 3
        assert sorted(asked) == sorted(keys)
        await questions("one more")
        await questions(keys[0])
        assert asked[-1] == keys[0]

    asyncio.run(visit())
