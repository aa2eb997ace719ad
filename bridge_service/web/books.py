"""What the console's pages read on demand and do, beside the look that all of them share.

Each list, and each conversation or bot, is asked for at most once in LOOK_SECONDS, however many visitors look at it;
what changes slowly more rarely.
"""

import json
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

from bridge_service.checks import standing
from bridge_service.machine.database import Database
from bridge_service.web import observer
from bridge_service.web.question import Question, Questions

CHARTS_SECONDS: Final = 15.0
"""A minute is counted once a minute, and incidents come in between."""

BOTS_SECONDS: Final = 6.0
"""Each of the bots costs as much as three turns of a list."""

SPENDING_SECONDS: Final = 15.0
"""A sum of a whole day."""

LINES: Final = 20
DEAD_LINES: Final = 50
ACTIONS: Final = 50
STORY_TURNS: Final = 50
BOTS: Final = 200

DEFAULT: Final = "default"

T = TypeVar("T")

Line = Mapping[str, Any]
"""A row as the functions of machine/sql/operate give it; times in UTC as text."""


class Books:
    """Reads and acts; None instead of an answer while PostgreSQL is away."""

    def __init__(self, database: Database) -> None:
        self._database = database
        seconds = observer.LOOK_SECONDS
        self.latest = Question(lambda: self._lines("SELECT bridge.latest_turns(%s)", LINES), seconds)
        self.late = Question(lambda: self._lines("SELECT bridge.late_turns(%s)", LINES), seconds)
        self.bots = Question(
            lambda: self._lines("SELECT bridge.bots_load(%s, %s)", BOTS, observer.COUNTED), BOTS_SECONDS
        )
        self.spending = Question(lambda: self._lines("SELECT bridge.spending(1)"), SPENDING_SECONDS)
        self.actions = Question(lambda: self._lines("SELECT bridge.latest_actions(%s)", ACTIONS), seconds)
        self.charts = Question(lambda: self._one("SELECT bridge.charts()"), CHARTS_SECONDS)
        self.dead = Questions(
            lambda after: self._lines("SELECT bridge.dead_lines(%s, %s)", int(after), DEAD_LINES), seconds
        )
        self.story = Questions(lambda id_: self._one("SELECT bridge.story(%s, %s)", id_, STORY_TURNS), seconds)
        self.bot = Questions(lambda bot: self._one("SELECT bridge.bots_show(%s)", _bot_id(bot)), seconds)
        self.standing = Questions(
            lambda bot: self._one("SELECT bridge.bots_standing(ARRAY[%s]::uuid[]) -> %s", bot, bot), seconds
        )

    def forget(self) -> None:
        """Let the next visitor see what was just done; from the event loop."""
        lists = (self.latest, self.late, self.bots, self.spending, self.actions)
        for question in (*lists, self.dead, self.story, self.bot, self.standing):
            question.forget()

    def act(self, who: str, address: str, what: str, on: str, values: Mapping[str, Any] | None = None) -> Line:
        """Do something and write it down; see machine/sql/operate/act.sql.

        Raises:
          BridgeError: nothing was done, except that a lost connection leaves it in doubt.
        """
        given = None if values is None else json.dumps(values)
        statement = "SELECT bridge.act(%s, %s, %s, %s, %s)"
        [[answer]] = self._database.call(statement, who, address, what, on, given)
        return dict(answer)

    def _lines(self, statement: str, *parameters: object) -> tuple[Line, ...] | None:
        return _asked(lambda: tuple(row for [row] in self._database.call(statement, *parameters)))

    def _one(self, statement: str, *parameters: object) -> tuple[Line | None] | None:
        """Return the answer in a tuple, for it may be that there is none."""
        return _asked(lambda: (self._database.call(statement, *parameters)[0][0],))


def _asked(ask: Callable[[], T]) -> T | None:
    return standing.ask_postgresql(ask)[1]


def _bot_id(bot: str) -> str | None:
    return None if bot == DEFAULT else bot
