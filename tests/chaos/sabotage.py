"""Breakages: rules taken out of the service one at a time, to prove that the kit would notice.

SQL is replaced in the database once the bridge is installed, as in tests/support/rules.py; Python is patched by
saboteur.py, which is run in the place of the real entry points. Each breakage brings a short run that meets it: the
faults, the habits of the people, and `widen`, pauses inside functions that make a race of microseconds one of a tenth
of a second. The same run is played with the rule and without it: with it, it has to pass.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from rich.table import Table

from tests.chaos.faults import KINDS
from tests.chaos.nemesis import WARM_UP_SECONDS, Planned
from tests.chaos.run import Plot
from tests.chaos.script import BOTS, Habits
from tests.chaos.stage import COMMANDS
from tests.support.roles import SERVICE
from tests.support.rules import NEVER_JOINS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tests.chaos.run import Outcome
    from tests.support.rules import Taken

SEED: Final = 1

LOST_SECONDS: Final = 36.0
"""Everything that the service does to bring a turn back has been done by then: a lease and a push again."""

DONE_SECONDS: Final = 5.0


NEVER_OVERTAKEN: Final = (
    "overtake",
    "FOREACH match_id IN ARRAY v_matches LOOP",
    "FOREACH match_id IN ARRAY '{}'::uuid[] LOOP",
)
"""Correct by itself, only slower (E1). It leaves a newer message to the delivery's last look."""


@dataclass(frozen=True, slots=True)
class Breakage:
    """A rule that is taken out.

    Attributes:
      name: as on the command line; saboteur.py has a function of this name, with underscores, if `python` is set.
      rule: the rule's name in CONCURRENCY.md or DESIGN.md.
      what: what the broken service does.
      sees: what has to be found, one of them at least: fields of the ledger, or `unpaid`.
      taken: SQL, as `without` in tests/support/rules.py takes it.
      widen: the same, for the run with the rule and the one without.
      python: whether Python is patched.
      together: whether the faults begin a second apart, in their order; otherwise one comes after the other.
      calm: seconds for which people go on writing after the last fault; below 0 they stop before its end.
    """

    name: str
    rule: str
    what: str
    sees: tuple[str, ...]
    taken: tuple[Taken, ...] = ()
    widen: tuple[Taken, ...] = ()
    python: bool = False
    faults: tuple[str, ...] = ()
    seconds: float = 20.0
    together: bool = False
    calm: float = 3.0
    rate: float = 15.0
    habits: Habits = field(default_factory=Habits)
    plot: Mapping[str, Any] = field(default_factory=dict)

    def run(self, *, broken: bool) -> Plot:
        """Return the run, with the rule or without it."""
        commands = dict(COMMANDS)
        if broken and self.python:
            function = self.name.replace("-", "_")
            commands["scheduler"] = (sys.executable, "-m", "tests.chaos.saboteur", function)
            commands["worker"] = tuple(
                f"tests.chaos.saboteur:worker_{function}" if word == "bridge_service" else word
                for word in commands["worker"]
            )
        return Plot(
            seed=SEED,
            messages=None if self.faults else round(self.seconds * self.rate),
            rate=self.rate,
            planned=tuple(self._planned()),
            habits=self.habits,
            calm=self.calm,
            settle=LOST_SECONDS if "lost" in self.sees or not broken else DONE_SECONDS,
            taken=(*self.widen, *(self.taken if broken else ())),
            commands=commands,
            **self.plot,
        )

    def _planned(self) -> Iterator[Planned]:
        at = WARM_UP_SECONDS
        for number, kind in enumerate(self.faults):
            seconds = sum(KINDS[kind].seconds) / 2
            yield Planned(kind, at, seconds, number)
            at += 1.0 if self.together else seconds + 1.0

    def caught(self, outcome: Outcome) -> bool:
        """Whether the broken run's verdict shows what it has to show."""
        return any((outcome.unpaid if name == "unpaid" else getattr(outcome.ledger, name)) > 0 for name in self.sees)


_SLOW_GROUPING: Final = (
    "group_events",
    "RETURN QUERY SELECT p.id, p.kind",
    "PERFORM pg_sleep(0.15); RETURN QUERY SELECT p.id, p.kind",
)

_HALF_DELIVERY: Final = """
    CREATE FUNCTION bridge.insert_reply(p_turn bigint) RETURNS jsonb
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    DECLARE
        t bridge.turns%ROWTYPE;
    BEGIN
        SELECT * INTO t FROM bridge.turns WHERE id = p_turn AND state = 'typing' AND deliver_at <= bridge.now();
        IF FOUND THEN
            PERFORM bridge.say(t.id, gen_random_uuid(), t.match_id, t.bot_id, t.draft, bridge.now());
        END IF;
        RETURN jsonb_build_object('outcome', CASE WHEN FOUND THEN 'later' ELSE 'nothing' END);
    END
    $$;
    CREATE FUNCTION bridge.mark_answered(p_turn bigint) RETURNS void
    LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
        SELECT bridge.end_turn(t.id, 'answered') FROM bridge.turns t WHERE t.id = p_turn AND t.state = 'typing'
    $$;
    GRANT EXECUTE ON FUNCTION bridge.insert_reply(bigint), bridge.mark_answered(bigint) TO ROLE;
""".replace("ROLE", SERVICE)

_KEEP_DRAFTS: Final = """
    DO $$
    DECLARE
        v_name text;
    BEGIN
        FOR v_name IN SELECT conname FROM pg_constraint
            WHERE conrelid = 'bridge.turns'::regclass AND contype = 'c'
              AND pg_get_constraintdef(oid) LIKE '%draft IS NULL%'
        LOOP
            EXECUTE format('ALTER TABLE bridge.turns DROP CONSTRAINT %I', v_name);
        END LOOP;
    END
    $$;
"""

_LATE_TAKEOVER: Final = (
    "take_over",
    "GROUP BY e.match_id ORDER BY e.match_id",
    "GROUP BY e.match_id HAVING max(e.captured_at) < p_now - interval '1 second' ORDER BY e.match_id",
)
"""As where another session holds a lock: a delivery has to look for the human's event meanwhile (H3)."""

BREAKAGES: Final = (
    Breakage(
        "grouping-too-early",
        "I5",
        "a group closes after half of GROUPING_DELAY",
        ("early",),
        taken=(
            (
                "group_events",
                "ELSE g.first + make_interval(secs => b.delay)",
                "ELSE g.first + make_interval(secs => 0.5 * b.delay)",
            ),
        ),
    ),
    Breakage(
        "no-last-look",
        "D1",
        "a reply is delivered without looking for newer messages",
        ("stale",),
        taken=(("newer_turn", "IF v_first IS NULL AND v_waiting IS NULL THEN", "IF true THEN"), NEVER_OVERTAKEN),
        plot={"thinking": (0.8, 1.2)},
    ),
    Breakage(
        "looks-at-grouped-only",
        "D1",
        "the last look ignores what nobody has grouped yet",
        ("stale",),
        taken=(
            (
                "newer_turn",
                "FROM bridge.ungrouped_events(v_match) e WHERE e.kind = 'message';",
                "FROM bridge.events e WHERE false;",
            ),
            NEVER_OVERTAKEN,
        ),
        faults=("responder-dawdles", "scheduler-kill-often"),
        together=True,
        plot={"thinking": (0.0, 0.0)},
    ),
    Breakage(
        "events-stay-behind",
        "D1",
        "an overtaken reply's messages do not move into the next turn",
        ("lost",),
        taken=(("supersede", "UPDATE bridge.events SET turn_id = p_waiting WHERE turn_id = p_turn;", ""),),
        plot={"thinking": (0.8, 1.2)},
    ),
    Breakage(
        "no-first-word-lock",
        "F1",
        "a message does not lock its match's event, so the opener cannot see it before its commit",
        ("forbidden", "foreign"),
        taken=(("before_message", "FOR KEY SHARE OF e", ""),),
        habits=Habits(first_words=1.0, held=0.0, length=3),
    ),
    Breakage(
        "two-active-turns",
        "T1",
        "no unique index on the active turn, and the claim does not look for one",
        ("disordered", "stale"),
        taken=(
            ("claim", "bridge.waits_for_active(t.id, t.match_id)", "false"),
            ("sql", "DROP INDEX bridge.turns_one_active"),
        ),
        plot={"thinking": (0.0, 3.0)},
    ),
    Breakage(
        "grouping-does-nothing",
        "T2",
        "grouping inserts with DO NOTHING and joins a turn that is being claimed",
        ("lost",),
        taken=(NEVER_JOINS,),
        widen=(_SLOW_GROUPING,),
        habits=Habits(races=0.9),
        plot={"thinking": (0.0, 0.0)},
    ),
    Breakage(
        "claim-looks-before-it-locks",
        "T3",
        "the claim reads its messages before it has the turn's lock, and delivery does not compare",
        ("lost",),
        taken=(
            ("claim", "v_task jsonb;", "v_task jsonb; v_early bigint[]; v_first uuid[];"),
            (
                "claim",
                "SELECT * INTO t FROM bridge.turns WHERE id = p_turn FOR NO KEY UPDATE;",
                """SELECT coalesce(array_agg(e.id ORDER BY e.id), '{}'), array_agg(e.message_id ORDER BY e.id)
                   INTO v_early, v_first
                   FROM bridge.events e WHERE e.turn_id = p_turn;
                   SELECT * INTO t FROM bridge.turns WHERE id = p_turn FOR NO KEY UPDATE;""",
            ),
            (
                "claim",
                """SELECT coalesce(array_agg(e.id ORDER BY e.kind = 'message', e.id), '{}'),
                   coalesce(array_agg(e.message_id ORDER BY e.id) FILTER (WHERE e.kind = 'message'), '{}')
                   INTO v_events, v_messages
                   FROM bridge.events e WHERE e.turn_id = t.id;""",
                "v_events := v_early; v_messages := v_first;",
            ),
            ("deliver_turn", "IF v_events <> t.covers THEN", "IF false THEN"),
        ),
        widen=(_SLOW_GROUPING,),
        habits=Habits(races=0.9),
        plot={"thinking": (0.0, 0.0)},
    ),
    Breakage(
        "delivery-without-state",
        "T5, D4",
        "a delivery does not ask for the turn's state or its time, and the draft is kept",
        ("doubled", "early"),
        taken=(
            (
                "deliver_turn",
                "IF NOT FOUND OR t.state <> 'typing' OR t.deliver_at > bridge.now() OR t.retry_at > bridge.now() THEN",
                "IF NOT FOUND OR t.draft IS NULL THEN",
            ),
            ("deliver_turn", "coalesce(v_part, t.reply_message_id), t.match_id", "gen_random_uuid(), t.match_id"),
            ("end_turn", "draft = NULL, due_at = NULL", "due_at = NULL"),
            ("sql", _KEEP_DRAFTS),
        ),
        faults=("redis-doubled",),
    ),
    Breakage(
        "no-fence",
        "T6",
        "a worker that wakes after its lease was given away may finish all the same",
        ("doubled", "disordered", "stale"),
        taken=(
            ("finish", "IF NOT FOUND OR t.token IS DISTINCT FROM p_token THEN", "IF NOT FOUND THEN"),
            ("finish", "ELSIF t.state = 'composing' THEN", "ELSIF true THEN"),
            (
                "finish",
                "SET state = 'typing', draft = p_draft",
                "SET state = 'typing', ended_at = NULL, draft = p_draft",
            ),
        ),
        faults=("responder-dawdles", "worker-freeze-child"),
        together=True,
        calm=6.0,
        # Patient people: a turn that is overtaken meanwhile hides the fault.
        rate=30.0,
        habits=Habits(at_once=300, length=3),
    ),
    Breakage(
        "no-push-again",
        "the one idea",
        "what was pushed once is trusted to be in Redis",
        ("lost",),
        taken=(
            (
                "push_due",
                "due_at = v_now + make_interval(secs => p_again) FROM due",
                "due_at = v_now + interval '1 day' FROM due",
            ),
        ),
        faults=("redis-flush", "worker-kill-often"),
        together=True,
    ),
    Breakage(
        "no-takeover",
        "T6",
        "a lease never runs out",
        ("lost",),
        taken=(
            (
                "push_due",
                "WHERE t.state = 'composing' AND t.due_at <= v_now",
                "WHERE t.state = 'composing' AND t.token IS NULL AND t.due_at <= v_now",
            ),
        ),
        faults=("responder-dawdles", "worker-kill-often"),
        together=True,
    ),
    Breakage(
        "bell-is-truth",
        "the one idea",
        "a message is captured when its notification is heard, not in its own transaction",
        ("lost",),
        taken=(
            (
                "after_message",
                "v_event := bridge.capture_message(NEW.id, NEW.match_id, NEW.sender_id, NEW.created_at);",
                """PERFORM pg_notify('bot_events', json_build_object('match_id', NEW.match_id, 'message_id', NEW.id,
                   'sender_id', NEW.sender_id, 'bot_id', NEW.sender_id)::text);""",
            ),
            ("triggers_installed", "SELECT count(*) >= 3", "SELECT false"),
        ),
        faults=("postgres-drop-listener", "scheduler-kill"),
    ),
    Breakage(
        "no-look-at-start",
        "I6",
        "a scheduler that starts waits for bells, and there is no sweep",
        ("lost",),
        python=True,
        # Nobody writes any more when it is back, and each conversation has one message: a bell, or a turn that is there
        # already, would bring what was missed to light.
        faults=("scheduler-kill",),
        calm=-1.0,
        rate=40.0,
        habits=Habits(length=1, first_words=0.0),
    ),
    Breakage(
        "half-delivery",
        "D3, D4",
        "the reply is inserted in one transaction and the turn ended in the next",
        ("doubled",),
        python=True,
        widen=(("sql", _HALF_DELIVERY),),
        faults=("postgres-drop-bridge", "scheduler-kill-often"),
        plot={"thinking": (0.1, 0.3)},
    ),
    Breakage(
        "no-look-for-humans",
        "H2",
        "a delivery does not ask whether a human has written in the bot's name",
        ("spoken_over",),
        taken=(("deliver_turn", "bridge.silenced(t.id, t.kind, t.match_id, t.bot_id)", "NULL"),),
        widen=(_LATE_TAKEOVER,),
        seconds=15.0,
        rate=10.0,
        habits=Habits(tactful=BOTS, speaks=0.3, length=3),
    ),
    Breakage(
        "parts-not-withheld",
        "P2",
        "a newer message does not withhold the rest of a reply",
        ("stale",),
        taken=(
            ("deliver_turn", "IF v_waiting IS NOT NULL THEN", "IF v_waiting IS NOT NULL AND t.parts_out = 0 THEN"),
            NEVER_OVERTAKEN,
        ),
        rate=6.0,
        habits=Habits(tactful=BOTS),
    ),
    Breakage(
        "no-disclosure-guard",
        "L1",
        "a bot does not know that it has said its disclosure",
        ("undisclosed",),
        taken=(
            ("disclose", "IF FOUND THEN", "IF false THEN"),
            ("disclose", "ON CONFLICT (match_id, bot_id) DO NOTHING", ""),
            ("sql", "ALTER TABLE bridge.disclosures DROP CONSTRAINT disclosures_pkey"),
        ),
        seconds=12.0,
        rate=6.0,
        habits=Habits(tactful=BOTS),
    ),
    Breakage(
        "no-reservation",
        "M1",
        "a call of the model is begun without a reservation",
        ("unpaid",),
        python=True,
        seconds=8.0,
        plot={"responder": "model"},
    ),
    Breakage(
        "trusting-consumer",
        "R2",
        "a message from Redis is taken as it is",
        ("lost",),
        python=True,
        faults=("redis-junk",),
    ),
    Breakage(
        "away-counts",
        "A1",
        "a responder that is away uses up the turn's attempts",
        ("lost",),
        python=True,
        faults=("responder-away",),
    ),
)


def table() -> Table:
    """List the breakages."""
    listed = Table("breakage", "rule", "what is broken", "has to be seen as", box=None)
    for each in BREAKAGES:
        listed.add_row(each.name, each.rule, each.what, " or ".join(each.sees))
    return listed


def summary(outcome: Outcome) -> str:
    """Tell what was found, in a few words."""
    promises = ("lost", "doubled", "disordered", "early", "forbidden", "foreign", "stale")
    kinds = (*promises, "spoken_over", "undisclosed", "misremembered")
    found = {kind: getattr(outcome.ledger, kind) for kind in kinds} | {"unpaid": outcome.unpaid}
    found |= {"lit": len(outcome.lit), "unverified": len(outcome.unverified)}
    return " ".join(f"{kind}={count}" for kind, count in found.items() if count) or "nothing"
