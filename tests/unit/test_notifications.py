from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID, uuid4

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bridge_service.errors import BadMessage
from bridge_service.telemetry.signals import NotificationReceived
from schedulers.notifications import MATCH_CHANNEL, MESSAGE_CHANNEL, parse

if TYPE_CHECKING:
    from collections.abc import Mapping

MESSAGE: Final[Mapping[str, str]] = {
    "match_id": "de31323b-fb0b-4ac0-aa5a-e5b3299a5567",
    "bot_id": "b0000000-0000-4000-8000-000000000001",
    "sender_id": "a0000000-0000-4000-8000-000000000001",
    "message_id": "c0000000-0000-4000-8000-000000000001",
    "created_at": "2026-11-25T00:00:00+00:00",
}
MATCH: Final[Mapping[str, str]] = {
    "id": "de31323b-fb0b-4ac0-aa5a-e5b3299a5567",
    "user1_id": "a0000000-0000-4000-8000-000000000001",
    "user2_id": "b0000000-0000-4000-8000-000000000001",
    "created_at": "2026-11-25T00:00:00+00:00",
}
PLAIN: Final = {MESSAGE_CHANNEL: MESSAGE, MATCH_CHANNEL: MATCH}

CHANNELS = st.sampled_from([MESSAGE_CHANNEL, MATCH_CHANNEL])
JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
ALMOST_IDS = st.one_of(st.uuids().map(str), st.text("0123456789abcdef-{}ur:i \n\t_xAF", max_size=40), JUNK)
FIELDS = sorted({*MESSAGE, *MATCH, "message_content", "extra"})
PAYLOADS = st.one_of(
    st.text(), JUNK.map(json.dumps), st.dictionaries(st.sampled_from(FIELDS), ALMOST_IDS).map(json.dumps)
)
REASONS = {
    "the payload is not JSON",
    "the payload is not a JSON object",
    *(f"`{name}` is not a uuid" for name in FIELDS),
}


def test_the_contract_s_message_is_understood() -> None:
    """A notification of `bot_events` names its conversation and its message; the rest is kept for the log."""
    notification = parse(MESSAGE_CHANNEL, json.dumps({**MESSAGE, "message_content": "salut", "more": [1]}))
    assert notification.channel == MESSAGE_CHANNEL
    assert notification.match_id == MESSAGE["match_id"]
    assert notification.message_id == MESSAGE["message_id"]
    assert notification.payload["more"] == [1]


def test_the_contract_s_match_is_understood() -> None:
    """A notification of `new_match` names its conversation, and no message."""
    notification = parse(MATCH_CHANNEL, json.dumps(MATCH))
    assert (notification.match_id, notification.message_id) == (MATCH["id"], None)


@pytest.mark.parametrize(
    "payload",
    [
        "",
        "salut",
        "null",
        "7",
        '"text"',
        "[]",
        "[" * 100_000,
        "{",
        "{}",
        '{"match_id": ' + "1" * 5000 + "}",
        "\x00",
        "\ud800",
        "NaN",
        '{"match_id": "de31323b-fb0b-4ac0-aa5a-e5b3299a5567"}',
    ],
    ids=lambda payload: repr(payload[:20]),
)
@pytest.mark.parametrize("channel", [MESSAGE_CHANNEL, MATCH_CHANNEL])
def test_a_malformed_payload_is_refused(channel: str, payload: str) -> None:
    """What is no JSON object with the ids is a BadMessage, and nothing worse."""
    with pytest.raises(BadMessage):
        parse(channel, payload)


@pytest.mark.parametrize(
    "value",
    [
        None,
        7,
        True,
        [],
        "",
        "not a uuid",
        "de31323bfb0b4ac0aa5ae5b3299a5567",
        "{de31323b-fb0b-4ac0-aa5a-e5b3299a5567}",
        "urn:uuid:de31323b-fb0b-4ac0-aa5a-e5b3299a5567",
        "----de31323bfb0b4ac0aa5ae5b3299a5567",
        "de31323b-fb0b-4ac0-aa5a-e5b3299a5567\n",
        "\n\n\n\nde31323b-fb0b-4ac0aa5a-e5b3299a5",
        "de31323b-fb0b-4ac0-aa5a-e5b3299a556g",
        "de31323b-fb0b-4ac0-aa5a-e5b3299a_567",
        "１2345678-1234-1234-1234-123456789012",
        "de31323b-fb0b-4ac0-aa5a-e5b3299a5567" * 2,
    ],
)
@pytest.mark.parametrize("name", ["match_id", "bot_id", "sender_id", "message_id"])
def test_what_is_no_plain_uuid_is_refused(name: str, value: object) -> None:
    """Each id has to be a uuid in its usual form: the forms that only Python takes would reach SQL or the log."""
    with pytest.raises(BadMessage, match=f"`{name}` is not a uuid"):
        parse(MESSAGE_CHANNEL, json.dumps({**MESSAGE, name: value}))


@given(CHANNELS, PAYLOADS)
@example(MATCH_CHANNEL, json.dumps({**MATCH, "id": "----de31323bfb0b4ac0aa5ae5b3299a5567"}))
def test_any_payload_is_understood_or_refused(channel: str, payload: str) -> None:
    """Whatever is sent, either the ids are uuids as PostgreSQL writes them, or the refusal quotes nothing."""
    try:
        notification = parse(channel, payload)
    except BadMessage as error:
        reason = str(error)
    else:
        reason = ""
        for value in (notification.match_id, notification.message_id):
            assert value is None or str(UUID(value)) == value.lower()
    assert reason in {"", *REASONS}


@given(CHANNELS, st.dictionaries(st.text(), JUNK, max_size=5))
def test_what_is_added_changes_nothing(channel: str, extra: dict[str, Any]) -> None:
    """Any further fields are let pass, and the event for the log can be made of all that was understood."""
    payload = {**extra, **PLAIN[channel]}
    notification = parse(channel, json.dumps(payload))
    assert notification.match_id == PLAIN[channel].get("match_id", PLAIN[channel].get("id"))
    event = NotificationReceived(1, channel, notification.payload, notification.match_id)
    assert json.dumps(event.payload)


def test_capital_letters_are_the_same_id() -> None:
    """PostgreSQL takes them, so they are taken."""
    match = str(uuid4()).upper()
    assert parse(MATCH_CHANNEL, json.dumps({**MATCH, "id": match})).match_id == match
