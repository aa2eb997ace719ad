"""The budget of a worker process: reservations and settlements in PostgreSQL, on a few threads of its own (M1)."""

import asyncio
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Final

from bridge_service.errors import BridgeError, DatabaseBusy, OverLimit, ResponderUnavailable
from bridge_service.machine.steps import Store
from bridge_service.responders.budget import Call
from bridge_service.telemetry.signals import CallSettled, Emit, database_trouble

THREADS: Final = 4
"""Calls of PostgreSQL at once. Reservations for one bot wait for each other there anyway."""


class StoredBudget:
    """Reserves on the event loop that asks, without blocking it; see responders.budget.Budget.

    It fails closed: without a stored reservation no call is begun.
    """

    def __init__(self, store: Store, emit: Emit) -> None:
        self._store = store
        self._emit = emit
        self._jobs: queue.SimpleQueue[Callable[[], object]] = queue.SimpleQueue()
        self._guard = threading.Lock()
        self._started = False

    async def reserve(self, call: Call) -> None:
        """Reserve; see Budget."""
        reserving: Future[Any] = Future()
        self._do(lambda: _run(reserving, lambda: self._store.reserve_call(call)))
        try:
            answer = await asyncio.wrap_future(reserving)
        except BridgeError as error:
            if not isinstance(error, DatabaseBusy):
                self._emit(database_trouble(error))
            raise ResponderUnavailable("PostgreSQL reserves no call of the model") from None
        match answer["outcome"]:
            case "over":
                raise OverLimit(answer["cause"])
            case "later":
                raise ResponderUnavailable("calls under way may use up the limit", retry_after=answer["retry"])
            case "fenced":
                raise ResponderUnavailable("the turn was given away")

    def settle(self, call: Call, spent: tuple[int, int] | None, outcome: str) -> None:
        """Settle; see Budget. If PostgreSQL is away the call keeps its reservation."""
        self._do(lambda: self._settle(call, spent, outcome))

    def _settle(self, call: Call, spent: tuple[int, int] | None, outcome: str) -> None:
        self._emit(CallSettled(call.turn_id, outcome, *(spent or (call.tokens_in, call.tokens_out))))
        try:
            self._store.settle_call(call, spent, outcome)
        except BridgeError as error:
            self._emit(database_trouble(error))

    def _do(self, job: Callable[[], object]) -> None:
        with self._guard:
            if not self._started:
                self._started = True
                for number in range(THREADS):
                    # Daemons: a process that ends does not wait for a PostgreSQL that is silent.
                    threading.Thread(target=self._work, name=f"budget {number}", daemon=True).start()
        self._jobs.put(job)

    def _work(self) -> None:
        while True:
            self._jobs.get()()


def _run(future: Future[Any], call: Callable[[], object]) -> None:
    if not future.set_running_or_notify_cancel():
        return  # the reply was given up before its reservation was begun
    try:
        future.set_result(call())
    except BaseException as error:  # noqa: BLE001 - it is raised to whom it concerns
        future.set_exception(error)
