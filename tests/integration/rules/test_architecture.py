"""docs/ARCHITECTURE.md draws the machine that is in the database, and lists the files that are in the tree."""

from __future__ import annotations

import itertools
import re
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Final

from bridge_service.machine.database import Connection
from bridge_service.machine.ledger import Ledger
from bridge_service.responders.budget import Call
from tests.support.policy import MAX_ATTEMPTS, MAX_TAKEOVERS, set_policy
from tests.support.rules import CAMILLE

if TYPE_CHECKING:
    from tests.support.rules import Bridge

ROOT: Final = Path(__file__).parents[3]
PAGE: Final = (ROOT / "docs" / "ARCHITECTURE.md").read_text(encoding="utf-8")
FUNCTIONS: Final = ROOT / "bridge_service" / "machine" / "sql"

Arrow = tuple[str, str, str]

RECORDER: Final = """
CREATE TABLE arrows (old text, new text, stack text);
CREATE FUNCTION record_arrow() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
DECLARE
    v_stack text;
BEGIN
    GET DIAGNOSTICS v_stack = PG_CONTEXT;
    INSERT INTO public.arrows VALUES (CASE WHEN TG_OP = 'UPDATE' THEN OLD.state ELSE '-' END, NEW.state, v_stack);
    RETURN NULL;
END $$;
CREATE TRIGGER record_insert AFTER INSERT ON bridge.turns FOR EACH ROW EXECUTE FUNCTION record_arrow();
CREATE TRIGGER record_update AFTER UPDATE ON bridge.turns FOR EACH ROW
    WHEN (OLD.state <> NEW.state) EXECUTE FUNCTION record_arrow();
"""


def test_the_page_draws_the_arrows_that_the_database_makes(bridge: Bridge) -> None:
    """A conversation that goes every way there is makes exactly the arrows of the page, each in the file named."""
    bridge.rows(RECORDER)

    _every_way(bridge)

    seen = {
        (old, new, _file_of(stack)) for old, new, stack in bridge.rows("SELECT DISTINCT old, new, stack FROM arrows")
    }
    assert seen == _drawn()


def test_the_page_names_every_file() -> None:
    """Every module stands in the page's tree, and every file that the page names is there."""
    tree = PAGE.partition("## Where things are")[2].partition("## ")[0]
    for package in ("bridge_service", "schedulers"):
        for path in (ROOT / package).iterdir():
            if path.name in {"__pycache__", "__main__.py", "output.py", "py.typed"}:
                continue
            assert path.stem in tree or path.name in tree, f"{package}/{path.name} is not in docs/ARCHITECTURE.md"
    for name in re.findall(r"\b[a-z_]+\.py\b", tree):
        assert list(ROOT.glob(f"*/**/{name}")), f"docs/ARCHITECTURE.md names {name}, which is not there"


def _drawn() -> set[Arrow]:
    rows = re.findall(r"^\| ([a-z, -]+) \| ([a-z]+) \| [^|]+ \| ([a-z_/]+\.sql) \|$", PAGE, re.MULTILINE)
    drawn = {(old, new, file) for olds, new, file in rows for old in olds.split(", ")}
    for _, _, file in drawn:
        assert (FUNCTIONS / file).is_file(), f"docs/ARCHITECTURE.md names {file}, which is not there"
    return drawn


def _file_of(stack: str) -> str:
    """Return the file of the innermost function of the bridge in a call stack."""
    name = re.findall(r'function (?:bridge\.|")(\w+)', stack)[0]
    [path] = FUNCTIONS.glob(f"*/{name}.sql")
    return str(path.relative_to(FUNCTIONS))


def _every_way(bridge: Bridge) -> None:
    with closing(Connection(bridge.urls.service, application="operator")) as connection:
        ledger = Ledger(connection)
        ways = (_replies(bridge, ledger), _openers(bridge, ledger), _followed(bridge), _silent(bridge), _held(bridge))
        for way in itertools.chain(*ways):
            assert way, "a step on the way did not come out"


def _followed(bridge: Bridge) -> list[bool]:
    set_policy(bridge.urls, follow_up_after=3600)
    match = bridge.match()
    bridge.write(match)
    answered = bridge.deliver(bridge.typing(match)).name == "answered"
    bridge.advance(3601)
    bridge.store.plan_held()
    bridge.write(match)
    bridge.group()
    set_policy(bridge.urls, follow_up_after=0)
    return [answered, [turn.reason for turn in bridge.turns(match, "follow_up")] == ["message"]]


def _replies(bridge: Bridge, ledger: Ledger) -> list[bool]:
    ways = []
    match = bridge.match()

    bridge.write(match)
    ways.append(bridge.deliver(bridge.typing(match)).name == "answered")

    bridge.write(match)
    turn = bridge.typing(match)
    bridge.write(match)
    ways.append(bridge.deliver(turn).name == "superseded")  # the newer message is not grouped yet: it opens the turn
    ways.append(bridge.deliver(bridge.typing(match)).name == "answered")

    bridge.write(match)
    turn = bridge.typing(match)
    bridge.rows("UPDATE bridge.turns SET covers = '{}' WHERE id = %s", turn)
    ways.append(bridge.deliver(turn).name == "nothing")  # the draft is thrown away
    claim = bridge.claim(turn)
    ways.append(bridge.finish(claim, pause=0).name == "answered")

    bridge.write(match)
    turn = bridge.typing(match)
    bridge.rows("UPDATE messages SET content = 'edited' WHERE match_id = %s", match)
    ways.append(bridge.deliver(turn).name == "superseded")
    ways.append(bridge.finish(bridge.claim(turn), pause=0).name == "answered")

    for steps in ("queued", "typing"):
        lost = bridge.match()
        message = bridge.write(lost)
        turn = bridge.typing(lost) if steps == "typing" else bridge.pushed(lost)
        bridge.rows("DELETE FROM messages WHERE id = %s", message)
        outcome = bridge.deliver(turn) if steps == "typing" else bridge.claim(turn).outcome
        ways.append(outcome.name == "cancelled")

    heavy = bridge.match()
    bridge.rows(
        "INSERT INTO messages (match_id, sender_id, content)"
        " SELECT %s, user1_id, repeat('z', 50000000) FROM matches, generate_series(1, 2) WHERE matches.id = %s",
        *(heavy, heavy),
    )
    ways.append(bridge.claim(bridge.pushed(heavy)).outcome.name == "dead")  # more than a claim can carry

    for operate in (ledger.retry, ledger.drop):
        poisoned = bridge.match()
        bridge.write(poisoned)
        turn = bridge.pushed(poisoned)
        for _ in range(MAX_ATTEMPTS):
            claim = bridge.claim(turn)
            outcome = bridge.store.fail(turn, claim.token, "ValueError", retry=0, counts=True)
        operate(turn)
        ways.append(outcome.name == "dead")

    unreadable = bridge.match()
    bridge.write(unreadable)
    ways.append(bridge.store.unreadable(bridge.pushed(unreadable), "compose", "no").name == "failed")

    bridge.rows(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " RAISE 'no' USING ERRCODE = 'feature_not_supported'; END $$"
    )
    bridge.write(match)
    turn = bridge.typing(match)
    bridge.rows("CREATE TRIGGER refuse BEFORE INSERT ON messages FOR EACH ROW EXECUTE FUNCTION refuse()")
    for _ in range(MAX_ATTEMPTS):
        outcome = bridge.deliver(turn)
        bridge.advance(60)
    bridge.rows("DROP TRIGGER refuse ON messages")
    ways.append(outcome.name == "dead")
    return ways


def _silent(bridge: Bridge) -> list[bool]:
    match = bridge.match()
    bridge.write(match)
    turn = bridge.typing(match)
    bridge.rows("SELECT bridge.pause(%s, NULL)", match)
    ways = [bridge.deliver(turn).name == "held"]
    bridge.write(match, sender=CAMILLE)
    ways.append([event.reason for event in bridge.group()] == ["taken_over"])
    return ways


def _openers(bridge: Bridge, ledger: Ledger) -> list[bool]:
    ways = [bridge.deliver(bridge.typing_opener(bridge.match(opener=True))).name == "answered"]

    undrawn = bridge.match(opener=True)
    bridge.group(probability=0.0)
    ways.append(bridge.opener(undrawn).reason == "not_drawn")
    ledger.plan_opener(undrawn, 5.0)
    ways.append(bridge.opener(undrawn).state == "open")

    overtaken = bridge.match(opener=True)
    bridge.group()
    bridge.write(overtaken)
    bridge.group()
    ways.append(bridge.opener(overtaken).state == "cancelled")  # while open

    overtaken = bridge.match(opener=True)
    bridge.group()
    bridge.advance(61)
    bridge.push()
    claim = bridge.claim(bridge.opener(overtaken).id)
    bridge.write(overtaken)
    bridge.group()
    ways.append(claim.outcome.name == "claimed" and bridge.opener(overtaken).state == "cancelled")  # while composing

    deadly = bridge.match(opener=True)
    bridge.group()
    bridge.advance(61)
    turn = bridge.opener(deadly).id
    for _ in range(MAX_TAKEOVERS + 1):
        bridge.push()
        bridge.claim(turn)
        bridge.advance(60)
    ways.append(bridge.turn(turn).state == "dead")
    ledger.retry(turn)
    ways.append(bridge.turn(turn).state == "queued")
    return ways


def _held(bridge: Bridge) -> list[bool]:
    bridge.rows("UPDATE bridge.bots SET limit_calls_person_day = 1 WHERE scope = 'default'")
    ways = []
    for spent in (False, True):
        match = bridge.match()
        bridge.write(match)
        turn = bridge.pushed(match)
        claim = bridge.claim(turn)
        call = Call(claim.token, 1, turn, "m", 1, 1, 1.0)
        ways.append(spent or bridge.store.reserve_call(call)["outcome"] == "reserved")
        outcome = claim.outcome if spent else bridge.store.hold(turn, claim.token)
        ways.append(outcome.name == "held")
    bridge.rows("UPDATE bridge.bots SET limit_calls_person_day = NULL WHERE scope = 'default'")
    match, lost = bridge.match(), bridge.match()
    bridge.write(match)
    typing = bridge.typing(match)
    bridge.write(lost)
    queued = bridge.pushed(lost)
    bridge.rows(
        "UPDATE bridge.bots SET timezone = 'UTC', quiet_hours = to_char(bridge.now() - interval '1 hour', 'HH24:MI')"
        " || to_char(bridge.now() + interval '2 hours', '-HH24:MI') WHERE scope = 'default'"
    )
    ways.append(bridge.deliver(typing).name == "held")
    bridge.advance(20)
    bridge.push()
    ways.append(bridge.turn(queued).held == "hours")
    return ways
