"""What stands here works around Dramatiq 2.2, and goes when the named issue is solved (Bogdanp/dramatiq on GitHub).

Two more such parts stand beside what they wrap. `redis_client.redis_call`: Dramatiq takes a timeout of Redis for an
unexpected error (issue 894, pull request 895). `consumer.WaitingConsumer.ack`: Dramatiq repeats an acknowledgement for
ever while Redis is away, and the worker cannot end (no issue known).
"""

import inspect
import os
import queue
import signal
from collections.abc import Callable
from types import FrameType
from typing import Any, Final

from dramatiq import Consumer, Message, MessageProxy
from dramatiq.common import current_millis, dq_name, q_name

LOOK_SECONDS: Final = 0.25
"""How often Dramatiq's consumer thread looks for retries whose time has come."""

_KEPT: Final = "kept in memory"


class Retried(Consumer):
    """The consumer of `bot_messages.DQ`, where Dramatiq's Retries puts messages to be tried again; it asks no Redis.

    Upstream: a delayed message is written to Redis and held there by the worker that fetched it. If Redis is away for a
    while, that worker never runs it (issue 527), or several workers do (issue 431).

    Dramatiq's consumer thread keeps a message with an `eta` in memory, and then enqueues it again without one:
    `WaitingBroker.enqueue` brings it back here, and it runs in this process. If the process dies, its retries are lost,
    and the turns' due times bring them back.
    """

    def __init__(self) -> None:
        self._messages: queue.SimpleQueue[Message[Any]] = queue.SimpleQueue()

    @staticmethod
    def is_kept(message: Message[Any]) -> bool:
        """Whether a message comes back from the consumer thread that kept it."""
        return _KEPT in message.options

    def put(self, message: Message[Any], *, delay: int | None) -> Message[Any]:
        """Take a message to be run after `delay` milliseconds, or now; return it as it is handed out."""
        eta = {} if delay is None else {"eta": current_millis() + delay}
        kept = message.copy(queue_name=dq_name(q_name(message.queue_name)), options={_KEPT: True, **eta})
        kept.options.pop("traceback", None)  # which Retries adds, and which may quote a reply
        self._messages.put(kept)
        return kept

    def __next__(self) -> MessageProxy | None:
        """Return a message, or None after `LOOK_SECONDS` without one."""
        try:
            return MessageProxy(self._messages.get(timeout=LOOK_SECONDS))
        except queue.Empty:
            return None

    def ack(self, message: MessageProxy) -> None:
        """Nothing to do."""

    nack = ack


def boot_told() -> Callable[[], bool]:
    """Return a function that tells whether Dramatiq's parent process knows that this worker process is up.

    Upstream: the child sets an event that it shares with the parent, while its threads work already. If a message kills
    the child while it holds the event's lock, the parent waits for ever and starts no other worker. Dramatiq hands the
    event to no middleware, so it is looked up in the frame of the function that will set it. No issue known.
    """
    frame = inspect.currentframe()
    while frame is not None:
        if frame.f_code.co_name == "worker_process" and "event" in frame.f_locals:
            told: Callable[[], bool] = frame.f_locals["event"].is_set
            return told
        frame = frame.f_back
    return lambda: True  # a worker without such a parent, such as a test's


def handle_once(number: signal.Signals, told: Callable[[], None]) -> None:
    """Let a signal's handler run once, and call `told` before it.

    Upstream: platforms send SIGTERM to parent and children, and the parent passes it on. The child's handler takes the
    second one for an order to die at once, in the middle of a turn. No issue known.
    """
    handler: Any = signal.getsignal(number)
    called = False

    def once(signum: int, frame: FrameType | None) -> None:
        nonlocal called
        if not called:
            called = True
            told()
            handler(signum, frame)

    if callable(handler):
        signal.signal(number, once)


def orphaned() -> Callable[[], bool]:
    """Return a function that tells whether the parent of this process has died since.

    Upstream: a worker process goes on without its parent, which alone would end it and read its log (issue 788).
    """
    parent = os.getppid()
    return lambda: os.getppid() != parent
