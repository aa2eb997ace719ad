"""`replay`: captures messages that are owed an answer and have no turn."""

from datetime import datetime

import typer

from bridge_service.machine.ledger import REPLAY_BATCH, open_ledger
from bridge_service.operate.output import Output, counted
from bridge_service.settings import Settings


def run(
    settings: Settings,
    output: Output,
    since: datetime | None,
    until: datetime | None,
    match_id: str | None,
    *,
    dry_run: bool,
    ask: bool,
) -> bool:
    """Capture batch after batch; return False if the operator said no.

    Parameters:
      since, until: with a time zone, by the app's times; None: as far back as `verify` looks, until now.
      match_id: one conversation only.
      ask: ask before messages from before the installation are captured.
    """
    captured = old = ignored = given_back = 0
    with open_ledger(settings.database_url, "replay") as ledger:
        if ask and not dry_run:
            all_of_it = ledger.replay(since, until, match_id, retention_days=settings.retention_days, dry_run=True)
            question = f"{counted(all_of_it.found, 'message')} would be captured. {_old(all_of_it.old)}. Go on?"
            if all_of_it.old and not typer.confirm(question):
                output.complain("Nothing was captured: leave them out with --since.")
                return False
        while True:
            batch = ledger.replay(since, until, match_id, retention_days=settings.retention_days, dry_run=dry_run)
            captured += batch.captured
            old += batch.old
            ignored += batch.ignored
            given_back += batch.given_back
            if dry_run or not batch.captured or batch.found < REPLAY_BATCH:
                break
            output.say(f"{counted(captured, 'message')} so far ...")
    if dry_run:
        output.say(f"{counted(batch.found, 'message')} would be captured.")
    else:
        output.say(f"{counted(captured, 'message')} captured.")
    if old:
        output.say(f"{_old(old)}.")
    if ignored:
        verb = "is" if ignored == 1 else "are"
        output.say(f"{counted(ignored, 'message')} {verb} older than IGNORE_OLDER_DAYS: kept, and not answered.")
    if given_back:
        back = f"{counted(given_back, 'event')} that had been set aside {'would be' if dry_run else 'were'} given back"
        output.say(f"{back}, those cancelled as gone included.")
    return True


def _old(number: int) -> str:
    verb = "is" if number == 1 else "are"
    return f"{counted(number, 'message')} {verb} from before the installation"
