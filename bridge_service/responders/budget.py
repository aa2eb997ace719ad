"""Who pays for the calls of a model: each is reserved before it is begun, and settled when its cost is known (M1).

The worker gives its budget to the process with `use`, before it imports the responder.
"""

from dataclasses import dataclass
from typing import Protocol
from uuid import UUID


@dataclass(frozen=True, slots=True)
class Call:
    """One request to a model's server. `claim` and `number` are its key.

    Attributes:
      claim: of the task; see Task.
      number: of the call within its claim, from 1.
      tokens_in, tokens_out: what it costs at most.
      seconds: after which its request times out.
    """

    claim: UUID | None
    number: int
    turn_id: int
    model: str
    tokens_in: int
    tokens_out: int
    seconds: float


class Budget(Protocol):
    """What a responder that spends money asks."""

    async def reserve(self, call: Call) -> None:
        """Return if the call may be begun.

        Raises:
          OverLimit: a limit is reached.
          ResponderUnavailable: it may be begun later, or the reservation could not be stored.
        """

    def settle(self, call: Call, spent: tuple[int, int] | None, outcome: str) -> None:
        """Note what a call came to; returns at once.

        Parameters:
          spent: tokens in and out; None: unknown, and the call keeps its reservation.
          outcome: answered, refused or cancelled.
        """


_of_process: Budget | None = None


def use(budget: Budget) -> None:
    """Let this process's responder spend from a budget."""
    global _of_process  # noqa: PLW0603 - a responder is a function that only a module's name finds
    _of_process = budget


def of_process() -> Budget:
    """Return the budget of this process.

    Raises:
      RuntimeError: there is none, so nothing may be spent.
    """
    if _of_process is None:
        raise RuntimeError("no budget: only a worker may spend")
    return _of_process
