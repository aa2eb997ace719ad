"""A conversation's story as a timeline: what happened to each message and turn, in order; ids and times, no text."""

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any, Final, NamedTuple

from bridge_service.web.page import why

_ENDS: Final = {"answered": "good", "cancelled": "soft", "dead": "bad"}


class Step(NamedTuple):
    """A line of the timeline.

    Attributes:
      at: None of what is still to come.
      what: the name of a sentence of words.json, and what fills its blanks.
      css: a class of the stylesheet.
      why: see page.why.
    """

    at: datetime | None
    what: tuple[str, Mapping[str, object]]
    css: str = ""
    why: tuple[str, str] | None = None


def timeline(story: Mapping[str, Any]) -> list[Step]:
    """Return the steps of what story.sql returns, oldest first, and then what is still to come."""
    steps = [step for event in story["events"] for step in _of_event(event)]
    steps += [step for turn in story["turns"] for step in _of_turn(turn)]
    return sorted(steps, key=lambda step: (step.at is None, step.at and step.at.timestamp()))


def _of_event(event: Mapping[str, Any]) -> Iterator[Step]:
    name = "story_set_aside" if event["set_aside"] else f"story_{event['kind']}"
    css = "bad" if event["set_aside"] else ""
    yield Step(_time(event["captured_at"]), (name, {"message": event["message_id"]}), css)


def _of_turn(turn: Mapping[str, Any]) -> Iterator[Step]:
    blanks = {**turn, "due": f"{moment:%H:%M:%S}" if (moment := _time(turn["due_at"])) else ""}
    yield Step(_time(turn["opened_at"]), (f"story_opened_{turn['kind']}", blanks), "soft")
    if turn["queued_at"]:
        yield Step(_time(turn["queued_at"]), ("story_pushed", blanks))
    if turn["claimed_at"]:
        yield Step(_time(turn["claimed_at"]), ("story_claimed", blanks), "busy")
    if turn["attempts"] + turn["takeovers"] and turn["state"] != "dead":
        yield Step(_time(turn["claimed_at"] or turn["opened_at"]), ("story_failed", blanks), "warn")
    if turn["ended_at"]:
        yield Step(_time(turn["ended_at"]), (f"story_{turn['state']}", blanks), _ENDS[turn["state"]], why(turn))
    else:
        yield Step(None, ("story_waits", blanks), "busy", why(turn))


def _time(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)
