"""`replay`: messages that no event knows, captured now."""

from datetime import datetime

import typer

from bridge_service.ledger import REPLAY_BATCH, open_ledger
from bridge_service.output import Output, counted
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
    """Capture batch after batch; return whether that was allowed.

    Parameters:
      since, until: aware, by the app's times; None: as far back as is allowed, until now.
      match_id: one conversation only.
      ask: before anything from before the installation is captured.
    """
    captured = old = given_back = 0
    with open_ledger(settings.database_url, "replay") as ledger:
        if ask and not dry_run:
            all_of_it = ledger.replay(since, until, match_id, retention_days=settings.retention_days, dry_run=True)
            question = f"{counted(all_of_it.found, 'message')} would be captured. {_old(all_of_it.old)}. Go on?"
            if all_of_it.old and not typer.confirm(question):
                output.complain("Nothing was captured: leave them out with --since.")
                return False
        while True:
            batch = ledger.replay(since, until, match_id, retention_days=settings.retention_days, dry_run=dry_run)
            if batch.too_old:
                output.complain(
                    f"--since: not before {batch.too_old:%Y-%m-%dT%H:%M:%SZ}, half of RETENTION_DAYS ago:"
                    " what is older may have been answered and forgotten"
                )
                return False
            captured += batch.captured
            old += batch.old
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
    if given_back:
        verb = "would be" if dry_run else "were"
        output.say(f"{counted(given_back, 'event')} that had been set aside {verb} given back.")
    return True


def _old(number: int) -> str:
    verb = "is" if number == 1 else "are"
    return f"{counted(number, 'message')} {verb} from before the installation"
