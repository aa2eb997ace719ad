"""What a row of `bridge.turns` or `bridge.events` may be, whatever wrote it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import psycopg2
import pytest

from tests.support.roles import ADMIN
from tests.support.rules import without

if TYPE_CHECKING:
    from tests.support.rules import Bridge

_ROWS: Final = {
    "open": "due_at = now(), ended_at = NULL, draft = NULL",
    "queued": "due_at = now(), ended_at = NULL, draft = NULL",
    "composing": "due_at = now(), ended_at = NULL, draft = NULL",
    "typing": "due_at = now(), ended_at = NULL, draft = '-', deliver_at = now(), reply_message_id = gen_random_uuid()",
    "answered": "due_at = NULL, ended_at = now(), draft = NULL, answered_at = now()",
    "cancelled": "due_at = NULL, ended_at = now(), draft = NULL, reason = 'gone'",
    "dead": "due_at = NULL, ended_at = now(), draft = NULL, last_error = 'ValueError'",
}
"""A sound turn in each state, each made of the one before."""
_SET: Final = "UPDATE bridge.turns SET {} WHERE id = %s"
_BROKEN: Final = [
    ("open", "kind = 'story'", "turns_kind"),
    ("open", "action = 'shout'", "turns_action"),
    ("open", "due_at = NULL", "turns_due_at"),
    ("open", "parts_out = 1", "turns_parts_out"),
    ("open", "kind = 'follow_up'", "turns_follows"),
    ("open", "follows = 1", "turns_follows"),
    ("queued", "parts = 2, kind = 'initiation'", "turns_parts"),
    ("queued", "retry_at = now() + interval '1 day'", "turns_no_push_before_retry"),
    ("queued", "ended_at = now()", "turns_ended_at"),
    ("composing", "draft = 'oui'", "turns_draft"),
    ("typing", "draft = NULL", "turns_draft"),
    ("typing", "deliver_at = NULL", "turns_typing"),
    ("typing", "reply_message_id = NULL", "turns_typing"),
    ("answered", "due_at = now()", "turns_due_at"),
    ("answered", "ended_at = NULL", "turns_ended_at"),
    ("answered", "draft = 'oui'", "turns_draft"),
    ("answered", "answered_at = NULL", "turns_state"),
    ("answered", "reply_message_id = NULL", "turns_state"),
    ("cancelled", "reason = NULL", "turns_state"),
    ("cancelled", "parts_out = 1", "turns_parts_out"),
    ("dead", "last_error = NULL", "turns_state"),
    ("dead", "state = 'asleep'", "turns_state"),
]


@without(("turn_is_sound", "IF v_broken IS NULL THEN", "IF true THEN"))
def test_a_turn_that_breaks_a_rule_is_not_stored_and_the_error_names_the_rule(bridge: Bridge) -> None:
    """A sound turn of each state is stored. Each change that breaks one rule is refused with that rule's name."""
    match = bridge.match()
    bridge.write(match)
    turn = bridge.pushed(match)
    admin = bridge.session(ADMIN)
    admin.autocommit = True
    for state, row in _ROWS.items():
        bridge.rows(_SET.format(f"state = '{state}', {row}"), turn, connection=admin)
        for broken_state, change, rule in _BROKEN:
            if broken_state == state:
                with pytest.raises(psycopg2.errors.CheckViolation) as refused:
                    bridge.rows(_SET.format(change), turn, connection=admin)
                assert refused.value.diag.constraint_name == rule, change
    silence = _ROWS["answered"] + ", reply_message_id = NULL, reason = 'silence'"
    bridge.rows(_SET.format(f"state = 'answered', {silence}"), turn, connection=admin)


@without(("event_is_sound", "RETURN CASE", "RETURN true OR CASE"))
def test_an_event_of_no_known_kind_or_without_its_message_is_not_stored(bridge: Bridge) -> None:
    """An event of kind `message` names a message, one of kind `match` names none, and there is no other kind."""
    match = bridge.match()
    bridge.write(match)
    for change in ("kind = 'story'", "message_id = NULL", "kind = 'match'"):
        with pytest.raises(psycopg2.errors.CheckViolation) as refused:
            bridge.rows(f"UPDATE bridge.events SET {change} WHERE kind = 'message'")  # noqa: S608
        assert refused.value.diag.constraint_name == "events_sound", change
