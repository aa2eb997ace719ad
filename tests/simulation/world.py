"""Everything around the machine: writers, two schedulers, a lossy queue, workers, crashes, and the promises.

The schedulers are of this version, of the one before, or of both. One seed is one interleaving. All processes are
generators; at each step chance picks the one that goes on, until every message is written; then nothing disturbs any
more, and what is left has to be answered.
"""

from __future__ import annotations

from collections import Counter, deque
from functools import partial
from random import Random
from typing import TYPE_CHECKING

from tests.simulation.database import ACTIVE, UNFINISHED, Database, LockTimeout, UniqueViolation
from tests.simulation.machine import BUSY, MAX_ATTEMPTS, Claimed, Machine, Mistake, Push

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.simulation.database import Message, Moment, Steps, T, Transaction, Turn

MATCHES = 2
SCHEDULERS = 2
WORKERS = 3
STEPS = 400
BURSTS = (1, 1, 3, 30)
DRAIN_ROUNDS = 60


class Broken(AssertionError):
    """A promise does not hold."""


class World:
    """One interleaving."""

    def __init__(self, seed: int, mistake: Mistake | None = None) -> None:
        """Prepare the interleaving of this seed."""
        self.seed = seed
        self.chance = Random(seed)  # noqa: S311 - the same seed has to give the same interleaving
        self.database = Database(self._committed)
        self.machine = Machine(
            self.database,
            delay=self.chance.choice((0.0, 15.0)),
            max_merges=self.chance.randint(0, 2),
            slow=self.chance.choice((0, 0, 30)),
            mistake=mistake,
        )
        self.starts: dict[str, Callable[[], Steps[None]]] = {
            **{f"listener {number}": self._listener for number in range(SCHEDULERS)},
            **{f"pusher {number}": self._pusher for number in range(SCHEDULERS)},
            "deliverer": self._deliverer,
            **{f"worker {number}": self._worker for number in range(WORKERS)},
        }
        self.processes: dict[str, Steps[None]] = {"match": self._matches()}
        self.frozen: dict[str, int] = {}
        self.queue: list[Push] = []
        self.calm = False
        self.trace: deque[str] = deque(maxlen=60)
        # How things stood, for the promises.
        self.order: dict[int, int] = {}
        self.returned: dict[int, int] = {}
        self.answered: set[int] = set()
        self.opened: dict[int, int] = {}
        self.before = self.chance.random() < 0.2  # only schedulers of the version before
        self.merged: Counter[tuple[int, str]] = Counter()
        self.away = self.chance.random() < 0.2
        self.matches = self.chance.randint(1, MATCHES)
        self.writers_left = self.chance.randint(2, 8)
        self.busy: set[int] = set()
        self.waiting: dict[int, int] = {}

    # The run

    def run(self) -> None:
        """Run to the end.

        Raises:
          Broken: a promise did not hold; its text names the seed and tells the last steps.
        """
        try:
            for _ in range(STEPS):
                self._disturb()
                self._go_on(self.chance.choice([*self.starts, *self.processes]))
                if self.writers_left == 0 and not any(name.startswith("writer") for name in self.processes):
                    break
            for process in self.processes.values():
                process.close()
            self._drain()
            self._check_end()
        except Broken as broken:
            raise Broken(f"seed {self.seed}: {broken}\n" + "\n".join(self.trace)) from None

    def _disturb(self) -> None:
        """Let the clock jump, a writer come, Redis lose everything or somebody forge a push; or nothing, mostly."""
        chance = self.chance.random()
        if chance < 0.04:
            self.database.now += self.chance.choice((0.5, 2.0, 5.0, 16.0))
        elif chance < 0.06 and self.writers_left and self.database.step > 10:
            self.writers_left -= 1
            self.processes[f"writer {self.writers_left}"] = self._writer()
        elif chance < 0.07 and self.database.turns:
            turn = self.chance.choice(list(self.database.turns))
            self.queue.append(Push(turn, self.chance.choice(("compose", "deliver"))))
        elif chance < 0.075 and self.queue:
            self.queue.clear()

    def _go_on(self, name: str) -> None:
        """Let a process go on for some steps, unless it is frozen; or kill it."""
        if self.frozen.get(name, 0) > self.database.step:
            return
        if self.chance.random() < 0.02:
            self.frozen[name] = self.database.step + self.chance.choice((50, 300))
        if name not in self.processes:
            self.processes[name] = self.starts[name]()
        process = self.processes[name]
        if self.chance.random() < 0.01 and name in self.starts:
            self.trace.append(f"{name} is killed")
            process.close()
            del self.processes[name]
            return
        try:
            for _ in range(self.chance.choice(BURSTS)):
                self.database.step += 1
                next(process)
        except (StopIteration, LockTimeout, UniqueViolation) as end:
            if isinstance(end, LockTimeout | UniqueViolation):
                self.trace.append(f"{name}: {end!r}")
            del self.processes[name]

    def _drain(self) -> None:
        """Nothing fails any more: everything has to end by itself, with nobody's help but the clock's."""
        self.calm = True
        self.queue.clear()
        for _ in range(DRAIN_ROUNDS):
            if not self._unfinished():
                return
            for process in (self._listener(), self._pusher(), self._worker(), self._deliverer()):
                try:
                    for _ in process:
                        pass
                except (LockTimeout, UniqueViolation) as error:
                    self.trace.append(f"calm: {error!r}")
            due = [turn.due_at for turn in self.database.turns.values() if turn.state in UNFINISHED]
            self.database.now = max(self.database.now, min(due, default=0.0))

    def _unfinished(self) -> bool:
        ungrouped = any(event.turn is None for event in self.database.events.values())
        return ungrouped or any(turn.state in UNFINISHED for turn in self.database.turns.values())

    # The processes

    def _call(self, text: str, body: Callable[[Transaction], Steps[T]]) -> Steps[T]:
        answer = yield from self.database.run(body)
        if answer:
            self.trace.append(f"{self.database.now:g} {text}: {answer}")
        return answer

    def _matches(self) -> Steps[None]:
        for match in range(self.matches):
            yield from self._call(f"match {match}", partial(self.machine.insert_match, match=match))

    def _writer(self) -> Steps[None]:
        """One transaction of the app: a message or two, a commit that may be late, or a rollback."""

        def body(tx: Transaction) -> Steps[list[int]]:
            written = []
            for _ in range(self.chance.choice((1, 1, 2))):
                match = self.chance.choice(matches)
                message = yield from self.machine.insert_message(tx, match)
                self.returned[message] = self.database.step
                written.append(message)
            for _ in range(self.chance.choice((0, 0, 1, 5))):
                yield
            if self.chance.random() < 0.1:
                raise LockTimeout  # the app rolls back
            return written

        while not (matches := sorted({event.match for event in self.database.events.values()})):
            yield
        while True:
            try:
                yield from self._call("messages", body)
            except LockTimeout:
                yield
            else:
                return

    def _listener(self) -> Steps[None]:
        """One scheduler's thread that groups, and may be killed before it overtakes."""
        yield from self._call("group", self.machine.group_events)
        yield from self._call("overtake", self.machine.overtake)

    def _pusher(self) -> Steps[None]:
        """Its other thread, which pushes; the enqueueing may be lost, or done twice."""
        if not self.calm and self.chance.random() < 0.1:
            yield from self._call("reset", self.machine.reset_pushes)
        deliveries = self.before or (not self.calm and self.chance.random() < 0.3)
        pushes = yield from self._call("push", partial(self.machine.push_due, deliveries=deliveries))
        for push in pushes:
            self.queue += [push] * (1 if self.calm else self.chance.choice((0, 1, 1, 1, 2)))
            yield

    def _deliverer(self) -> Steps[None]:
        """Its third thread, which delivers; a scheduler of the version before has none."""
        if self.before:
            return
        outcomes = yield from self._call("deliver due", self.machine.deliver_due)
        for turn, answer in outcomes.items():
            yield from self._end_answered(turn, answer)

    def _worker(self) -> Steps[None]:
        """Work until the queue is empty."""
        while self.queue:
            place = 0 if self.calm else self.chance.randrange(len(self.queue))
            push = self.queue.pop(place)
            yield
            if push.step == "deliver":
                yield from self._deliver(push.turn)
            else:
                yield from self._compose(push.turn)

    def _deliver(self, turn: int) -> Steps[None]:
        answer = yield from self._call(f"deliver {turn}", partial(self.machine.deliver, number=turn))
        yield from self._end_answered(turn, answer)

    def _end_answered(self, turn: int, answer: str) -> Steps[None]:
        if answer == "answered" and self.machine.mistake is Mistake.ANSWER_THEN_END:
            yield from self._call(f"end {turn}", partial(self.machine.end_answered, number=turn))

    def _compose(self, turn: int) -> Steps[None]:
        token = self.database.next_id()
        claim = partial(self.machine.claim, number=turn, token=token, plain=self.chance.random() < 0.3)
        task: Claimed = yield from self._call(f"claim {turn}", claim)
        if not self.calm and self.chance.random() < 0.1:
            task = yield from self._call(f"claim {turn} again", claim)  # its answer was lost
        if task.outcome != "claimed":
            return
        for _ in range(0 if self.calm else self.chance.choice((0, 3, 10, 40))):
            yield
        chance = 1.0 if self.calm else self.chance.random()
        if chance < 0.1:
            yield from self._call(f"renew {turn}", partial(self.machine.renew, number=turn, token=token))
            for _ in range(10):
                yield
        elif chance < (0.8 if self.away else 0.15):
            # Errors count, and the last one would be the turn's death; one that is away may be so as often as it likes.
            counts = self.database.turns[turn].attempts < MAX_ATTEMPTS - 2 and self.chance.random() < 0.3
            yield from self._call(f"fail {turn}", partial(self.machine.fail, number=turn, token=token, counts=counts))
            return
        pause = 3.0 if self.calm else self.chance.choice((0.0, 3.0, 3.0))
        finish = partial(self.machine.finish, number=turn, token=token, draft=task.messages, pause=pause)
        for _ in range(2 if not self.calm and self.chance.random() < 0.1 else 1):
            answer = yield from self._call(f"finish {turn}", finish)
        yield from self._end_answered(turn, answer)

    # The promises

    def _committed(self, tx: Transaction) -> None:
        for turn in tx.turns.values():
            self._check_turn(tx.before.get(turn.id), turn, tx.began)
        for turn in tx.turns.values():
            self._note_waiting(turn.match)
        if tx.busy is not None:
            self.busy.add(tx.busy)
        self._check_awake()
        for number, old in tx.moved.items():
            if old is not None and tx.events[number].turn != old:
                self._note_merge(number, tx.superseded.get(old), tx.turns.get(tx.events[number].turn or 0))
        for message in tx.messages.values():
            self.order[message.id] = len(self.order)
            if message.turn is not None:
                began = tx.looked.get(message.turn, tx.began)
                self._check_reply(message, tx.database.turns[message.turn], began)
            else:
                opened = self.opened.get(message.match, -1)
                _promise(self.returned[message.id] >= opened, f"I4: message {message.id} came before the opener")

    def _note_merge(self, event: int, older: Turn | None, newer: Turn | None) -> None:
        """Of each message, MAX_MERGES drafts are thrown away at most, and as many calls under way are ended."""
        if older is None or (older.state == "composing" and older.token is None):
            return
        _promise(
            older.state == "typing" or not older.plain, f"E3: turn {older.id} is overtaken while it cannot be ended"
        )
        counted = older.state == "typing" or (newer is not None and newer.overtakes > older.overtakes)
        _promise(counted, f"E3: the call of turn {older.id} that was ended is forgotten")
        self.merged[event, older.state] += 1
        times = self.merged[event, older.state]
        _promise(times <= self.machine.max_merges, f"D2, E3: event {event} moved on from {older.state} {times} times")

    def _check_awake(self) -> None:
        """No turn that was found busy waits for more than its conversation's active turn."""
        for number in self.busy:
            turn = self.database.turns[number]
            if turn.kind == "reply" and turn.state == "queued" and turn.due_at > self.database.now + BUSY:
                rivals = [other for other in self.database.turns.values() if ("active", turn.match) in other.keys]
                _promise(bool(rivals), f"T7: turn {number} sleeps, and nobody is active")

    def _note_waiting(self, match: int) -> None:
        if any(("waiting", match) in turn.keys for turn in self.database.turns.values()):
            self.waiting.setdefault(match, self.database.step)
        else:
            self.waiting.pop(match, None)

    def _check_turn(self, old: Turn | None, new: Turn, began: Moment) -> None:
        turns = self.database.turns.values()
        now = self.database.now
        for key in new.keys:
            _promise(sum(key in turn.keys for turn in turns) == 1, f"I3: two turns are {key}")
        _promise(new.state != "dead", f"I1: turn {new.id} is dead")
        if old is None:
            return
        if new.pushes > old.pushes:
            self.busy.discard(new.id)
        if new.state == "composing" and old.state in {"open", "queued"}:
            early = new.kind == "reply" and now < new.opened_at + self.machine.delay
            _promise(not early, f"I5: turn {new.id} is claimed before its group closes")
        if new.state == old.state == "composing" and old.token is not None:
            _promise(new.token in {old.token, None}, f"T6: turn {new.id} is taken from its worker")
        if new.token not in {old.token, None}:
            _promise(now >= old.retry_at, f"T5: turn {new.id} is claimed before its retry_at")
            _promise(not self._passes_by(old, began), f"E1: turn {new.id} passes a waiting turn by")
        if new.reason == "superseded" and old.state in ACTIVE:
            [heir] = [turn for turn in turns if ("waiting", new.match) in turn.keys]
            _promise(
                heir.attempts >= old.attempts and heir.takeovers >= old.takeovers,
                f"E4: turn {heir.id} forgets failures",
            )
        if new.state == old.state == "typing":
            _promise(new.deliver_at == old.deliver_at, f"T5: deliver_at of turn {new.id} moves")

    def _passes_by(self, turn: Turn, began: Moment) -> bool:
        """Whether a newer turn waited when the claim began, and the turn might have been merged into it."""
        merges = self.machine.max_merges > 0 and turn.attempts + 1 < MAX_ATTEMPTS
        again = turn.kind == "reply" and turn.state == "composing" and turn.token is None
        return again and merges and self.waiting.get(turn.match, began.step) < began.step

    def _check_reply(self, reply: Message, turn: Turn, began: Moment) -> None:
        messages = self.database.messages
        _promise(self.database.now >= turn.deliver_at, f"I5: turn {turn.id} is delivered early")
        if turn.kind == "initiation":
            _promise(turn.match not in self.opened, f"I4: match {turn.match} has two openers")
            self.opened[turn.match] = began.step
            before = [
                other.id for other in messages.values()
                if other.match == turn.match and other.id != reply.id
                and self.returned.get(other.id, -1) < self.opened[turn.match]
            ]  # fmt: skip
            _promise(not before, f"I4: the opener comes after messages {before}")
            return
        _promise(bool(reply.answers), f"I2: turn {turn.id} answers nothing")
        _promise(not reply.answers & self.answered, f"I2: turn {turn.id} answers what is answered")
        self.answered |= reply.answers
        last = max(self.order[number] for number in reply.answers)
        for message in messages.values():
            if message.match == turn.match and message.turn is None and message.id not in self.answered:
                order = self.order[message.id]
                _promise(order > last, f"I3: turn {turn.id} passes over message {message.id}")
                fresh = order >= began.messages or turn.merges >= self.machine.max_merges
                _promise(fresh, f"I7: turn {turn.id} ignores message {message.id}")

    def _check_end(self) -> None:
        written = {message.id for message in self.database.messages.values() if message.turn is None}
        _promise(written == self.answered, f"I1: messages {written - self.answered} are not answered")
        _promise(not self._unfinished(), "I6: it does not come to rest")


def _promise(holds: bool, text: str) -> None:  # noqa: FBT001 - it reads as a sentence
    if not holds:
        raise Broken(text)
