"""`report`: the guide's final checklist, with the figures of the last hours."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from bridge_service.machine.alive import ALIVE, ROLES, SILENCE_SECONDS, count_alive
from bridge_service.machine.ledger import Accounts, open_ledger
from bridge_service.operate.output import Output, counted, short_time
from bridge_service.settings import Settings

DETECTION_MILLISECONDS: Final = 500
PUSH_MILLISECONDS: Final = 50
REDIS_ATTEMPTS_A_DAY: Final = 10
ERRORS_AN_HOUR: Final = 5
CPU_SHARE: Final = 0.5
MEMORY_BYTES: Final = 500 * 1024**2
"""The guide's goals. Those of time hold for 95 of a hundred, because one restart would break them for a day."""

GROWN_SECONDS: Final = 60
"""The processor share of a younger process is the cost of its start."""

_SPENDING_DAYS: Final = 2  # today and yesterday

_DAY_SECONDS: Final = 86400
_HOUR_SECONDS: Final = 3600
_MEGABYTE: Final = 1024**2
_MARKS: Final = {True: "✅", False: "❌", None: "-"}
_ERRORS: Final = ("redis_given_up", "postgres_refused", "fatal_error", "watchdog_barked")


@dataclass(frozen=True, slots=True)
class Check:
    """A line of the checklist.

    Attributes:
      ok: None if nothing happened that could show it.
      detail: the figure.
    """

    name: str
    ok: bool | None
    detail: str


@dataclass(frozen=True, slots=True)
class _Facts:
    seconds: float
    figures: Mapping[str, Any]
    accounts: Accounts
    processes: Sequence[Mapping[str, Any]]
    alive: Mapping[str, int]
    spending: Sequence[Mapping[str, Any]]

    def noted(self, *kinds: str) -> int:
        return sum(self.figures["incidents"].get(kind, 0) for kind in kinds)


def run(settings: Settings, output: Output, seconds: float) -> bool:
    """Report on the last `seconds`, and return whether the whole checklist holds."""
    with open_ledger(settings.database_url, "report") as ledger:
        delay = ledger.policy()["grouping_delay"]
        facts = _Facts(
            seconds,
            ledger.report(seconds),
            ledger.verify(settings.retention_days),
            ledger.processes(seconds, SILENCE_SECONDS),
            count_alive(ledger.processes(SILENCE_SECONDS, SILENCE_SECONDS)),
            ledger.spending(_SPENDING_DAYS),
        )
    checks = [*_core(facts), *_robustness(facts), *_performance(facts, delay)]
    output.document(
        {
            "since_seconds": seconds,
            **facts.figures,
            "unaccounted": facts.accounts.unaccounted,
            "doubled": facts.accounts.doubled,
            "undisclosed": facts.accounts.undisclosed,
            "processes": list(facts.processes),
            "spending": list(facts.spending),
            "checks": [asdict(check) for check in checks],
        }
    )
    output.table(["", "what", "figure"], [(_MARKS[check.ok], check.name, check.detail) for check in checks])
    output.say("")
    output.table(["ms", "p50", "p95", "p99", "max", "of"], [_spread(name, facts.figures[name]) for name in _SPREADS])
    if facts.processes:
        output.say("")
        output.table(
            ["process", "started (UTC)", "state", "memory", "at most", "processor"], map(_process, facts.processes)
        )
    if facts.spending:
        output.say("")
        output.table(["bot", "day", "calls", "tokens in", "out", "cost"], map(_spent, facts.spending))
        output.say(_calls(facts.figures["calls"]))
    for check in checks:
        if check.ok is False:
            output.complain(f"{check.name}: {check.detail}")
    return all(check.ok is not False for check in checks)


_SPREADS: Final = ("detection", "push", "reply", "lateness")


def _core(facts: _Facts) -> Iterator[Check]:
    messages, groups, openers = (facts.figures[name] for name in ("messages", "groups", "openers"))
    yield Check(
        "messages answered",
        messages["dead"] + messages["set_aside"] == 0 if messages["captured"] else None,
        f"{messages['answered']} of {messages['captured']}; {messages['open']} under way,"
        f" {messages['cancelled']} cancelled, {messages['dead']} dead, {messages['set_aside']} set aside",
    )
    lost, doubled = facts.accounts.unaccounted, facts.accounts.doubled
    yield Check(
        "no message lost or doubled", lost + doubled == 0, f"{lost} unaccounted for, {doubled} doubled (`verify`)"
    )
    undisclosed = facts.accounts.undisclosed
    yield Check("disclosures said", undisclosed == 0, f"{counted(undisclosed, 'conversation')} without (`verify`)")
    yield Check(
        "grouping",
        groups["early"] == 0 if groups["pushed"] else None,
        f"{counted(groups['pushed'], 'group')}, {groups['of_three']} of three messages or more",
    )
    tact = facts.figures["tact"]
    yield Check(
        "humans, disclosures, distress",
        None if not any(tact.values()) else True,
        f"{counted(tact['humans'], 'conversation')} taken over, {counted(tact['disclosed'], 'disclosure')} said,"
        f" {counted(tact['distressed'], 'conversation')} with a word of distress",
    )
    reply = facts.figures["reply"]
    yield Check(
        "answers at a human pace",
        True if reply["count"] else None,
        f"half of them within {reply['p50'] / 1000:.1f} s of being taken up" if reply["count"] else "none",
    )
    yield Check(
        "first words",
        openers["dead"] == 0 if openers["answered"] + openers["dead"] else None,
        f"{openers['answered']} said, {openers['waiting']} planned, {openers['not_drawn']} not drawn,"
        f" {openers['cancelled']} overtaken by a message, {openers['dead']} dead",
    )


def _robustness(facts: _Facts) -> Iterator[Check]:
    days = max(1.0, facts.seconds / _DAY_SECONDS)
    attempts, given_up = facts.noted("redis_attempt_failed"), facts.noted("redis_given_up")
    yield Check("Redis never given up", given_up == 0, counted(given_up, "outage"))
    yield Check(
        "few Redis retries",
        attempts < REDIS_ATTEMPTS_A_DAY * days,
        f"{attempts}, and {counted(facts.noted('redis_reconnected'), 'reconnection')}",
    )
    lost = facts.noted("postgres_lost")
    yield Check("PostgreSQL always answered", lost == 0, counted(lost, "failed call"))
    vanished = sum(process["state"] == "vanished" for process in facts.processes)
    fell, takeovers = facts.noted("fatal_error", "watchdog_barked"), facts.figures["takeovers"]
    yield Check(
        "no crash",
        vanished + fell + takeovers == 0,
        f"processes: {vanished} vanished, {fell} ended themselves; {counted(takeovers, 'turn')} taken over",
    )
    failed, dead = facts.figures["failed_attempts"], facts.figures["dead"]
    errors = failed + dead + facts.figures["messages"]["set_aside"] + facts.noted(*_ERRORS)
    hours = max(1.0, facts.seconds / _HOUR_SECONDS)
    yield Check(
        "few errors",
        errors <= ERRORS_AN_HOUR * hours and dead == 0,
        f"{errors / hours:.1f} an hour; {counted(failed, 'failed attempt')}, {counted(dead, 'dead turn')}",
    )
    yield Check(
        "processes alive",
        all(facts.alive.values()),
        ", ".join(counted(facts.alive[role], role) for role in ROLES),
    )


def _performance(facts: _Facts, delay: float) -> Iterator[Check]:
    for name, key, goal in (
        ("detection", "detection", DETECTION_MILLISECONDS),
        ("push", "push", PUSH_MILLISECONDS),
    ):
        spread = facts.figures[key]
        yield Check(
            f"{name} within {goal} ms",
            spread["p95"] < goal if spread["count"] else None,
            f"95 % within {spread['p95']:g} ms" if spread["count"] else "none",
        )
    groups = facts.figures["groups"]
    yield Check(
        f"groups stay open for {delay:g} s",
        groups["early"] == 0 if groups["pushed"] else None,
        f"{groups['early']} pushed before",
    )
    living = [process for process in facts.processes if process["state"] == ALIVE]
    grown = [process for process in living if process["uptime_seconds"] >= GROWN_SECONDS]
    share = max((process["cpu_share"] for process in grown), default=0.0)
    memory = max((process["rss_peak_bytes"] for process in living), default=0)
    yield Check(
        f"processor below {CPU_SHARE:.0%}",
        share < CPU_SHARE if grown else None,
        f"at most {share:.1%} of one for one process, on average since its start" if grown else "not known yet",
    )
    yield Check(
        f"memory below {MEMORY_BYTES // _MEGABYTE} MB",
        memory < MEMORY_BYTES if living else None,
        f"at most {memory / _MEGABYTE:.0f} MB for one process" if living else "not known",
    )


def _spread(name: str, spread: Mapping[str, Any]) -> tuple[object, ...]:
    return (name, spread["p50"], spread["p95"], spread["p99"], spread["max"], spread["count"])


def _process(process: Mapping[str, Any]) -> tuple[object, ...]:
    return (
        process["role"],
        short_time(process["started_at"]),
        process["state"],
        f"{process['rss_bytes'] / _MEGABYTE:.0f} MB",
        f"{process['rss_peak_bytes'] / _MEGABYTE:.0f} MB",
        f"{process['cpu_share']:.1%}",
    )


def _spent(row: Mapping[str, Any]) -> tuple[object, ...]:
    day = ("today", "yesterday")[row["days_ago"]]
    if row["limited"]:
        day += ", at its limit"
    cost = "no price" if row["cost"] is None else f"{row['cost']:.2f}"
    return (row["bot_id"], day, row["calls"], row["tokens_in"], row["tokens_out"], cost)


def _calls(calls: Mapping[str, int]) -> str:
    """Say what newer messages cost and spared: of a reply that they superseded before its call, nothing was spent."""
    return (
        f"{counted(calls['begun'], 'call')}: {calls['discarded']} for replies that newer messages superseded,"
        f" {calls['cancelled']} cancelled under way, {calls['unsettled']} of unknown cost (counted in full);"
        f" {calls['spared']} spared, superseded before a call"
    )
