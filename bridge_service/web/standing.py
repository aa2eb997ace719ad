"""What the console's pages say of whether a bot or a conversation is answered now, and of what was said there."""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from bridge_service.web.page import moment

SPANS: Final = ("3600", "28800", "86400", "")
"""Seconds of a pause that a page offers; the last one lasts until it is resumed."""

Phrases = list[tuple[str, Mapping[str, object]]]
"""Parts of one sentence: each the name of a phrase of words.json, and what fills its blanks."""


def of_bot(standing: Mapping[str, Any] | None, at: float) -> list[Phrases]:
    """Say whether a bot answers at `at`, in seconds since the epoch; see bots_standing.sql. None: there is no bot."""
    if standing is None:
        return []
    return list(_why_not(standing, at)) or [[("bot_awake", {})]]


def of_conversation(story: Mapping[str, Any], at: float) -> list[tuple[str, list[Phrases]]]:
    """Return the facts of a conversation, each with its name and its sentences; see standing.sql.

    A fact without a sentence is left out.
    """
    standing, disclosure, distress = story["standing"], story["disclosure"], story["distress"]
    state: Phrases = [(f"now_{standing['state'] if standing else 'gone'}", {})]
    if standing and standing["answers_at"]:
        state.append(("now_next", {"at": _shown(standing["answers_at"], at)}))
    facts: list[tuple[str, list[Phrases]]] = [
        ("state", [state]),
        ("pause", [_pause(pause, at) for pause in story["pauses"]]),
    ]
    if disclosure:
        blanks = {"at": _shown(disclosure["said_at"], at), "version": disclosure["version"][:12]}
        facts.append(("disclosure", [[("disclosed", blanks)]]))
    if distress:
        blanks = {name: _shown(distress[f"{name}_at"], at) for name in ("first", "last")}
        facts.append(("distress", [[("distressed", blanks)]]))
    return [(name, sentences) for name, sentences in facts if sentences]


def _why_not(standing: Mapping[str, Any], at: float) -> Iterator[Phrases]:
    if standing["active"] is False:
        yield [("bot_off", {})]
    if pause := standing["pause"]:
        yield _pause({**pause, "cause": "paused", "bot_id": None}, at)
    if standing["asleep_until"]:
        yield [("bot_asleep", {}), ("until", {"until": _shown(standing["asleep_until"], at)})]


def _pause(pause: Mapping[str, Any], at: float) -> Phrases:
    phrases: Phrases = [(f"pause_{pause['cause']}", pause)]
    if pause["who"]:
        phrases.append(("pause_by", pause))
    if pause["bot_id"]:
        phrases.append(("pause_of_bot", {}))
    phrases.append(("since", {"since": _shown(pause["since"], at)}))
    if pause["until"] in {None, "infinity"}:
        phrases.append(("until_resumed", {}))
    else:
        phrases.append(("until", {"until": _shown(pause["until"], at)}))
    return phrases


def _shown(time: str, at: float) -> str:
    shown = moment(time, datetime.fromtimestamp(at, UTC))
    return shown[1] if shown else ""
