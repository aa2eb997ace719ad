"""The steps of `validate` in which its bot gives way: to a newer message, a human, the night, a person who types."""

from collections.abc import Callable
from functools import partial
from typing import Final

from bridge_service.install.files import TYPING_TABLE
from bridge_service.machine.database import Connection
from bridge_service.operate.commands.validate_app import Guests
from bridge_service.scenes.judge import Progress, Result
from bridge_service.scenes.script import Script
from bridge_service.scenes.tact import LeftOut, Tact

PACE: Final = {"grouping_delay": 1.0, "quiet_hours": "none", "quiet_hours_weekend": "none"}
"""What holds for the bot of `validate` in these steps, so that each takes a few seconds at any hour."""

DETAILS: Final = {
    "parts": "a newer message withheld the rest of a reply, and was answered",
    "takeover": "a human wrote in the bot's name: the bot was silent, then answered",
    "night": "a message was held in quiet hours, and answered after them",
    "typing": "a person typed on, and one reply answered both messages",
}
"""What a step showed if it held, by its name."""

MAY_TYPE: Final = """
    SELECT to_regclass(%s) IS NOT NULL AND has_table_privilege(to_regclass(%s), 'SELECT, INSERT') IS TRUE
       AND has_table_privilege(to_regclass(%s), 'UPDATE') IS TRUE,
       (SELECT p.prosrc ~ '\\mtrue\\M' FROM pg_catalog.pg_proc p
        WHERE p.pronamespace = to_regnamespace('bridge') AND p.proname = 'has_typing')"""
"""Takes the table's name three times. Whether the role may write there, and whether the bridge reads it."""

Step = Callable[[Progress], Result]


def steps(
    script: Script, guests: Guests, connection: Connection, write: Callable[[str], str]
) -> tuple[tuple[str, int, Step], ...]:
    """Return the steps: name, how many answers are expected, and what to call, which may raise LeftOut.

    Parameters:
      write: lets a match's person write; returns the message.
    """

    def tact() -> Tact:
        return Tact(script, script.judge, guests.bot, PACE)

    def writes(place: int) -> Callable[[], str]:
        return lambda: write(guests.matches[place])

    def parts(_: Progress) -> Result:
        return tact().interrupted(writes(0), writes(0))

    def takeover(_: Progress) -> Result:
        match = guests.matches[1]
        return tact().takeover(match, writes(1), partial(guests.write_as_bot, match), writes(1))

    def night(_: Progress) -> Result:
        return tact().night(writes(2))

    def typing(_: Progress) -> Result:
        [[may_write, is_used]] = connection.execute(MAY_TYPE, (TYPING_TABLE,) * 3)
        if not (may_write and is_used):
            raise LeftOut(
                f"the role may not SELECT, INSERT, UPDATE in table {TYPING_TABLE}"
                if is_used
                else f"the bridge uses no table {TYPING_TABLE}"
            )
        match = guests.matches[3]
        return tact().typing(
            writes(3), writes(3), partial(guests.types, match, on=True), partial(guests.types, match, on=False)
        )

    return ("parts", 2, parts), ("takeover", 1, takeover), ("night", 1, night), ("typing", 2, typing)
