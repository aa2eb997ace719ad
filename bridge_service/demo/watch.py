"""What the playground's page shows: read from the app's tables, the bridge's, Redis and the processes' lines."""

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import redis

from bridge_service.demo.log import Log
from bridge_service.errors import DatabaseBusy, DatabaseUnavailable
from bridge_service.machine.database import Connection
from bridge_service.machine.ledger import Ledger
from bridge_service.telemetry.logs import escape

OVERLAP_SECONDS: Final = 10.0
"""A row becomes visible at its commit, which is later than its `created_at`: each look goes back by so much."""

VERIFY_SECONDS: Final = 1.0
LINES_AT_ONCE: Final = 60
LINES_KEPT: Final = 200
MESSAGES_KEPT: Final = 600
TYPED_KEPT: Final = 600

_SQL: Final = {
    name: (Path(__file__).parent / f"watch_{name}.sql").read_text(encoding="utf-8")
    for name in ("turns", "chat", "messages")
}

_STRUCK: Final = {"superseded": "overtaken", "interrupted": "overtaken", "taken_over": "taken_over"}
"""Why a turn may end before its reply is said, with the word for the chat."""

State = dict[str, Any]


class Watch:
    """Looks, and remembers what it has seen; `look` and `whole` may be called from any thread.

    Parameters:
      connection: of the app's owner, and of nothing else.
      client: of the Redis to ask.
      log: the processes' lines.
      retention_days: for `verify`.
      moment: returns what else the page shows at this moment: the tour's scene, and what is broken.
    """

    def __init__(
        self,
        connection: Connection,
        client: redis.Redis,
        log: Log,
        retention_days: float,
        moment: Callable[[], State],
    ) -> None:
        self._connection = connection
        self._client = client
        self._log = log
        self._ledger = Ledger(connection)
        self._retention_days = retention_days
        self._moment = moment
        self._lock = threading.Lock()
        self._mark = 0
        self._verified = float("-inf")
        self._chats: dict[str, State] = {}
        self._messages: dict[str, State] = {}
        self._drafts: dict[int, list[str]] = {}
        self._typed: dict[int, float] = {}
        self._lines: deque[State] = deque(maxlen=LINES_KEPT)
        self._shown: State = {}
        """The last value of everything that is sent whole when it changes."""

    def whole(self) -> State:
        """Return everything that a new visitor needs."""
        with self._lock:
            return {
                **self._shown,
                "chats": [*self._chats.values()],
                "messages": [*self._messages.values()],
                "lines": [*self._lines],
                "now": time.time(),
            }

    def look(self) -> State:
        """Return what has changed since the last look; a value may be repeated and is then the same."""
        with self._lock:
            change: State = {}
            now: State = {**self._moment(), "redis": self._redis_answers()}
            try:
                now |= self._database(change)
                now["postgresql"] = True
            except (DatabaseUnavailable, DatabaseBusy):
                now["postgresql"] = False
            self._add_lines(change)
            change |= {name: value for name, value in now.items() if self._shown.get(name) != value}
            self._shown |= now
            return {**change, "now": time.time()} if change else {}

    def _database(self, change: State) -> State:
        newest = max((message["at"] for message in self._messages.values()), default=0.0) - OVERLAP_SECONDS
        messages = [message for [message] in self._connection.execute(_SQL["messages"], (max(0.0, newest),))]
        [[chats, drafts, unfinished, ungrouped, typing, paused, bots]] = self._connection.execute(
            _SQL["chat"], (0.0 if not self._chats else max(0.0, newest), [*self._drafts])
        )
        turns = [self._timed(turn) for [turn] in self._connection.execute(_SQL["turns"])]
        self._add(change, "chats", self._chats, {chat["id"]: chat for chat in chats})
        struck = self._struck(drafts)
        self._add(change, "messages", self._messages, {each["id"]: each for each in (*messages, *struck)})
        while len(self._messages) > MESSAGES_KEPT:
            del self._messages[next(iter(self._messages))]
        shown = {"turns": turns, "unfinished": unfinished, "ungrouped": ungrouped}
        return {**shown, "typing": sorted(typing), "paused": paused, "bots": bots, **self._accounts()}

    def _timed(self, turn: State) -> State:
        """Add when the bot was first seen typing, which no column holds."""
        if turn["state"] == "typing":
            self._typed.setdefault(turn["id"], time.time())
            while len(self._typed) > TYPED_KEPT:
                del self._typed[next(iter(self._typed))]
        return {**turn, "typed": self._typed.get(turn["id"])}

    def _struck(self, drafts: list[State]) -> list[State]:
        """Return what a bot was about to say and did not, as lines of the chat, with the word that says why."""
        struck = []
        for draft in drafts:
            texts, parts = self._drafts.pop(draft["turn"], None), draft["parts"] or []
            if draft["state"] in ("composing", "typing"):
                self._drafts[draft["turn"]] = [part["text"] for part in parts] or [draft["draft"] or ""]
            elif texts is not None and draft["reason"] in _STRUCK:
                said = sum(part["out"] for part in parts)
                for place, text in enumerate(texts[said:]):
                    why = "withheld" if said else _STRUCK[draft["reason"]] + ("" if text else "_early")
                    entry = {"id": f"draft-{draft['turn']}-{place}", "match": draft["match"], "bot": True, "text": text}
                    struck.append({**entry, "at": time.time(), "struck": True, "why": why})
        return struck

    def _accounts(self) -> State:
        if time.monotonic() - self._verified < VERIFY_SECONDS:
            return {}
        accounts = self._ledger.verify(self._retention_days)
        self._verified = time.monotonic()
        return {
            "sum": {
                "sent": accounts.messages,
                "answered": accounts.answered,
                "open": accounts.open,
                "lost": accounts.unaccounted + accounts.dead,
                "twice": accounts.doubled,
                "undisclosed": accounts.undisclosed,
            },
            "policy": self._ledger.policy(),
        }

    def _redis_answers(self) -> bool:
        try:
            self._client.ping()
        except (redis.RedisError, OSError):
            self._client.connection_pool.disconnect()
            return False
        return True

    def _add_lines(self, change: State) -> None:
        fresh = self._log.since(self._mark)
        begin = self._mark
        self._mark += len(fresh)
        # What is no record (a traceback, say) may quote anything, and stays in the terminal.
        lines = [
            {"n": begin + place, "at": f"{line.at:%H:%M:%S}", "by": line.process, "text": escape(line.text)}
            for place, line in enumerate(fresh)
            if line.at is not None
        ][-LINES_AT_ONCE:]
        if lines:
            change["lines"] = lines
            self._lines.extend(lines)

    @staticmethod
    def _add(change: State, name: str, known: dict[str, State], found: Mapping[str, State]) -> None:
        if fresh := {key: value for key, value in found.items() if key not in known}:
            known |= fresh
            change[name] = [*fresh.values()]
