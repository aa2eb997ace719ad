"""`python -m tests.chaos`: conversations under faults, and whether every promise was kept. See --help."""

from __future__ import annotations

import secrets
import shlex
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from tests.chaos import recovery, sabotage, timeline
from tests.chaos.faults import KINDS, kinds_for
from tests.chaos.nemesis import Rhythm
from tests.chaos.run import Plot, play
from tests.chaos.script import BOTS, Habits

if TYPE_CHECKING:
    from tests.chaos.run import Outcome
    from tests.chaos.run import Progress as Standing

SLOWEST_SHOWN = 8

FINDINGS_SHOWN = 20

app = typer.Typer(add_completion=False, rich_markup_mode=None)
console = Console(highlight=False, soft_wrap=True)
if not console.is_terminal:
    console.width = 180  # a log is as wide as its lines


@app.command()
def chaos(
    *,
    seed: Annotated[
        int | None, typer.Option(help="Decides everything that chance decides; printed, to be given again.")
    ] = None,
    messages: Annotated[int | None, typer.Option(min=10, help="How many messages people write.")] = None,
    seconds: Annotated[float | None, typer.Option(min=5, help="Instead: for how long they write.")] = None,
    rate: Annotated[float, typer.Option(min=0.1, help="Messages a second.")] = 15.0,
    delay: Annotated[float, typer.Option(min=0, help="GROUPING_DELAY.")] = 1.0,
    merges: Annotated[int, typer.Option(min=0, help="MAX_MERGES.")] = 3,
    faults: Annotated[
        str, typer.Option(help="Kinds of fault, with commas; a part of a name means all that have it; or none.")
    ] = "",
    at_once: Annotated[int, typer.Option(min=1, help="How many faults may begin together.")] = 3,
    pause: Annotated[float | None, typer.Option(min=0, help="Seconds between two episodes; default: 1.5 to 4.")] = None,
    lasting: Annotated[
        float | None, typer.Option(min=0.1, help="Seconds that every fault lasts, instead of what --list says.")
    ] = None,
    model: Annotated[
        bool, typer.Option("--model", help="RESPONDER=openai, with a model's server that breaks, too.")
    ] = False,
    tact: Annotated[
        bool,
        typer.Option("--tact", help="All bots have replies of three messages, a disclosure and humans beside them."),
    ] = False,
    settle: Annotated[float, typer.Option(min=1, help="Seconds to wait for the last answers.")] = 60.0,
    out: Annotated[Path | None, typer.Option(help="Folder for the picture and the processes' lines.")] = None,
    sabotage_: Annotated[
        str, typer.Option("--sabotage", help="Break the service on purpose and see it caught: a name, or all.")
    ] = "",
    show: Annotated[bool, typer.Option("--list", help="List the kinds of fault and the breakages.")] = False,
) -> None:
    """Kill, freeze, cut, stall, fill and confuse everything, and check that no promise breaks.

    Without --messages and --seconds every kind of fault comes once. Without --model an even seed has a plain responder,
    an odd one an async one. The exit code is 1 if a promise was broken, or a
    breakage was not caught. Without --tact a quarter of the bots has tact, with --model none.
    """
    if show:
        _list()
        return
    out = out or Path(tempfile.mkdtemp(prefix="bridge-chaos-report-"))
    if sabotage_:
        raise typer.Exit(0 if _sabotage(sabotage_, out) else 1)
    if tact and model:
        raise typer.BadParameter("--tact needs a responder that marks its messages, so leave --model out")
    _clear(out)
    seed = secrets.randbelow(10**6) if seed is None else seed
    kinds = _kinds(faults, kinds_for(model=model))
    plot = Plot(
        seed=seed,
        messages=round(seconds * rate) if seconds is not None else messages,
        rate=rate,
        faults=kinds,
        rhythm=Rhythm(at_once, (1.5, 4.0) if pause is None else (pause, pause), lasting),
        habits=Habits(delay=delay, tactful=0 if model else BOTS if tact else BOTS // 4),
        max_merges=merges,
        settle=settle,
        responder="model" if model else ("plain", "async")[seed % 2],
    )
    outcome = _show(plot, out)
    _report(plot, outcome, out)
    raise typer.Exit(0 if outcome.passed else 1)


def _clear(folder: Path) -> None:
    """Make a folder, and take out what a run before left there."""
    folder.mkdir(parents=True, exist_ok=True)
    for file in (*folder.glob("*.log"), *folder.glob("*.svg")):
        file.unlink()


def _kinds(text: str, all_kinds: tuple[str, ...]) -> tuple[str, ...]:
    if text == "none":
        return ()
    parts = [part for part in text.split(",") if part]
    chosen = tuple(
        kind
        for kind in all_kinds
        if not parts or any(part == kind or (part not in KINDS and part in kind) for part in parts)
    )
    if not chosen:
        raise typer.BadParameter("no such fault; see --list")
    return chosen


def _show(plot: Plot, out: Path) -> Outcome:
    """Play a run behind a progress bar."""
    columns = (
        TextColumn("{task.description:<9}"),
        BarColumn(30),
        TimeElapsedColumn(),
        TextColumn("sent {task.fields[sent]}  {task.fields[active]}"),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("starting", total=None, sent=0, active="")

        def tell(standing: Standing) -> None:
            active = ", ".join(standing.active)
            bar.update(
                task,
                description=standing.phase,
                completed=standing.seconds,
                total=standing.of_seconds,
                sent=standing.sent,
                active=active,
            )

        return play(plot, out, tell)


def _report(plot: Plot, outcome: Outcome, out: Path) -> None:
    for finding in outcome.ledger.findings[:FINDINGS_SHOWN]:
        console.print(f"  {finding}", markup=False)
    for words in outcome.unhealed:
        console.print(f"  the kit failed: {words}", markup=False)
    for code, count in outcome.hurt.items():
        console.print(f"  the app was hurt: SQLSTATE {code}, {count} times", markup=False)
    for words in (*outcome.lit, *outcome.unverified):
        console.print(f"  {words}", markup=False)
    if plot.habits.tactful:
        console.print(f"tact: {_told_of_tact(outcome)}", markup=False)
    if plot.responder == "model":
        console.print(f"calls of the model: {outcome.asked}, not reserved before: {outcome.unpaid}", markup=False)
    _report_recoveries(outcome)
    _report_processes(outcome)
    picture = out / "timeline.svg"
    line = recovery.verdict(outcome.ledger, len(outcome.bands))
    title = f"seed {plot.seed}: {line}"
    picture.write_text(
        timeline.draw(title, (outcome.began, outcome.ended), outcome.bands, outcome.ledger.dots, outcome.exits),
        encoding="utf-8",
    )
    console.print(f"picture: {picture}", markup=False)
    if not outcome.passed:
        again = sys.argv[1:] if "--seed" in sys.argv else [*sys.argv[1:], "--seed", str(plot.seed)]
        console.print(f'once more: make chaos ARGS="{shlex.join(again)}"', markup=False)
    console.print(f"seed={plot.seed} {line}", markup=False)


def _told_of_tact(outcome: Outcome) -> str:
    ledger = outcome.ledger
    deeds = ", ".join(f"{count} {kind}" for kind, count in outcome.deeds.items())
    return (
        f"{ledger.several} replies of several messages, {ledger.interrupted} interrupted; {deeds};"
        f" indicators seen on {outcome.lamps} times, too long {len(outcome.lit)}"
    )


def _report_recoveries(outcome: Outcome) -> None:
    seconds, kind = outcome.calm
    console.print(f"longest wait while no fault was there: {seconds:.1f} s, after {kind}", markup=False)
    slowest = sorted(outcome.recoveries, key=lambda each: (-each.unanswered, -each.catch_up))[:SLOWEST_SHOWN]
    if not slowest:
        return
    table = Table("slowest catch-ups", "at", "lasted", "catch-up", "unanswered", "beside", box=None)
    for each in slowest:
        table.add_row(
            each.kind,
            f"{each.began - outcome.began:.0f} s",
            f"{each.healed - each.began:.1f} s",
            f"{each.catch_up:.1f} s",
            str(each.unanswered),
            ", ".join(each.beside) if len(each.beside) <= 3 else f"{len(each.beside)} others",
        )
    console.print(table)


def _report_processes(outcome: Outcome) -> None:
    exits = Counter(f"{each.name.partition('.')[0]} {each.code}" for each in outcome.exits)
    if exits:
        told = ", ".join(f"{name} x{count}" for name, count in sorted(exits.items()))
        console.print(f"exits (role and code): {told}", markup=False)
    before, after = outcome.threads
    if any(fewer < more for role in before for fewer, more in zip(after[role], before[role], strict=False)):
        console.print(f"threads before {dict(before)} and after {dict(after)}", markup=False)
    bad = {post: code for post, code in outcome.codes.items() if code != 0}
    if bad:
        console.print(f"SIGTERM at the end: {bad} (None: not within its time)", markup=False)
    for count, shape in outcome.loud[:FINDINGS_SHOWN]:
        console.print(f"loud: {count} lines in one second: {shape}", markup=False)
    for shape, count in sorted(outcome.alarming.items(), key=lambda item: -item[1])[:FINDINGS_SHOWN]:
        console.print(f"alarming: {count} lines: {shape}", markup=False)


def _list() -> None:
    table = Table("fault", "touches", "seconds", "what", box=None)
    for name, kind in KINDS.items():
        what = next(doc for each in kind.__mro__ if (doc := each.__doc__))
        table.add_row(name, kind.target.value, "{:g}-{:g}".format(*kind.seconds), what.partition("\n")[0])
    console.print(table)
    console.print()
    console.print(sabotage.table())


def _sabotage(name: str, out: Path) -> bool:
    chosen = [each for each in sabotage.BREAKAGES if name in ("all", each.name)]
    if not chosen:
        raise typer.BadParameter("no such breakage; see --list")
    table = Table("breakage", "what is broken", "faults", "intact", "broken", "caught", "seconds", box=None)
    caught_all = True
    for breakage in chosen:
        began = time.monotonic()
        results = []
        for broken in (False, True):
            folder = out / breakage.name / ("broken" if broken else "intact")
            _clear(folder)
            results.append(_show(breakage.run(broken=broken), folder))
        intact, broken_ = results
        caught = intact.passed and breakage.caught(broken_)
        caught_all &= caught
        table.add_row(
            breakage.name,
            breakage.what,
            ", ".join(breakage.faults),
            "passes" if intact.passed else f"FAILS: {sabotage.summary(intact)}",
            sabotage.summary(broken_),
            "yes" if caught else "NO",
            f"{time.monotonic() - began:.0f}",
        )
    console.print(table)
    return caught_all


if __name__ == "__main__":
    app()
