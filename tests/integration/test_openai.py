"""The openai responder against a real HTTP server of the protocol, with every misbehaviour that one may show."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import TYPE_CHECKING, Any

import pytest

from bridge_service.errors import ResponderUnavailable
from bridge_service.responders.openai.answers import ModelFault
from bridge_service.responders.openai.client import ANSWER_BYTES
from bridge_service.responders.openai.prompt import tokens
from bridge_service.responders.openai.replier import Replier
from bridge_service.settings import Settings
from bridge_service.turns import Model, Reply
from tests.support.model_server import (
    ModelServer,
    babbles,
    completion,
    drips,
    echoes_everything,
    floods,
    half_closed,
    held,
    says,
    sends,
    slow,
    status,
)
from tests.unit.test_responders import bot, person, task

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from bridge_service.turns import Task
    from tests.support.model_server import Act

CANARY = "kanarienvogel"
ASKED = replace(
    task(f"salut {CANARY}", history=(person("bonjour"), bot("bonsoir"))), local_time=datetime(2026, 12, 1, tzinfo=UTC)
)
LONG = "Je pars en montagne ce week-end avec des amis, et toi ?"


@pytest.fixture
def server() -> Iterator[ModelServer]:
    """Give a model's server."""
    with ModelServer() as server:
        yield server


@asynccontextmanager
async def replier(server: ModelServer, **environ: str) -> AsyncIterator[Replier]:
    """Give a replier that asks the server, and close its connections."""
    made = Replier.of(
        Settings.from_environ(
            {"RESPONDER": "openai", "OPENAI_MODEL": "first", "OPENAI_BASE_URL": server.url, **environ},
            needs=("openai_model",),
        )
    )
    try:
        yield made
    finally:
        await made.client.close()


def ask(server: ModelServer, asked: Task = ASKED, /, **environ: str) -> str:
    """Return the text of the reply to a task, from a replier with this environment."""
    return "".join(reply_to(server, asked, **environ).parts)


def reply_to(server: ModelServer, asked: Task = ASKED, /, **environ: str) -> Reply:
    """Return the reply to a task, from a replier with this environment."""

    async def once() -> Reply:
        async with replier(server, **environ) as made:
            return await made.reply(asked)

    return asyncio.run(once())


def models(server: ModelServer) -> list[str]:
    """Return which models were asked, in order."""
    return [call.body["model"] for call in server.calls]


# --- The request ---------------------------------------------------------------------------------


def test_one_reply_is_one_request(server: ModelServer) -> None:
    """The model, its bounds and what it is told go to /chat/completions; the text of the answer is the reply."""
    assert ask(server, OPENAI_TEMPERATURE="0.5", OPENAI_MAX_TOKENS="99", OPENAI_API_KEY="sk-1") == "Oui, bien sûr."

    (call,) = server.calls
    assert call.path == "/v1/chat/completions"
    assert call.headers["Authorization"] == "Bearer sk-1"
    assert {name: value for name, value in call.body.items() if name != "messages"} == {
        "model": "first",
        "temperature": 0.5,
        "max_tokens": 99,
    }
    assert call.said_by("user") == ["bonjour", f"salut {CANARY}"]
    assert call.said_by("assistant") == ["bonsoir"]


def test_nothing_is_sent_that_was_not_set(server: ModelServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a key there is no Authorization header, whatever the library's own variables say, and no temperature."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-exported")
    monkeypatch.setenv("OPENAI_ADMIN_KEY", "sk-admin")
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "Authorization: Bearer sk-custom")
    ask(server)

    (call,) = server.calls
    assert "authorization" not in {name.lower() for name in call.headers}
    assert not any("sk-" in value for value in call.headers.values())
    assert set(call.body) == {"model", "messages", "max_tokens"}


def test_a_bot_asks_the_model_that_policy_names(server: ModelServer) -> None:
    """Its name, fallback and bounds come with the task; the environment's rule only if policy names no model."""
    asked = replace(ASKED, model=Model("its own", "its second", None, 7, 4000))
    server.next(status(500))
    ask(server, asked, OPENAI_TEMPERATURE="0.5", OPENAI_FALLBACK_MODEL="second")
    ask(server, replace(ASKED, model=Model(None, "its second")))

    assert models(server) == ["its own", "its second", "first"]
    assert [call.body["max_tokens"] for call in server.calls] == [7, 7, 400]
    assert "temperature" not in server.calls[0].body


def test_no_proxy_sees_what_is_not_encrypted(server: ModelServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy of the environment is passed by for http://."""
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://192.0.2.1:1")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)

    assert ask(server)


def test_the_history_is_bounded_by_tokens(server: ModelServer) -> None:
    """As the server counts them, a call costs the persona, the situation and the group beside OPENAI_HISTORY_TOKENS."""
    history = tuple(person("é" * 1000) for _ in range(50))
    ask(server, task("fin", history=history), OPENAI_HISTORY_TOKENS="3000")

    (call,) = server.calls
    assert 0 < sum(map(tokens, call.said_by("user")[:-1])) <= 3000
    assert server.tokens <= 3000 + sum(map(tokens, call.said_by("system"))) + tokens("fin")


def test_a_redirect_is_not_followed(server: ModelServer) -> None:
    """A server that sends elsewhere is a failed attempt, and nothing arrives there."""
    for code in (301, 302, 303, 307, 308):
        server.next(status(code, {"Location": f"{server.url}/elsewhere"}))
        with pytest.raises(ModelFault, match=f"answers {code}; redirects are not followed"):
            ask(server)

    assert not server.redirected
    assert len(server.calls) == 5


# --- A server that is away -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "act",
    [
        *(status(code) for code in (408, 429, 500, 502, 503, 529)),
        echoes_everything(500),
        floods(10_000_000, 503),
        half_closed(b""),
        half_closed(b'{"choices": [{"message": {"content": "' + CANARY.encode()),
        sends(b'{"error": {"code": 429, "message": "' + CANARY.encode() + b'"}}'),
        babbles(b""),
        babbles(b"SSH-2.0-OpenSSH\r\n"),
    ],
)
def test_a_server_that_is_away_costs_no_attempt(
    server: ModelServer, act: Act, caplog: pytest.LogCaptureFixture
) -> None:
    """Busy, broken, gone in the middle of its answer: asked once, counted never, and no word of it is told."""
    server.does(act)
    with caplog.at_level(logging.DEBUG), pytest.raises(ResponderUnavailable) as caught:
        ask(server)

    assert len(server.calls) == 1
    assert CANARY not in str(caught.value)
    assert CANARY not in "".join(record.getMessage() for record in caplog.records if record.levelno > logging.DEBUG)


def test_no_server_at_all() -> None:
    """A server that refuses the connection, or whose name is unknown, is away."""
    with ModelServer() as gone:
        pass
    for url in (gone.url, "https://models.invalid/v1"):
        with pytest.raises(ResponderUnavailable, match="the connection to the model's server failed"):
            ask(gone, OPENAI_BASE_URL=url)


@pytest.mark.parametrize("act", [slow(30, says("trop tard")), drips(30)])
def test_a_slow_server_is_left_in_time(server: ModelServer, act: Act) -> None:
    """OPENAI_TIMEOUT bounds the whole request, also one whose bytes come one by one; then its connection is closed."""
    server.does(act)
    begun = time.monotonic()
    with pytest.raises(ResponderUnavailable, match=r"did not answer within 0\.5 s"):
        ask(server, OPENAI_TIMEOUT="0.5")

    assert 0.5 <= time.monotonic() - begun < 5
    assert server.calls[0].closed.wait(5)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("4", 4),
        (" 0.5 ", 0.5),
        ("0", 0),
        (None, None),
        ("", None),
        ("-1", None),
        ("nan", None),
        ("inf", None),
        ("1e999", None),
        ("soon", None),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0),
        ("Wed, 99 Oct 2015 07:28:00 GMT", None),
    ],
)
def test_when_the_server_wants_to_be_asked_again(
    server: ModelServer, header: str | None, seconds: float | None
) -> None:
    """Retry-After is heard in seconds and as a date; what makes no sense is no answer."""
    server.does(status(429, {} if header is None else {"Retry-After": header}))
    with pytest.raises(ResponderUnavailable) as caught:
        ask(server)

    assert caught.value.retry_after == seconds


def test_a_date_in_the_future(server: ModelServer) -> None:
    """A server that names a time an hour ahead is asked again in an hour."""
    later = datetime.now(UTC) + timedelta(hours=1)
    server.does(status(503, {"Retry-After": format_datetime(later, usegmt=True)}))
    with pytest.raises(ResponderUnavailable) as caught:
        ask(server)

    assert caught.value.retry_after == pytest.approx(3600, abs=60)


# --- A server that refuses, lies or floods -------------------------------------------------------


@pytest.mark.parametrize("code", [400, 401, 402, 403, 404, 413, 422])
def test_a_refusal_is_a_failed_attempt(server: ModelServer, code: int, caplog: pytest.LogCaptureFixture) -> None:
    """The line says the status and what to do; nothing of the error's body is read, which quotes the whole request."""
    server.does(echoes_everything(code))
    with caplog.at_level(logging.INFO), pytest.raises(ModelFault, match=f"answers {code}; ") as caught:
        ask(server)

    assert len(server.calls) == 1
    assert str(caught.value) in caplog.text
    assert CANARY not in str(caught.value) + caplog.text
    assert "Camille" not in str(caught.value) + caplog.text


def test_a_flood_is_not_read(server: ModelServer) -> None:
    """Of an answer of 100 MB little more than the bound is taken."""
    sent: list[int] = []
    server.does(floods(100_000_000, counted=sent))
    with pytest.raises(ModelFault, match=f"longer than {ANSWER_BYTES} bytes"):
        ask(server)

    server.next(says("encore là"))
    assert ask(server) == "encore là"
    assert sent[0] < 50_000_000  # the rest is what the kernel's buffers hold


def test_a_compressed_answer_is_refused(server: ModelServer) -> None:
    """The request forbids it, and few bytes may unpack to many."""
    server.does(sends(b"\x1f\x8b\x08", {"Content-Encoding": "gzip"}))
    with pytest.raises(ModelFault, match="compresses"):
        ask(server)

    assert server.calls[0].headers["Accept-Encoding"] == "identity"


@pytest.mark.parametrize(
    "act",
    [
        sends(b"\xff\xfe\xfd"),
        sends(b"<html>bad gateway</html>", {"Content-Type": "text/html"}),
        sends(b""),
        status(204, {"Content-Length": "0"}, b""),
        says(None),
        says("", tool_calls=[{"id": "1", "type": "function", "function": {"name": CANARY, "arguments": "{}"}}]),
        says(CANARY, finish="content_filter"),
        says(None, refusal=CANARY),
        sends(b'{"choices": "' + CANARY.encode() + b'", "usage": {"total_tokens": -1}}'),
        lambda handler, call: handler.send(str(call.body).encode()),
    ],
)
def test_what_is_no_reply_never_becomes_one(server: ModelServer, act: Act) -> None:
    """Broken, empty, refused or foreign answers are failed attempts, and their words are told nowhere."""
    server.does(act)
    with pytest.raises(ModelFault) as caught:
        ask(server)

    assert CANARY not in str(caught.value)


@pytest.mark.parametrize("part", [0, 1])
def test_an_echo_of_the_instructions_never_becomes_a_reply(server: ModelServer, part: int) -> None:
    """A model that tells its persona or what it was told of the situation has failed."""
    server.does(lambda handler, call: says("Voici : " + call.said_by("system")[part])(handler, call))
    with pytest.raises(ModelFault, match=r"repeats its instructions|broken JSON"):
        ask(server, task("?", history=(bot("Tu aimes la montagne ?"),)))


@pytest.mark.parametrize("action", ["silence", "leave"])
def test_a_model_may_choose_to_say_nothing(server: ModelServer, action: str) -> None:
    """Our JSON, of which the instructions tell, is read as a Reply."""
    server.says(f'{{"parts": [], "action": "{action}"}}')

    assert reply_to(server) == Reply((), action)  # type: ignore[arg-type]
    assert f'"action": "{action}"' in server.calls[0].said_by("system")[0]


def test_broken_json_is_asked_of_the_fallback(server: ModelServer) -> None:
    """It reaches nobody: the fallback answers, and without one it is a failed attempt."""
    broken = says(f'{{"parts": ["{CANARY}', finish="length")
    server.next(broken, says("oui"), broken)

    assert ask(server, OPENAI_FALLBACK_MODEL="second") == "oui"
    with pytest.raises(ModelFault, match="broken JSON"):
        ask(server)


def test_the_time_may_be_told(server: ModelServer) -> None:
    """A bot that is asked for the time may say the words of the clock."""
    server.does(lambda handler, call: says(call.said_by("system")[1].splitlines()[-1])(handler, call))

    assert ask(server).startswith("It is ")


@pytest.mark.parametrize("usage", [{"total_tokens": -5}, {"prompt_tokens": "x"}, [], "many", {"total_tokens": 10**40}])
def test_lies_about_usage_change_nothing(server: ModelServer, usage: Any) -> None:  # noqa: ANN401 - any JSON
    """What the server says of its tokens has no part in the reply."""
    server.does(says("oui", usage=usage))

    assert ask(server) == "oui"


def test_a_reply_is_as_long_as_was_paid_for(server: ModelServer) -> None:
    """A server that ignores max_tokens does not flood a person."""
    server.says("Une phrase. " * 10_000)

    assert len(ask(server, OPENAI_MAX_TOKENS="10")) <= 80


# --- The fallback --------------------------------------------------------------------------------

FALLBACK = {"OPENAI_FALLBACK_MODEL": "second"}


@pytest.mark.parametrize("first", [status(503), status(400), says(None), half_closed(b"{")])
def test_the_fallback_answers(server: ModelServer, first: Act) -> None:
    """Whatever is wrong with the first model, the second one is asked once, and the same."""
    server.next(first)

    assert ask(server, **FALLBACK) == "Oui, bien sûr."
    assert models(server) == ["first", "second"]
    assert server.calls[0].messages == server.calls[1].messages


def test_the_fallback_rests_while_it_is_not_needed(server: ModelServer) -> None:
    """A model that answers is the only one that is asked."""
    ask(server, **FALLBACK)

    assert models(server) == ["first"]


@pytest.mark.parametrize(
    ("first", "second", "error"),
    [
        (status(429, {"Retry-After": "7"}), status(404), "answers 429"),
        (status(404), status(429, {"Retry-After": "7"}), "answers 429"),
        (status(401), status(404), "answers 401"),
        (status(429, {"Retry-After": "7"}), status(503), "answers 429"),
    ],
)
def test_when_both_fail(server: ModelServer, first: Act, second: Act, error: str) -> None:
    """A turn waits while one of the two is only away; each is asked once."""
    server.next(first, second)
    with pytest.raises((ModelFault, ResponderUnavailable), match=error) as caught:
        ask(server, **FALLBACK)

    assert models(server) == ["first", "second"]
    if isinstance(caught.value, ResponderUnavailable):
        assert caught.value.retry_after == 7


# --- Repetitions ---------------------------------------------------------------------------------

SAID = task("oui", history=(bot(LONG), person("ah"), bot("d'accord")))


def test_a_repetition_is_asked_for_once_more(server: ModelServer) -> None:
    """The second request says why; its answer counts, whatever it is."""
    server.next(says(LONG.replace("toi", "vous")), says("Autre chose."))
    assert ask(server, SAID) == "Autre chose."
    assert "nearly one of your last messages" in server.calls[1].said_by("system")[1]
    assert LONG not in "".join(server.calls[1].said_by("system"))

    server.says(LONG)
    assert ask(server, SAID) == LONG
    assert len(server.calls) == 4


@pytest.mark.parametrize("second", [status(500), status(400), says(None), slow(20, says("trop tard"))])
def test_a_repetition_is_better_than_no_answer(server: ModelServer, second: Act) -> None:
    """A second request that fails leaves the first answer."""
    server.next(says(LONG), second)

    assert ask(server, SAID, OPENAI_TIMEOUT="1") == LONG


def test_what_was_said_long_ago_may_be_said_again(server: ModelServer) -> None:
    """The bot's last five messages count, and the person's never."""
    server.says(LONG)
    history = (bot(LONG), *(bot(f"{number}") for number in range(5)), person(LONG))

    assert ask(server, task("oui", history=history)) == LONG
    assert len(server.calls) == 1


# --- Time ----------------------------------------------------------------------------------------


def test_a_reply_ends_before_the_worker_gives_it_up(server: ModelServer) -> None:
    """All requests of one reply end within nine tenths of RESPONDER_TIMEOUT; two alone would take six seconds here."""
    server.does(slow(30, says("trop tard")))
    begun = time.monotonic()
    with pytest.raises(ResponderUnavailable):
        ask(server, RESPONDER_TIMEOUT="4", OPENAI_TIMEOUT="3", **FALLBACK)

    assert 3 < time.monotonic() - begun < 5
    assert models(server) == ["first", "second"]


def test_a_cancelled_reply_closes_its_request(server: ModelServer) -> None:
    """Within 1.5 s of the cancellation the server sees the connection closed, and may stop to bill."""
    server.does(slow(30, says("trop tard")))

    async def cancel() -> float:
        async with replier(server) as made:
            writing = asyncio.ensure_future(made.reply(ASKED))
            await asyncio.to_thread(server.wait_for_call)
            writing.cancel()
            begun = time.monotonic()
            await asyncio.to_thread(server.calls[0].closed.wait, 10)
            with pytest.raises(asyncio.CancelledError):
                await writing
            return time.monotonic() - begun

    assert asyncio.run(cancel()) < 1.5


def test_many_replies_are_written_at_once(server: ModelServer) -> None:
    """As many as MAX_COMPOSING admits are under way at once: the client itself has no bound."""
    many, may_answer = 120, threading.Event()

    async def ask_all() -> list[Reply]:
        async with replier(server) as made:
            replies = [asyncio.create_task(made.reply(ASKED)) for _ in range(many)]
            await asyncio.to_thread(server.wait_for_call, many)
            may_answer.set()
            return await asyncio.gather(*replies)

    server.does(held(may_answer, says("oui")))
    assert asyncio.run(ask_all()) == [Reply(("oui",))] * many


def test_an_answer_is_understood_as_the_library_understands_it(server: ModelServer) -> None:
    """The local server's answers are of the protocol: the library's own parser reads them."""
    import openai  # noqa: PLC0415 - the library is slow to import

    server.says("oui")

    async def parse() -> str | None:
        async with openai.AsyncOpenAI(api_key="x", base_url=server.url, max_retries=0) as client:
            answer = await client.chat.completions.create(model="m", messages=[{"role": "user", "content": "?"}])
            return answer.choices[0].message.content

    assert asyncio.run(parse()) == "oui"
    assert completion("oui")["choices"][0]["message"]["content"] == "oui"
