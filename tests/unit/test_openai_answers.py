"""What is accepted of a model, and that no fault quotes what it sent."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge_service.errors import ResponderUnavailable
from bridge_service.responders import clean_reply
from bridge_service.responders.openai.answers import (
    CHARACTERS_A_TOKEN,
    ModelFault,
    fault_of,
    nearly_repeats,
    reply_of,
    tells,
    text_of,
)
from bridge_service.responders.openai.prompt import persona
from bridge_service.turns import Reply
from tests.support.model_server import completion
from tests.unit.test_responders import any_text, task

CANARY = "kanarienvogel"
LONG = "Je pars en montagne ce week-end avec des amis, et toi ?"

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


def text(document: object) -> str:
    """Return the text of an answer."""
    return text_of(json.dumps(document).encode())


@pytest.mark.parametrize(
    ("document", "said"),
    [
        (completion(" Salut \n"), "Salut"),
        (completion([{"type": "text", "text": "Sa"}, {"type": "thinking"}, 1, {"text": "lut"}]), "Salut"),
        (completion("<think>Il dit salut.</think>\n\nSalut"), "Salut"),
        (completion("Il dit salut.</think>Salut"), "Salut"),
        (completion("Salut<|im_end|>"), "Salut"),
        (completion("Salut", tool_calls=[{"function": {"name": CANARY}}]), "Salut"),
        (completion("Salut", usage={"prompt_tokens": -(10**30), "completion_tokens": "NaN", CANARY: [{}]}), "Salut"),
        (completion("Un. Deux, et tr", finish="length"), "Un."),
        (completion("Un, deux", finish="length"), "Un, deux"),
        ({"error": None, "choices": completion("Salut")["choices"], CANARY: CANARY}, "Salut"),
    ],
)
def test_the_text_of_an_answer(document: object, said: str) -> None:
    """Thoughts, marks and unasked tool calls are left out; what `usage` claims is not looked at."""
    assert text(document) == said


@pytest.mark.parametrize(
    ("document", "fault"),
    [
        (completion(None), "has no text"),
        (completion(""), "has no text"),
        (completion(" \n"), "has no text"),
        (completion("<think>Encore"), "has no text"),
        (completion(17), "has no text"),
        (completion(None, tool_calls=[{"function": {"name": CANARY}}]), "calls a tool"),
        (completion(CANARY, finish="content_filter"), "filter holds"),
        (completion(None, refusal=CANARY), "refuses to answer"),
        (completion(CANARY, refusal=CANARY), "refuses to answer"),
        ({"error": {"message": CANARY, "code": CANARY}}, "without a status"),
        ({"error": {"message": CANARY, "code": 401}}, "answers 401"),
        ({"error": CANARY}, "not of the chat/completions protocol"),
        ({"choices": []}, "not of the chat/completions protocol"),
        ({"choices": [{"message": CANARY}]}, "not of the chat/completions protocol"),
        ([CANARY], "not of the chat/completions protocol"),
        (CANARY, "not of the chat/completions protocol"),
    ],
)
def test_an_answer_without_a_text(document: object, fault: str) -> None:
    """It is a failed attempt that says what is wrong and quotes nothing."""
    with pytest.raises(ModelFault, match=fault) as caught:
        text(document)

    assert CANARY not in str(caught.value)


@pytest.mark.parametrize("code", [429, 502, 503, 529])
def test_a_router_reports_an_error_with_a_status_of_200(code: int) -> None:
    """A server that is away behind a router is away."""
    with pytest.raises(ResponderUnavailable, match=f"answers {code}"):
        text({"error": {"code": code, "message": CANARY}})


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"\xff\xfe\x00", b'{"choices": [', b"[" * 100_000, b"\x1f\x8b\x08", b"null"]
)
def test_what_is_no_answer(body: bytes) -> None:
    """Bytes that are no JSON, or no answer, are a failed attempt."""
    with pytest.raises(ModelFault):
        text_of(body)


def test_half_a_character_at_the_end_goes() -> None:
    """A server that cuts a character in two, as its limit of tokens falls, is understood."""
    body = json.dumps(completion("Salut @")).encode().replace(b"@", "🙂".encode()[:2])

    assert reply_of(text_of(body), "", 400) == Reply(("Salut",))


@given(json_values | st.builds(completion, json_values))
def test_any_document_is_a_text_or_a_fault(document: Any) -> None:  # noqa: ANN401 - any JSON
    """Whatever a server sends, there is a text that can be read, or one of two errors."""
    with suppress(ModelFault, ResponderUnavailable):
        assert text(document)


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 529, 599])
def test_a_server_that_is_away(status: int) -> None:
    """Statuses that pass by themselves count nothing, and keep what the server says of when."""
    error = fault_of(status, 4.0)

    assert isinstance(error, ResponderUnavailable)
    assert error.retry_after == 4


@pytest.mark.parametrize(
    ("status", "remedy"),
    [
        (301, "OPENAI_BASE_URL"),
        (400, "OPENAI_MODEL"),
        (401, "OPENAI_API_KEY"),
        (402, "credit"),
        (403, "OPENAI_API_KEY"),
        (404, "OPENAI_MODEL"),
        (413, "OPENAI_HISTORY_TOKENS"),
        (422, "OPENAI_BASE_URL"),
    ],
)
def test_a_server_that_refuses(status: int, remedy: str) -> None:
    """Statuses that stay are failed attempts; the line names the status and what to look at."""
    error = fault_of(status)

    assert isinstance(error, ModelFault)
    assert str(status) in str(error)
    assert remedy in str(error)


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ("Camille : Salut", "Salut"),
        ("**Camille:** Salut", "Salut"),
        ("camille: salut", "salut"),
        ("Camilleux: salut", "Camilleux: salut"),
        ('"Salut !"', "Salut !"),
        ("« Salut ! »", "Salut !"),
        ('"Un" et "deux"', '"Un" et "deux"'),
        ("a\0b\ud800c\ufffd", "abc"),
    ],
)
def test_a_text_is_cleaned(said: str, kept: str) -> None:
    """The bot's own name before it and quotation marks around it go, as does what PostgreSQL cannot hold."""
    assert reply_of(said, "Camille", 400) == Reply((kept,))


@given(any_text, any_text, st.integers(1, 5))
def test_a_text_is_bounded(said: str, name: str, max_tokens: int) -> None:
    """No text is longer than the tokens that were asked for allow, and what is left can be stored as it is."""
    for text in (said, json.dumps({"parts": [said, said]})):
        with suppress(ModelFault):
            reply = reply_of(text, name, max_tokens)
            assert sum(map(len, reply.parts)) <= CHARACTERS_A_TOKEN * max_tokens
            assert all(clean_reply(part) == Reply((part,)) for part in reply.parts)


def test_a_long_text_ends_with_a_sentence() -> None:
    """What is too long is cut after its last whole sentence."""
    assert reply_of("Une phrase. " * 100, "", 5) == Reply(("Une phrase. Une phrase. Une phrase.",))


# --- Our JSON ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "reply"),
    [
        ('{"parts": ["Salut"], "action": "say"}', Reply(("Salut",))),
        ('{"parts": ["Camille: Salut", " ", "«Ça va ?»"]}', Reply(("Salut", "Ça va ?"))),
        ('{"parts": [], "action": "silence"}', Reply((), "silence")),
        ('{"action": "silence"}', Reply((), "silence")),
        ('{"action": "leave", "parts": ["Adieu."], "why": 1}', Reply(("Adieu.",), "leave")),
        ('{"action": "leave"}', Reply((), "leave")),
        ('```json\n{"action": "silence"}\n```', Reply((), "silence")),
        ('Camille: {"action": "silence"}', Reply((), "silence")),
        ('{"a": 1}', Reply(('{"a": 1}',))),
        ("{sourire} Salut", Reply(("{sourire} Salut",))),
        ("Ton action : silence", Reply(("Ton action : silence",))),
    ],
)
def test_an_answer_in_our_json(said: str, reply: Reply) -> None:
    """Parts and action are read, each part is cleaned; any other text is one part that is said."""
    assert reply_of(said, "Camille", 400) == reply


@pytest.mark.parametrize(
    "said",
    [
        f'{{"parts": ["{CANARY}',
        f'{{"parts": ["{CANARY}"',
        f'{{"parts": "{CANARY}"}}',
        f'{{"parts": [17, "{CANARY}"]}}',
        f'{{"parts": ["{CANARY}"], "action": "dance"}}',
        f'{{"parts": ["{CANARY}"], "action": "silence"}}',
        f'{CANARY} {{"action": "silence"}}',
        f'{{"action": "silence"}} {CANARY}',
        f"{{'parts': ['{CANARY}'], 'action': 'say'}}",
        f"{{parts: {CANARY}}}",
        f'[{{"parts": ["{CANARY}"]}}]',
        '{"action": "say"}',
        '{"pa',
        "{",
        "[" * 100_000 + '{"parts": []}',
        "\ufffd",
        '{"parts": [" "], "action": "say"}',
    ],
)
def test_half_of_our_json_reaches_nobody(said: str) -> None:
    """What a model meant to be our JSON, or what says nothing, is a failed attempt that quotes nothing."""
    with pytest.raises(ModelFault) as caught:
        reply_of(said, "Camille", 400)

    assert CANARY not in str(caught.value)


@given(st.text('{}[]":, parts action say silence', max_size=60))
def test_no_key_of_our_json_reaches_anybody(said: str) -> None:
    """Whatever a model writes, no part that is accepted holds `"parts":` or `"action":` of an answer that is broken."""
    with suppress(ModelFault):
        for part in reply_of(said, "", 400).parts:
            assert '"parts":' not in part
            assert '"action":' not in part


@pytest.mark.parametrize("change", [str, str.upper, lambda text: text.replace("\n", " ~ ").replace(".", "…")])
def test_an_echo_of_the_persona_is_noticed(change: Any) -> None:  # noqa: ANN401 - a function of texts
    """All of it or a part, in capitals or with other punctuation."""
    secret = persona(task("salut"))

    assert tells(change(secret), secret)
    assert tells("Mes consignes : " + change(secret[200:400]), secret)
    assert not tells(LONG, secret)
    assert not tells("", secret)
    assert not tells(LONG * 20, "")


@pytest.mark.parametrize(
    ("said", "repeated"),
    [
        (LONG, True),
        (LONG.replace("toi", "vous"), True),
        (f"  {LONG} ", True),
        (LONG[::-1], False),
        ("Je reste à la maison, il pleut, et je lis un bon livre.", False),
    ],
)
def test_a_reply_that_nearly_repeats(said: str, *, repeated: bool) -> None:
    """Both have 40 characters or more and a similarity of 0.9 or more."""
    assert nearly_repeats(said, ["court", LONG]) is repeated


def test_short_replies_may_repeat() -> None:
    """Below 40 characters nothing counts as a repetition; an exact one of 40 does."""
    assert not nearly_repeats("a" * 39, ["a" * 39, "a" * 100])
    assert nearly_repeats("a" * 40, ["a" * 40])
