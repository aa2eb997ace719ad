"""Reads the task that a claim returns; see sql/steps/claim.sql and sql/parts/task.sql."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta, timezone
from typing import Any
from uuid import UUID

from bridge_service.turns import Kind, Line, Model, Task


def task_of(turn_id: int, token: UUID, answer: Mapping[str, Any]) -> Task:
    """Return the task of a claim that was answered `claimed`."""
    return Task(
        turn_id=turn_id,
        kind=Kind(answer["kind"]),
        match_id=answer["match_id"],
        bot_id=answer["bot_id"],
        bot_name=answer["bot_name"] or "",
        person_name=answer["person_name"] or "",
        messages=_lines(answer["messages"]),
        history=_lines(answer["history"]),
        attempts=answer["attempts"],
        merges=answer["merges"],
        refused=answer["refused"] or "",
        claim=token,
        persona=answer["persona"] or "",
        bot_profile=_object(answer["bot_profile"]),
        person_profile=_object(answer["person_profile"]),
        matched_at=_time(answer["matched_at"]),
        local_time=datetime.fromisoformat(answer["local_time"]).replace(
            tzinfo=timezone(timedelta(seconds=answer["utc_offset"]))
        ),
        said=tuple(answer.get("said") or ()),
        withheld=tuple(answer.get("withheld") or ()),
        model=Model(**answer["model"]),
        most_parts=answer.get("most_parts", 1),
    )


def _object(value: object) -> Mapping[str, Any]:
    """Return what an app's `profile` gave, if it is an object: a NULL or a list tells a responder nothing."""
    return value if isinstance(value, dict) else {}


def _lines(rows: Sequence[Mapping[str, Any]]) -> tuple[Line, ...]:
    return tuple(Line(row["message_id"], bool(row["from_bot"]), row["content"], _time(row["sent_at"])) for row in rows)


def _time(text: str | None) -> datetime | None:
    """Read an app's time, which may be any that PostgreSQL holds: infinity, before Christ, the year 294276 (C3)."""
    try:
        return datetime.fromisoformat(text or "")
    except ValueError:
        return None
