"""What a run with faults adds to the books of tests/support/ledger.py: its line, and each fault's recovery."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.chaos.nemesis import Band
    from tests.support.ledger import Ledger, Waited


def verdict(ledger: Ledger, faults: int) -> str:
    """Return the books in one line; `faults` is how many were played."""
    return (
        f"sent={ledger.sent} lost={ledger.lost} doubled={ledger.doubled} disordered={ledger.disordered}"
        f" early={ledger.early} forbidden={ledger.forbidden + ledger.foreign} stale={ledger.stale}"
        f" spoken_over={ledger.spoken_over} undisclosed={ledger.undisclosed} misremembered={ledger.misremembered}"
        f" late_p99={ledger.late_p99:.2f}s faults={faults}"
    )


def frozen(bands: Sequence[Band]) -> tuple[tuple[float, float], ...]:
    """Return the times in which PostgreSQL stood still."""
    return tuple((band.began, band.healed or inf) for band in bands if band.freezes_postgres)


@dataclass(frozen=True, slots=True)
class Recovery:
    """How the service recovered from a fault.

    Attributes:
      catch_up: seconds from its healing to the last reply that was due by then, or soon after.
      unanswered: messages of its time that never got a reply.
      beside: other faults that were there before it was caught up.
    """

    kind: str
    began: float
    healed: float
    catch_up: float
    unanswered: int
    beside: tuple[str, ...]


def recoveries(bands: Sequence[Band], waited: Sequence[Waited], soon: float = 2.0) -> list[Recovery]:
    """Tell of each fault how long it took until every message of its time was answered.

    Parameters:
      soon: an answer that was due within so many seconds after the healing counts too.
    """
    found = []
    for band in sorted(bands, key=lambda each: each.began):
        healed = band.healed or band.began
        theirs = [each for each in waited if band.began <= each.due <= healed + soon]
        late = [each.answered - max(healed, each.due) for each in theirs if each.answered is not None]
        catch_up = max(0.0, max(late, default=0.0))
        beside = tuple(
            other.kind
            for other in bands
            if other is not band
            and other.began <= healed + max(soon, catch_up)
            and (other.healed or other.began) >= band.began
        )
        unanswered = sum(each.answered is None for each in theirs)
        found.append(Recovery(band.kind, band.began, healed, catch_up, unanswered, beside))
    return found


def longest_wait_in_calm(bands: Sequence[Band], waited: Sequence[Waited]) -> tuple[float, str]:
    """Return the most seconds for which an answer was overdue while no fault was there, and the fault before."""
    longest = (0.0, "no fault")
    for each in waited:
        if each.answered is None or any(_was_there(band, each.answered) for band in bands):
            continue
        before = [band for band in bands if band.healed is not None and band.healed <= each.answered]
        last = max(before, key=lambda band: band.healed or 0.0, default=None)
        since = each.due if last is None or last.healed is None else max(each.due, last.healed)
        longest = max(longest, (each.answered - since, "no fault" if last is None else last.kind))
    return longest


def _was_there(band: Band, at: float) -> bool:
    return band.began <= at and (band.healed is None or band.healed > at)
