"""What the openai responder pays for: no request without a reservation, and each is settled by what it came to."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast
from uuid import uuid4

import pytest

from bridge_service.errors import DatabaseBusy, DatabaseUnavailable, OverLimit, ResponderUnavailable
from bridge_service.responders.openai.answers import ModelFault
from bridge_service.responders.openai.prompt import tokens
from bridge_service.responders.openai.replier import Replier
from bridge_service.settings import Settings
from bridge_service.telemetry.signals import CallSettled
from bridge_service.worker.budget import StoredBudget
from tests.support.model_server import ModelServer, half_closed, says, slow, status
from tests.support.recorder import Recorder
from tests.support.waiting import eventually
from tests.unit.test_responders import bot, task

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bridge_service.machine.steps import Store
    from bridge_service.responders.budget import Call
    from tests.support.model_server import Act

ASKED = replace(task("salut"), claim=uuid4())
LONG = "Je pars en montagne ce week-end avec des amis, et toi ?"
REPEATED = replace(task("oui", history=(bot(LONG),)), claim=uuid4())
FALLBACK = {"OPENAI_FALLBACK_MODEL": "second"}


class Purse:
    """A store that lets `most` calls be begun, and keeps what it was told."""

    def __init__(self, most: int = 9, error: Exception | None = None) -> None:
        self.most = most
        self.error = error
        self.reserved: list[Call] = []
        self.settled: list[tuple[int, tuple[int, int] | None, str]] = []

    def reserve_call(self, call: Call) -> dict[str, Any]:
        """Reserve."""
        if self.error:
            raise self.error
        if len(self.reserved) >= self.most:
            return {"outcome": "over", "cause": "limit_calls"}
        self.reserved.append(call)
        return {"outcome": "reserved"}

    def settle_call(self, call: Call, spent: tuple[int, int] | None, outcome: str) -> bool:
        """Settle."""
        self.settled.append((call.number, spent, outcome))
        return True


@pytest.fixture
def server() -> Iterator[ModelServer]:
    """Give a model's server."""
    with ModelServer() as server:
        yield server


def ask(server: ModelServer, purse: Purse, asked: Any = ASKED, /, **environ: str) -> str:  # noqa: ANN401
    """Return the reply to a task that is paid from a purse; one under GIVE_UP is given up once the server was asked."""
    told = Recorder()

    async def once() -> str:
        made = Replier.of(
            Settings.from_environ(
                {"RESPONDER": "openai", "OPENAI_MODEL": "first", "OPENAI_BASE_URL": server.url, **environ},
                needs=("openai_model",),
            ),
            StoredBudget(cast("Store", purse), told),
        )
        writing = asyncio.ensure_future(made.reply(asked))
        try:
            if "GIVE_UP" in environ:
                await asyncio.to_thread(server.wait_for_call)
                writing.cancel()
            return await writing
        finally:
            await made.client.close()

    try:
        return asyncio.run(once())
    finally:
        eventually(lambda: len(told.of(CallSettled)) == len(purse.settled))


def settled(purse: Purse, count: int) -> list[tuple[int, tuple[int, int] | None, str]]:
    """Return what was settled, in the order of the calls, as soon as it is so much."""
    eventually(lambda: len(purse.settled) == count)
    return sorted(purse.settled, key=lambda each: each[0])


def test_a_request_is_reserved_before_and_settled_after(server: ModelServer) -> None:
    """Reserved is all that the model is told and OPENAI_MAX_TOKENS, settled what the text came to."""
    purse = Purse()
    server.says("Oui.")
    ask(server, purse, OPENAI_MAX_TOKENS="99")

    [call] = purse.reserved
    told = sum(tokens(each["content"]) for each in server.calls[0].messages)
    assert (call.claim, call.number, call.model, call.tokens_in, call.tokens_out) == (ASKED.claim, 1, "first", told, 99)
    [(number, spent, outcome)] = settled(purse, 1)
    assert (number, outcome) == (1, "answered")
    assert spent is not None
    assert spent[0] == told
    assert tokens("Oui.") <= spent[1] <= 99


@pytest.mark.parametrize(
    ("usage", "most"),
    [
        ({"prompt_tokens": 5000, "completion_tokens": 700}, (5000, 700)),
        ({"prompt_tokens": -5000, "completion_tokens": "700"}, None),
        ({"prompt_tokens": 10**40, "completion_tokens": True}, (10**9, None)),
        ("many", None),
        ([], None),
    ],
)
def test_the_larger_count_is_settled(server: ModelServer, usage: Any, most: Any) -> None:  # noqa: ANN401 - any JSON
    """A server that claims less than was told, or nonsense, makes no call cheaper; one that claims more is believed."""
    purse = Purse()
    server.does(says("oui", usage=usage))
    ask(server, purse)

    [(_, spent, _)] = settled(purse, 1)
    assert spent is not None
    for got, own, said in zip(spent, (purse.reserved[0].tokens_in, tokens("oui")), most or (None, None), strict=True):
        assert got == said if said is not None else got >= own


@pytest.mark.parametrize("act", [status(429), status(503), status(400)])
def test_a_refused_request_costs_no_tokens(server: ModelServer, act: Act) -> None:
    """It counts as a call all the same, and so does the fallback."""
    purse = Purse()
    server.does(act)
    with pytest.raises((ResponderUnavailable, ModelFault)):
        ask(server, purse, **FALLBACK)

    assert [call.number for call in purse.reserved] == [1, 2]
    assert settled(purse, 2) == [(1, (0, 0), "refused"), (2, (0, 0), "refused")]


@pytest.mark.parametrize("act", [status(502), status(504), half_closed(b"{"), slow(30, says("trop tard"))])
def test_a_request_of_unknown_cost_keeps_its_reservation(server: ModelServer, act: Act) -> None:
    """Broken off, too slow, or lost behind a gateway: the model may have written all of it."""
    purse = Purse()
    server.does(act)
    with pytest.raises(ResponderUnavailable):
        ask(server, purse, OPENAI_TIMEOUT="0.5")

    assert len(purse.reserved) == 1
    assert not purse.settled


def test_a_useless_answer_is_paid(server: ModelServer) -> None:
    """A model that wrote nothing of use has cost what it was told."""
    purse = Purse()
    server.does(says(None))
    with pytest.raises(ModelFault):
        ask(server, purse)

    [(_, spent, outcome)] = settled(purse, 1)
    assert spent is not None
    assert (spent[0], outcome) == (purse.reserved[0].tokens_in, "answered")


def test_a_cancelled_request_keeps_its_reservation(server: ModelServer) -> None:
    """It is known as cancelled, for the report."""
    purse = Purse()
    server.does(slow(30, says("trop tard")))
    with pytest.raises(asyncio.CancelledError):
        ask(server, purse, GIVE_UP="1")

    assert settled(purse, 1) == [(1, None, "cancelled")]


def test_over_the_limit_no_request_is_made(server: ModelServer) -> None:
    """Neither the first one, nor the fallback's; a second one to replace a repetition is done without."""
    with pytest.raises(OverLimit, match="limit_calls"):
        ask(server, Purse(0))
    assert not server.calls

    server.next(status(503))
    with pytest.raises(OverLimit):
        ask(server, Purse(1), **FALLBACK)
    assert len(server.calls) == 1

    server.says(LONG)
    assert ask(server, Purse(1), REPEATED) == LONG
    assert len(server.calls) == 2


@pytest.mark.parametrize("error", [DatabaseUnavailable("away"), DatabaseBusy("locked")])
def test_without_postgresql_no_request_is_made(server: ModelServer, error: Exception) -> None:
    """It fails closed: the turn waits as for a model that is away, and no attempt is counted."""
    with pytest.raises(ResponderUnavailable):
        ask(server, Purse(error=error), **FALLBACK)

    assert not server.calls
