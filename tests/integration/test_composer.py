from __future__ import annotations

import asyncio
import logging
import sys
import threading
from contextlib import ExitStack, closing
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID, uuid4

import pytest
from dramatiq.middleware import Interrupt, Shutdown, TimeLimitExceeded

from bridge_service.errors import (
    BridgeError,
    DatabaseBusy,
    DatabaseUnavailable,
    OverLimit,
    ResponderUnavailable,
    RightMissing,
    SchemaMissing,
)
from bridge_service.machine.database import Connection
from bridge_service.machine.ledger import Ledger
from bridge_service.responders import echo
from bridge_service.responders.budget import Call
from bridge_service.telemetry.signals import (
    Distress,
    DuplicatePrevented,
    PostgresLost,
    PostgresRefused,
    ReplyDelivered,
    ReplyInterrupted,
    ResponderAway,
    Signal,
    TurnCancelled,
    TurnClaimed,
    TurnDead,
    TurnFailed,
    TurnHeld,
    TurnSilent,
    TurnSuperseded,
    TurnTyping,
)
from bridge_service.turns import Kind, Reply
from bridge_service.worker import composer as composer_module
from bridge_service.worker.calls import Calls
from bridge_service.worker.composer import Composer
from bridge_service.worker.leases import Leases
from bridge_service.worker.pacing import Pace
from tests.support.app import CAMILLE, HUGO, LEA, App
from tests.support.clock import advance, install_clock, stop
from tests.support.databases import copy_of, execute, install, make_template
from tests.support.policy import MAX_ATTEMPTS, MAX_TAKEOVERS, set_grouping, set_policy
from tests.support.recorder import Recorder
from tests.support.roles import OWNER
from tests.support.store import store_on

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from bridge_service.demo.servers import PostgresServer
    from bridge_service.turns import Task
    from tests.support.roles import Urls

DELAY: Final = 15.0
LATER: Final = 21.0
"""Seconds after which every lease has run out and every push is believed lost."""

PAUSES: Final = (0.01, 0.01, 0.01)

AT_ONCE: Final = Pace(0.0, 0.0, 0.0)
SLOWLY: Final = Pace(3.0, 3.0, 0.0)


class Desk:
    """A worker whose responder, a plain one, is the test's, and the app that it answers."""

    def __init__(self, urls: Urls, stack: ExitStack) -> None:
        self.urls = urls
        self.app = stack.enter_context(closing(App(urls)))
        self.store = stack.enter_context(store_on(urls))
        self.told = Recorder()
        self.leases = Leases(self.store, self.told, responder_timeout=180.0)
        self.asked: list[Task] = []
        self.respond: Callable[[Task], Any] = echo.reply
        set_grouping(urls, DELAY)

    def composer(self, pace: Pace = AT_ONCE, max_merges: int = 3, store: Any = None) -> Composer:  # noqa: ANN401
        """Set what policy says of the pause and of merges, and return a composer."""
        set_policy(self.urls, max_merges=max_merges, **asdict(pace))
        return Composer(store or self.store, self.leases, self._responder, self.told)

    def _responder(self, task: Task) -> Any:  # noqa: ANN401 - some of them return what they must not
        self.asked.append(task)
        return self.respond(task)

    def push(self, seconds: float = DELAY) -> None:
        """Group what was written, and push what is due so many seconds later."""
        self.store.group()
        advance(self.urls, seconds)
        self.store.push_due(100)

    def pushed(self, *texts: str) -> tuple[str, int]:
        """Write messages in a match of their own and push the turn: both ids."""
        match = self.app.old_match()
        for text in texts or ("salut",):
            self.app.write(match, text)
        self.push()
        return match, self.turn(match)

    def turn(self, match: str) -> int:
        """Return the id of the latest turn of a match."""
        return int(self.app.value("SELECT max(id) FROM bridge.turns WHERE match_id = %s", match))

    def column(self, turn: int, name: str) -> Any:  # noqa: ANN401
        """Return a column of a turn."""
        return self.app.value(f"SELECT {name} FROM bridge.turns WHERE id = %s", turn)  # noqa: S608 - ours

    def due_in(self, turn: int) -> float:
        """Seconds until a turn is due."""
        seconds = self.app.value(
            "SELECT extract(epoch FROM due_at - bridge.now()) FROM bridge.turns WHERE id = %s", turn
        )
        return round(float(seconds), 1)

    def told_of(self, *kinds: type[Signal]) -> list[type[Signal]]:
        """Return the kinds of all that was told; of `kinds` only, if any are named."""
        return [type(event) for event in self.told.signals if not kinds or isinstance(event, kinds)]


class AsyncDesk(Desk):
    """The same with an async responder; what a test calls returns when the calls that it began are over."""

    def __init__(self, urls: Urls, stack: ExitStack) -> None:
        super().__init__(urls, stack)
        self.calls = Calls(2)
        self.calls.start()
        stack.callback(self.calls.stop, 5)

    def composer(self, pace: Pace = AT_ONCE, max_merges: int = 3, store: Any = None) -> Composer:  # noqa: ANN401
        """As the other desk's."""
        super().composer(pace, max_merges)
        composer = _Waiting(store or self.store, self.leases, self._async_responder, self.told)
        composer.calls = self.calls
        return composer

    async def _async_responder(self, task: Task) -> Any:  # noqa: ANN401
        return self._responder(task)


class _Waiting(Composer):
    def compose(self, turn_id: int) -> None:
        super().compose(turn_id)
        if threading.current_thread() is threading.main_thread():
            self._leases.drain()


both: Final = pytest.mark.parametrize("desk", [Desk, AsyncDesk], ids=["plain", "async"], indirect=True)
"""Runs a test with a plain responder and with an async one: the same rules hold for both."""


@pytest.fixture
def desk(request: pytest.FixtureRequest, bridge_database: Urls) -> Iterator[Desk]:
    """Give a worker on a database whose clock a test moves."""
    install_clock(bridge_database)
    stop(bridge_database)
    with ExitStack() as stack:
        yield getattr(request, "param", Desk)(bridge_database, stack)


@pytest.fixture
def async_desk(bridge_database: Urls) -> Iterator[Desk]:
    """Give the same with an async responder."""
    install_clock(bridge_database)
    stop(bridge_database)
    with ExitStack() as stack:
        yield AsyncDesk(bridge_database, stack)


class Failing:
    """A store to which `finish` and `fail` fail with each of some errors, in turn, before they succeed."""

    def __init__(self, store: Any, errors: list[BridgeError]) -> None:  # noqa: ANN401
        self._store = store
        self._errors = errors

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        if name in ("finish", "fail") and self._errors:
            raise self._errors.pop()
        return getattr(self._store, name)


@pytest.fixture(scope="module")
def latin1_template(postgres: PostgresServer) -> str:
    """Give the name of a template as `bridge_template`, of LATIN1."""
    install(make_template(postgres, "latin1_template", encoding="LATIN1"))
    return "latin1_template"


@pytest.fixture
def latin1_desk(postgres: PostgresServer, latin1_template: str) -> Iterator[Desk]:
    """Give a worker on a database of LATIN1."""
    with copy_of(postgres, latin1_template) as urls, ExitStack() as stack:
        install_clock(urls)
        stop(urls)
        yield Desk(urls, stack)


@pytest.fixture(scope="module")
def ascii_template(postgres: PostgresServer) -> str:
    """Give the name of a template as `bridge_template`, of SQL_ASCII, which takes any bytes."""
    install(make_template(postgres, "ascii_template", encoding="SQL_ASCII"))
    return "ascii_template"


@pytest.fixture
def ascii_desk(postgres: PostgresServer, ascii_template: str) -> Iterator[Desk]:
    """Give a worker on a database of SQL_ASCII."""
    with copy_of(postgres, ascii_template) as urls, ExitStack() as stack:
        install_clock(urls)
        stop(urls)
        desk = Desk(urls, stack)
        for client in (desk.app, desk.app.people):
            client.connection.set_client_encoding("UTF8")
        yield desk


# Answered


def test_a_silence_is_told_and_takes_no_time(desk: Desk) -> None:
    """A responder may choose to say nothing: the turn ends at once, without the pause of thinking."""
    match, turn = desk.pushed("salut", "à demain")
    desk.respond = lambda _: Reply(action="silence")
    desk.composer(SLOWLY).compose(turn)
    assert desk.app.said(match) == []
    assert desk.told.signals == [TurnClaimed(turn, match, Kind.REPLY, 2), TurnSilent(turn, match, Kind.REPLY, 2)]


def test_distress_is_told_once_and_never_quoted(desk: Desk) -> None:
    """A claim that finds a word of distress raises the signal, with ids only. The bot's text precedes the reply."""
    set_policy(desk.urls, distress_words=["en finir"], distress_text="Appelez le 3114.")  # type: ignore[arg-type]
    match, turn = desk.pushed("je veux en finir", "vraiment")
    desk.composer().compose(turn)
    event = desk.app.value("SELECT min(id) FROM bridge.events WHERE turn_id = %s", turn)
    assert desk.told.of(Distress) == [Distress(turn, match, event)]
    assert desk.app.said(match)[0] == "Appelez le 3114."
    assert len(desk.app.said(match)) == 2


def test_parts_are_one_message(desk: Desk) -> None:
    """As long as a reply is one message, its parts stand in it, a blank line between them."""
    match, turn = desk.pushed("salut")
    desk.respond = lambda _: Reply(["un", "deux"], "leave")
    desk.composer().compose(turn)
    assert desk.app.said(match) == ["un\n\ndeux"]
    assert desk.app.value("SELECT cause FROM bridge.pauses WHERE match_id = %s", match) == "left"


def test_a_reply_may_have_several_messages(desk: Desk) -> None:
    """As policy says: their pauses are drawn and stored, and what exceeds their number joins the last one."""
    match, turn = desk.pushed("salut")
    desk.respond = lambda _: Reply(["un", "deux", "trois", "quatre"])
    set_policy(desk.urls, reply_parts=3)
    desk.composer(Pace(0, 0, 0, part_pause_min=2, part_pause_max=4)).compose(turn)
    assert desk.asked[0].most_parts == 3
    assert desk.app.said(match) == ["un"]
    first, *pauses = [
        seconds
        for (seconds,) in desk.app.rows(
            "SELECT extract(epoch FROM p.deliver_at - t.deliver_at)::float8"
            " FROM bridge.parts p JOIN bridge.turns t ON t.id = p.turn_id ORDER BY p.number"
        )
    ]
    assert first == 0
    assert 2 <= pauses[0] <= 4
    assert 2 <= pauses[1] - pauses[0] <= 4
    for _ in range(2):
        advance(desk.urls, 4)
        desk.composer().deliver(turn)
    assert desk.app.said(match) == ["un", "deux", "trois\n\nquatre"]
    assert desk.told_of() == [TurnClaimed, ReplyDelivered]


def test_an_interrupted_reply_is_told(desk: Desk) -> None:
    """With what was said and what was not; the turn that waits goes on, and its responder is told both."""
    match, turn = desk.pushed("salut")
    desk.respond = lambda _: Reply(["un", "deux", "trois"])
    set_policy(desk.urls, reply_parts=3)
    composer = desk.composer(Pace(0, 0, 0, part_pause_min=2, part_pause_max=2))
    composer.compose(turn)
    desk.app.write(match, "attends")
    desk.push()
    composer.deliver(turn)
    assert desk.told.of(ReplyInterrupted) == [ReplyInterrupted(turn, match, "interrupted", 1, 2)]
    assert [(task.said, task.withheld) for task in desk.asked] == [((), ()), (("un",), ("deux", "trois"))]


def test_a_reply_that_contradicts_itself_is_a_failed_attempt(desk: Desk) -> None:
    """The turn's row says what is wrong with it."""
    match, turn = desk.pushed("salut")
    desk.respond = lambda _: Reply(["un"], "silence")
    desk.composer().compose(turn)
    assert desk.column(turn, "attempts") == 1
    assert desk.column(turn, "last_error").startswith("ValueError: the reply is silence and has parts")
    assert desk.app.said(match) == []


@both
def test_a_reply_without_a_pause_is_delivered_at_once(desk: Desk) -> None:
    """One call takes the turn from the queue to the conversation, and tells of the claim and of the delivery."""
    match, turn = desk.pushed("salut", "ça va ?")
    desk.composer().compose(turn)
    assert desk.app.said(match) == ["salut\nça va ?"]
    claimed, delivered = desk.told.signals
    assert claimed == TurnClaimed(turn, match, Kind.REPLY, 2)
    assert isinstance(delivered, ReplyDelivered)
    assert (delivered.turn_id, delivered.match_id, delivered.kind) == (turn, match, Kind.REPLY)
    assert (delivered.characters, delivered.covered) == (len("salut\nça va ?"), 2)
    assert delivered.message_id == str(desk.column(turn, "reply_message_id"))
    assert 0 <= delivered.lateness_seconds < 1
    assert desk.column(turn, "draft") is None


@both
def test_a_reply_with_a_pause_is_typed_first(desk: Desk) -> None:
    """The worker hands the draft in and is free; the delivery comes in its time, and not before."""
    match, turn = desk.pushed()
    composer = desk.composer(SLOWLY)
    composer.compose(turn)
    assert desk.told.signals == [TurnClaimed(turn, match, Kind.REPLY, 1), TurnTyping(turn, match, 3.0)]
    assert desk.due_in(turn) == 3.0
    composer.deliver(turn)
    assert desk.app.said(match) == []
    advance(desk.urls, 3)
    composer.deliver(turn)
    composer.deliver(turn)
    composer.compose(turn)
    assert desk.app.said(match) == ["salut"]
    assert desk.told_of() == [TurnClaimed, TurnTyping, ReplyDelivered, DuplicatePrevented, DuplicatePrevented]


def test_a_first_word_is_said(desk: Desk) -> None:
    """An opener covers nothing and is delivered at once if there is no pause."""
    match = desk.app.match(HUGO)
    desk.push(60)
    turn = desk.turn(match)
    desk.composer().compose(turn)
    assert desk.app.said(match) == ["bonjour"]
    delivered = desk.told.of(ReplyDelivered)[0]
    assert (delivered.kind, delivered.covered) == (Kind.INITIATION, 0)


def test_the_responder_is_told_all_about_the_turn(desk: Desk) -> None:
    """Names, the group in order, and what was said before it."""
    match, turn = desk.pushed("salut")
    composer = desk.composer()
    composer.compose(turn)
    desk.app.write(match, "tu fais quoi")
    desk.app.write(match, "ce soir ?")
    desk.push()
    composer.compose(desk.turn(match))
    first, second = desk.asked
    assert (first.turn_id, first.kind, first.match_id, first.bot_id) == (turn, Kind.REPLY, match, CAMILLE)
    assert (first.bot_name, first.person_name, first.attempts, first.merges) == ("Camille", "Léa", 0, 0)
    assert [(line.content, line.from_bot) for line in second.messages] == [
        ("tu fais quoi", False),
        ("ce soir ?", False),
    ]
    assert [(line.content, line.from_bot) for line in second.history] == [("salut", False), ("salut", True)]


def test_the_lease_is_held_while_the_responder_works(desk: Desk) -> None:
    """It is among those that are renewed, and no longer once the draft is handed in, whatever became of it."""
    held: list[dict[Any, Any]] = []

    def respond(task: Task) -> str:
        held.append(dict(desk.leases._held))
        if task.attempts == 0:
            raise ValueError
        return "coucou"

    desk.respond = respond
    _, turn = desk.pushed()
    composer = desk.composer()
    for _ in range(2):
        composer.compose(turn)
        assert desk.leases._held == {}
        advance(desk.urls, 1)
    (first, lease), (second, again) = [*held[0].items(), *held[1].items()]
    assert (lease.turn_id, again.turn_id) == (turn, turn)
    assert first != second


# Nothing to do


def test_a_push_that_came_twice_finds_nothing_to_do(desk: Desk) -> None:
    """A claimed, an answered and an unknown turn ask no responder; what was done already is counted."""
    match, turn = desk.pushed()
    _, answered = desk.pushed()
    desk.store.claim(turn, uuid4())
    composer = desk.composer()
    composer.compose(answered)
    desk.asked.clear()
    desk.told.clear()
    for number in (turn, answered, turn + 1000):
        composer.compose(number)
        composer.deliver(number)
    assert (desk.asked, desk.app.said(match)) == ([], [])
    assert desk.told.signals == [
        DuplicatePrevented(number, stage) for number in (turn, answered) for stage in ("claim", "deliver")
    ]


def test_a_turn_waits_for_the_active_one_of_its_conversation(desk: Desk) -> None:
    """Pushed while another is composed or typed, it is left in the queue, without a word."""
    match, turn = desk.pushed()
    composer = desk.composer(SLOWLY)
    composer.compose(turn)
    desk.app.write(match, "encore")
    desk.push(1)
    advance(desk.urls, DELAY)
    desk.store.push_due(100)
    desk.told.clear()
    waiting = desk.turn(match)
    assert waiting != turn
    composer.compose(waiting)
    assert desk.told.signals == []
    assert desk.column(waiting, "state") == "queued"


# Overtaken


@both
def test_a_reply_that_was_overtaken_is_thrown_away(desk: Desk) -> None:
    """What was written while the bot composed is answered together with the rest, once, when its group closes."""
    match, turn = desk.pushed("salut")

    def respond(task: Task) -> str:
        if len(desk.asked) == 1:
            desk.app.write(match, "attends")
        return echo.reply(task)

    desk.respond = respond
    composer = desk.composer()
    composer.compose(turn)
    assert desk.app.said(match) == []
    assert desk.told.signals[1:] == [TurnSuperseded(turn, match, 1)]
    desk.push()
    composer.compose(desk.turn(match))
    assert desk.app.said(match) == ["salut\nattends"]
    assert desk.asked[1].merges == 1


def test_a_worker_whose_call_was_overtaken_says_nothing(desk: Desk) -> None:
    """Its draft is refused, which is no error; the newer message is answered together with the rest, once."""
    match, turn = desk.pushed("salut")

    def respond(task: Task) -> str:
        if len(desk.asked) == 1:
            desk.app.write(match, "attends")
            desk.store.group()
            desk.app.rows("UPDATE bridge.turns SET plain = false WHERE id = %s", turn)
            assert [each.superseded for each in desk.store.overtake([match])] == [True]
        return echo.reply(task)

    desk.respond = respond
    composer = desk.composer()
    composer.compose(turn)
    assert desk.told_of() == [TurnClaimed, DuplicatePrevented]
    assert all(type(event).level < logging.WARNING for event in desk.told.signals)
    desk.push()
    composer.compose(desk.turn(match))
    assert desk.app.said(match) == ["salut\nattends"]


@both
def test_the_worker_goes_on_with_a_turn_that_is_pushed_already(desk: Desk) -> None:
    """The turn that overtook the reply is composed in the same call, not at its next push; so after a delivery."""
    match, turn = desk.pushed("salut")
    composer = desk.composer(SLOWLY)
    composer.compose(turn)
    desk.app.write(match, "attends")
    desk.push()
    composer.deliver(turn)
    assert desk.told_of() == [TurnClaimed, TurnTyping, TurnSuperseded, TurnClaimed, TurnTyping]
    assert [task.turn_id for task in desk.asked] == [turn, desk.turn(match)]
    advance(desk.urls, 3)
    composer.deliver(desk.turn(match))
    assert desk.app.said(match) == ["salut\nattends"]


def test_after_max_merges_a_reply_is_delivered_all_the_same(desk: Desk) -> None:
    """With none allowed the overtaken reply stands, and the next turn is composed in the same call."""
    match, turn = desk.pushed("salut")
    composer = desk.composer(SLOWLY, max_merges=0)
    composer.compose(turn)
    desk.app.write(match, "attends")
    desk.push()
    composer.deliver(turn)
    assert desk.app.said(match) == ["salut"]
    assert desk.told_of() == [TurnClaimed, TurnTyping, ReplyDelivered, TurnClaimed, TurnTyping]
    advance(desk.urls, 3)
    composer.deliver(desk.turn(match))
    assert desk.app.said(match) == ["salut", "attends"]


def test_max_merges_holds_for_a_reply_without_a_pause_too(desk: Desk) -> None:
    """It is delivered in the call that hands it in, whatever was written meanwhile."""
    match, turn = desk.pushed("salut")

    def respond(task: Task) -> str:
        desk.app.write(match, "attends")
        return echo.reply(task)

    desk.respond = respond
    desk.composer(max_merges=0).compose(turn)
    assert desk.app.said(match) == ["salut"]


# Cancelled


def test_a_turn_whose_match_is_gone_is_cancelled(desk: Desk) -> None:
    """While the bot composed, the people parted: nothing is inserted, and the reason is told."""
    match, turn = desk.pushed()

    def respond(_: Task) -> str:
        desk.app.rows("DELETE FROM messages WHERE match_id = %s", match)
        desk.app.rows("DELETE FROM matches WHERE id = %s", match)
        return "coucou"

    desk.respond = respond
    desk.composer().compose(turn)
    assert desk.told.signals[1:] == [TurnCancelled(turn, match, Kind.REPLY, "gone")]


def test_a_first_word_that_comes_too_late_is_cancelled(desk: Desk) -> None:
    """The person wrote first, while the bot made up its mind."""
    match = desk.app.match(HUGO)
    desk.push(60)
    turn = desk.turn(match)

    def respond(_: Task) -> str:
        desk.app.write(match, "salut", sender=HUGO)
        return "bonjour"

    desk.respond = respond
    desk.composer().compose(turn)
    assert desk.told.signals[1:] == [TurnCancelled(turn, match, Kind.INITIATION, "message")]
    assert desk.app.said(match) == []


def test_a_reply_that_the_app_refuses_is_cancelled(desk: Desk) -> None:
    """An app's own `deliver` that returns NULL has the last word."""
    match, turn = desk.pushed()
    execute(
        desk.urls.admin,
        "CREATE OR REPLACE FUNCTION bridge.deliver(p_turn bigint, p_message uuid, p_match uuid, p_bot uuid,"
        " p_content text, p_created_at timestamptz) RETURNS uuid LANGUAGE sql AS 'SELECT NULL::uuid'",
    )
    desk.composer().compose(turn)
    assert desk.told.signals[1:] == [TurnCancelled(turn, match, Kind.REPLY, "refused")]


# Failures


def _raise(error: BaseException) -> Any:  # noqa: ANN401
    raise error


class Mute(Exception):
    """An exception that cannot tell itself."""

    def __str__(self) -> str:
        raise ZeroDivisionError


class Deserter(Exception):
    """An exception that raises what no `except Exception` catches when it is to tell itself."""

    def __str__(self) -> str:
        raise SystemExit("secret words")


@both
@pytest.mark.parametrize(
    ("respond", "kind"),
    [
        (lambda _: _raise(ZeroDivisionError("secret words")), "ZeroDivisionError"),
        (lambda _: " \n", "ValueError"),
        (lambda _: None, "ValueError"),
        (lambda _: 7, "ValueError"),
        (lambda _: "\0", "ValueError"),
        (lambda _: _raise(OSError("a\0b")), "OSError"),
        (lambda _: _raise(OSError("\udcff")), "OSError"),
        (lambda _: _raise(Mute()), "Mute"),
        (lambda _: _raise(Deserter()), "Deserter"),
        (lambda _: _raise(type("secret words", (LookupError,), {})()), "LookupError"),
        (lambda _: sys.exit("no"), "SystemExit"),
        (lambda _: _raise(KeyboardInterrupt()), "KeyboardInterrupt"),
        (lambda _: _raise(asyncio.CancelledError()), "CancelledError"),
    ],
    ids=[
        *("raises", "blank", "none", "number", "NUL", "NUL told", "surrogate told", "mute", "deserts"),
        "named at run time",
        *("exits", "interrupted", "cancelled"),
    ],
)
def test_a_responder_s_error_is_an_attempt_and_never_rises(
    desk: Desk, respond: Callable[[Task], Any], kind: str
) -> None:
    """It is written to the turn, told by its kind only, and the turn is due again, later each time."""
    match, turn = desk.pushed()
    desk.respond = respond
    composer = desk.composer()
    for attempt, pause in ((1, 1.0), (2, 2.0), (3, 4.0)):
        composer.compose(turn)
        assert desk.told.signals[-1] == TurnFailed(turn, match, kind, attempt)
        assert desk.due_in(turn) == pause
        advance(desk.urls, pause)
    assert (desk.column(turn, "state"), desk.column(turn, "attempts")) == ("composing", 3)
    assert desk.app.said(match) == []
    assert [task.attempts for task in desk.asked] == [0, 1, 2]
    desk.respond = echo.reply
    composer.compose(turn)
    assert desk.app.said(match) == ["salut"]


@pytest.mark.parametrize("interrupt", [Shutdown(), TimeLimitExceeded()], ids=["shutdown", "time limit"])
def test_dramatiq_s_own_interrupts_are_no_attempt(desk: Desk, interrupt: Interrupt) -> None:
    """They are meant for the thread: they rise, and the turn comes back when its lease has run out."""
    match, turn = desk.pushed()
    desk.respond = lambda _: _raise(interrupt)
    with pytest.raises(type(interrupt)):
        desk.composer().compose(turn)
    assert (desk.column(turn, "state"), desk.column(turn, "attempts")) == ("composing", 0)
    desk.respond = echo.reply
    advance(desk.urls, LATER)
    desk.store.push_due(100)
    desk.composer().compose(turn)
    assert desk.app.said(match) == ["salut"]


@both
def test_a_turn_that_fails_too_often_is_dead_and_the_next_one_goes_on(desk: Desk) -> None:
    """An operator decides about it; what was written since is answered in the same call."""
    match, turn = desk.pushed("mauvais")

    def respond(task: Task) -> str:
        return _raise(ValueError("no")) if task.messages[0].content == "mauvais" else echo.reply(task)

    desk.respond = respond
    composer = desk.composer()
    for attempt in range(MAX_ATTEMPTS - 1):
        composer.compose(turn)
        advance(desk.urls, 2**attempt)
    desk.app.write(match, "bon")
    desk.push()
    desk.told.clear()
    composer.compose(turn)
    waiting = desk.turn(match)
    assert desk.told_of() == [TurnClaimed, TurnDead, TurnClaimed, ReplyDelivered]
    assert desk.told.of(TurnDead) == [TurnDead(turn, match, "ValueError")]
    assert desk.column(turn, "last_error") == "ValueError: no"
    assert waiting != turn
    assert desk.app.said(match) == ["bon"]


def test_a_reply_that_the_database_cannot_hold_is_an_attempt_too(latin1_desk: Desk) -> None:
    """In a database of LATIN1 a bot's emoji is refused: counted, retried and given up, while other replies pass."""
    desk = latin1_desk
    match, turn = desk.pushed("déjà")
    desk.composer().compose(turn)
    assert desk.app.said(match) == ["déjà"]

    match, turn = desk.pushed()
    desk.respond = lambda _: "un café ☕ ?"
    desk.told.clear()
    for attempt in range(MAX_ATTEMPTS):
        desk.composer().compose(turn)
        advance(desk.urls, 2**attempt)
    assert [bool(task.refused) for task in desk.asked[1:]] == [False, *[True] * (MAX_ATTEMPTS - 1)]
    assert "22P05" in desk.asked[-1].refused
    assert desk.told_of(TurnFailed, TurnDead) == [*[TurnFailed] * (MAX_ATTEMPTS - 1), TurnDead]
    assert desk.column(turn, "last_error").endswith("(SQLSTATE 22P05)")
    assert desk.app.said(match) == []


def test_an_insertion_that_fails_is_an_attempt_too(desk: Desk) -> None:
    """What the app's own trigger raises is told to the responder, counted and given up; nothing is left half done.

    What the conversation says next is answered, and once the trigger is gone `dead retry` has the rest answered, too.
    """
    match, turn = desk.pushed()
    execute(
        desk.urls.admin,
        f"""
        CREATE FUNCTION public.no() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN RAISE EXCEPTION 'no bots today: %', NEW.content; END $$;
        CREATE TRIGGER no BEFORE INSERT ON messages FOR EACH ROW
            WHEN (NEW.sender_id = '{CAMILLE}' AND NEW.content = 'salut') EXECUTE FUNCTION public.no();
        """,
    )
    composer = desk.composer()
    composer.compose(turn)
    for attempt in range(1, MAX_ATTEMPTS):
        assert desk.told.signals[-1] == TurnFailed(turn, match, "delivery: P0001", attempt)
        assert (desk.column(turn, "state"), desk.column(turn, "draft")) == ("composing", None)
        advance(desk.urls, 2.0 ** (attempt - 1))
        composer.compose(turn)
    assert desk.told.signals[-1] == TurnDead(turn, match, "delivery: P0001")
    assert [task.refused for task in desk.asked] == ["", *["P0001 no bots today: salut"] * (MAX_ATTEMPTS - 1)]
    assert desk.app.said(match) == []
    assert (desk.column(turn, "draft"), desk.column(turn, "refused")) == (None, None)

    desk.app.write(match, "tu es là ?")
    desk.push()
    composer.compose(desk.turn(match))
    assert desk.app.said(match) == ["tu es là ?"]
    execute(desk.urls.admin, "DROP TRIGGER no ON messages")
    with closing(Connection(desk.urls.service, application="operator")) as connection:
        assert Ledger(connection).retry(turn).outcome == "retried"
    desk.push(1)
    composer.compose(desk.turn(match))
    assert desk.app.said(match) == ["tu es là ?", "salut"]


@pytest.mark.parametrize(
    "code",
    ["53100", "42501", "58030", "40001", "25006"],
    ids=["disk full", "no right", "io", "serialization", "read-only"],
)
def test_an_insertion_for_which_no_turn_is_to_blame_never_counts(desk: Desk, code: str) -> None:
    """While the disk is full, or a right is missing, the draft waits; it is told, and delivered once that is over."""
    match, turn = desk.pushed()
    execute(
        desk.urls.admin,
        f"""
        CREATE FUNCTION public.no() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN RAISE EXCEPTION 'not now' USING ERRCODE = '{code}'; END $$;
        CREATE TRIGGER no BEFORE INSERT ON messages FOR EACH ROW
            WHEN (NEW.sender_id = '{CAMILLE}') EXECUTE FUNCTION public.no();
        """,
    )
    composer = desk.composer()
    composer.compose(turn)
    for _ in range(MAX_ATTEMPTS):
        composer.deliver(turn)
        assert desk.told.signals[-1] == PostgresRefused(f"replies cannot be inserted (SQLSTATE {code})")
        assert desk.due_in(turn) == 5.0
    assert (desk.column(turn, "state"), desk.column(turn, "last_error")) == ("typing", code)
    execute(desk.urls.admin, "DROP TRIGGER no ON messages")
    composer.deliver(turn)
    assert desk.app.said(match) == ["salut"]


def test_a_right_to_insert_that_was_taken_away_gives_no_turn_up(desk: Desk) -> None:
    """However long it is missing nothing is counted, it is told each time, and once it is back the reply is there."""
    match, turn = desk.pushed()
    execute(desk.urls.admin, f"REVOKE INSERT ON messages FROM {OWNER}")
    composer = desk.composer()
    composer.compose(turn)
    for _ in range(2 * MAX_ATTEMPTS):
        assert desk.told.signals[-1] == PostgresRefused("replies cannot be inserted (SQLSTATE 42501)")
        assert desk.due_in(turn) == 5.0
        advance(desk.urls, 5)
        assert desk.store.due_deliveries(100, []) == [turn]
        composer.deliver(turn)
    assert (desk.column(turn, "attempts"), desk.column(turn, "last_error")) == (0, "42501")
    execute(desk.urls.admin, f"GRANT INSERT ON messages TO {OWNER}")
    composer.deliver(turn)
    assert (len(desk.asked), desk.app.said(match)) == (1, ["salut"])


def test_a_right_to_read_that_was_taken_away_gives_no_turn_up(desk: Desk) -> None:
    """The claim rises, its turn is pushed again and again with nothing counted, and is answered once it may be read."""
    match, turn = desk.pushed()
    execute(desk.urls.admin, f"REVOKE SELECT ON messages FROM {OWNER}")  # noqa: S608 - ours
    composer = desk.composer()
    for _ in range(2 * MAX_TAKEOVERS):
        with pytest.raises(RightMissing):
            composer.compose(turn)
        advance(desk.urls, LATER)
        assert [push.step for push in desk.store.push_due(100)] == ["compose"]
    assert (desk.column(turn, "attempts"), desk.column(turn, "takeovers")) == (0, 0)
    execute(desk.urls.admin, f"GRANT SELECT ON messages TO {OWNER}")
    composer.compose(turn)
    assert desk.app.said(match) == ["salut"]


def _read_by(desk: Desk, refusal: str) -> None:
    """Replace the adapter's `history` by one that refuses to read a message of the words `poison`."""
    execute(
        desk.urls.admin,
        """
        CREATE OR REPLACE FUNCTION bridge.history(p_match uuid, p_covered uuid[], p_lines integer)
        RETURNS TABLE (message_id uuid, sender_id uuid, content text, created_at timestamptz, covered boolean)
        LANGUAGE plpgsql STABLE SECURITY DEFINER AS $$
        BEGIN
            RETURN QUERY
                SELECT m.id, m.sender_id, m.content, m.created_at, m.id = ANY (p_covered) FROM public.messages m
                WHERE m.match_id = p_match AND (m.id = ANY (p_covered) OR p_lines > 0) ORDER BY m.created_at;
            IF EXISTS (SELECT FROM public.messages m WHERE m.match_id = p_match AND m.content = 'poison'
                       AND (m.id = ANY (p_covered) OR p_lines > 0)) THEN
                REFUSAL
            END IF;
        END $$;
        """.replace("REFUSAL", refusal),
    )


def test_a_turn_that_cannot_be_read_is_given_up_and_the_next_one_is_answered(desk: Desk) -> None:
    """What the adapter raises is an attempt a push, later each time; others go on, and then its own conversation.

    What was written meanwhile is answered next, although the words that cannot be read are its history by then.
    """
    _read_by(desk, "RAISE 'no such emoji';")
    match, turn = desk.pushed("poison")
    composer = desk.composer()
    for attempt in range(1, MAX_ATTEMPTS):
        composer.compose(turn)
        assert desk.told.signals[-1] == TurnFailed(turn, match, "DatabaseRefused", attempt)
        assert (desk.column(turn, "state"), desk.due_in(turn)) == ("composing", 2.0 ** (attempt - 1))
        composer.compose(turn)  # the push came twice
        assert desk.column(turn, "attempts") == attempt
        if attempt == 1:
            desk.app.write(match, "tu es là ?")
            desk.store.group()
        advance(desk.urls, DELAY)
        assert turn in [push.turn_id for push in desk.store.push_due(100)]
        other, another = desk.pushed("salut")
        composer.compose(another)
        assert desk.app.said(other) == ["salut"]
    assert desk.asked[-1].match_id != match

    desk.told.clear()
    composer.compose(turn)
    assert desk.told_of() == [TurnDead, PostgresRefused, TurnClaimed, ReplyDelivered]
    assert "no such emoji" not in repr(desk.told.signals)  # the app's own words may quote a message
    assert (desk.column(turn, "state"), desk.column(turn, "attempts")) == ("dead", MAX_ATTEMPTS)
    assert desk.column(turn, "last_error") == "DatabaseRefused: no such emoji (SQLSTATE P0001)"
    assert desk.app.said(match) == ["tu es là ?"]
    assert (desk.asked[-1].turn_id, desk.asked[-1].history) == (desk.turn(match), ())


def test_bytes_that_are_no_text_are_an_attempt_too(ascii_desk: Desk) -> None:
    """A database of SQL_ASCII holds any; once they are mended, `dead retry` has them answered with what came since."""
    desk = ascii_desk
    match = desk.app.old_match()
    message = desk.app.write(match, "")
    broken = "UPDATE messages SET content = convert_from(%s, 'SQL_ASCII') WHERE id = %s"
    desk.app.rows(broken, "été".encode("latin-1"), message)
    desk.push()
    turn = desk.turn(match)
    composer = desk.composer()
    for _ in range(MAX_ATTEMPTS):
        composer.compose(turn)
        advance(desk.urls, LATER)
        desk.store.push_due(100)
    assert desk.told_of() == [*[TurnFailed] * (MAX_ATTEMPTS - 1), TurnDead]
    assert desk.column(turn, "last_error").endswith("(SQLSTATE 22021)")

    desk.app.write(match, "tu es là ?")
    desk.push()
    composer.compose(desk.turn(match))
    assert desk.app.said(match) == ["tu es là ?"]

    desk.app.rows(broken, "été".encode(), message)
    with closing(Connection(desk.urls.service, application="operator")) as connection:
        assert Ledger(connection).retry(turn).outcome == "retried"
    desk.push(1)
    composer.compose(desk.turn(match))
    assert desk.app.said(match) == ["tu es là ?", "été"]


def test_a_delivery_that_cannot_read_its_conversation_is_an_attempt_too(desk: Desk) -> None:
    """The last look is refused: counted once until the next attempt, and given up; the next turn is answered."""
    match, turn = desk.pushed("poison")
    composer = desk.composer(SLOWLY)
    composer.compose(turn)
    _read_by(desk, "RAISE division_by_zero;")
    advance(desk.urls, 3)
    for attempt in range(1, MAX_ATTEMPTS):
        assert desk.store.due_deliveries(100, []) == [turn]
        for _ in range(2):
            composer.deliver(turn)
        assert desk.told.signals[-1] == TurnFailed(turn, match, "DatabaseRefused", attempt)
        assert (desk.column(turn, "state"), desk.due_in(turn)) == ("typing", 2.0 ** (attempt - 1))
        advance(desk.urls, LATER)
    composer.deliver(turn)
    assert desk.told.signals[-1] == TurnDead(turn, match, "DatabaseRefused")
    assert (desk.column(turn, "state"), desk.column(turn, "draft")) == ("dead", None)
    desk.app.write(match, "tu es là ?")
    desk.push()
    desk.composer().compose(desk.turn(match))
    assert desk.app.said(match) == ["tu es là ?"]


@pytest.mark.parametrize(
    ("code", "error"),
    [
        *[(code, RightMissing) for code in ("42501", "42P01", "42883", "0A000", "HV000")],
        *[(code, DatabaseUnavailable) for code in ("08006", "25006", "53200", "57014")],
        ("55P03", DatabaseBusy),
        ("3F000", SchemaMissing),
    ],
)
def test_a_refusal_for_which_no_turn_is_to_blame_never_counts(desk: Desk, code: str, error: type[BridgeError]) -> None:
    """At the claim and at the delivery it rises, however often, and once it is mended the turn is answered."""
    match, turn = desk.pushed("poison")
    composer = desk.composer(SLOWLY)
    refusal = f"RAISE 'not now' USING ERRCODE = '{code}';"
    for step in (composer.compose, composer.deliver):
        _read_by(desk, refusal)
        for _ in range(MAX_ATTEMPTS):
            with pytest.raises(error):
                step(turn)
            advance(desk.urls, LATER)
            assert [push.turn_id for push in desk.store.push_due(100)] + desk.store.due_deliveries(9, []) == [turn]
        assert desk.column(turn, "attempts") == 0
        _read_by(desk, "")
        step(turn)
        advance(desk.urls, 3)
        desk.store.push_due(100)
    assert desk.app.said(match) == ["poison"]


@both
def test_a_responder_that_is_away_never_counts(desk: Desk) -> None:
    """However long it is away, no attempt is counted, and then the turn is answered (A1)."""
    match, turn = desk.pushed()
    desk.respond = lambda _: _raise(ResponderUnavailable("429"))
    composer = desk.composer()
    for _ in range(2 * MAX_ATTEMPTS):
        composer.compose(turn)
        assert desk.told.signals[-1] == ResponderAway(turn, match, "ResponderUnavailable", desk.due_in(turn))
        advance(desk.urls, desk.due_in(turn) + 0.1)
    assert (desk.column(turn, "attempts"), desk.column(turn, "takeovers")) == (0, 0)
    desk.respond = echo.reply
    composer.compose(turn)
    assert desk.app.said(match) == ["salut"]


@pytest.mark.parametrize(
    ("wanted", "seconds"),
    [
        (None, 5.0),
        (0.0, 5.0),
        (0.2, 1.0),
        (-30.0, 1.0),
        (7.5, 7.5),
        (3600.0, 60.0),
        (float("nan"), 1.0),
        ("20", 20.0),
        ("soon", 5.0),
    ],
)
def test_a_responder_that_is_away_says_when_to_ask_again(desk: Desk, wanted: Any, seconds: float) -> None:  # noqa: ANN401
    """Within a second and a minute; a time that has passed, or is none, makes no loop without a pause."""
    _, turn = desk.pushed()
    desk.respond = lambda _: _raise(ResponderUnavailable("429", retry_after=wanted))
    desk.composer().compose(turn)
    assert desk.due_in(turn) == seconds
    assert desk.told.of(ResponderAway)[0].retry_seconds == seconds


def test_a_worker_whose_lease_was_given_away_delivers_nothing(desk: Desk) -> None:
    """It wakes up, and its draft is refused; the worker that took over answers, once."""
    match, turn = desk.pushed()

    def respond(task: Task) -> str:
        if len(desk.asked) == 1:
            advance(desk.urls, LATER)
            desk.store.push_due(100)
            desk.composer().compose(turn)
            return "trop tard"
        return echo.reply(task)

    desk.respond = respond
    desk.composer().compose(turn)
    assert desk.app.said(match) == ["salut"]
    assert desk.told_of() == [TurnClaimed, TurnClaimed, ReplyDelivered, DuplicatePrevented]
    assert desk.told.of(DuplicatePrevented) == [DuplicatePrevented(turn, "finish")]


def test_a_failure_of_a_worker_whose_lease_was_given_away_counts_nothing(desk: Desk) -> None:
    """Its error belongs to nobody's turn any more."""
    _, turn = desk.pushed()

    def respond(_: Task) -> Any:  # noqa: ANN401
        advance(desk.urls, LATER)
        desk.store.push_due(100)
        desk.store.claim(turn, UUID(int=7))
        return _raise(ValueError("late"))

    desk.respond = respond
    desk.composer().compose(turn)
    assert desk.told_of() == [TurnClaimed]
    assert (desk.column(turn, "attempts"), desk.column(turn, "token")) == (0, str(UUID(int=7)))


def test_a_database_that_is_away_rises(desk: Desk) -> None:
    """Dramatiq's Retries, and then the due time, bring the turn back."""

    class Away:
        def claim(self, turn_id: int, token: UUID, *, plain: bool) -> Any:  # noqa: ANN401
            del turn_id, token, plain
            raise DatabaseUnavailable("gone")

    with pytest.raises(DatabaseUnavailable):
        desk.composer(store=Away()).compose(1)
    assert desk.told.signals == []


@both
@pytest.mark.parametrize("error", [DatabaseUnavailable("gone"), DatabaseBusy("locked")], ids=["away", "busy"])
@pytest.mark.parametrize("answer", [echo.reply, lambda _: _raise(ValueError("no"))], ids=["reply", "error"])
def test_an_answer_is_handed_in_again(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, answer: Callable[[Task], str], error: BridgeError
) -> None:
    """While PostgreSQL is away or busy it is kept for as long as the lease may hold; the responder is asked once."""
    monkeypatch.setattr(composer_module, "HAND_IN_PAUSES", PAUSES)
    match, turn = desk.pushed()
    desk.respond = answer
    desk.composer(store=Failing(desk.store, [error] * 3)).compose(turn)
    assert len(desk.asked) == 1
    assert desk.app.said(match) == (["salut"] if answer is echo.reply else [])
    assert desk.column(turn, "attempts") == (0 if answer is echo.reply else 1)
    assert desk.told.of(PostgresLost) == ([PostgresLost("gone")] * 3 if isinstance(error, DatabaseUnavailable) else [])


def test_an_async_answer_that_cannot_be_handed_in_is_left(async_desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lease is let go, and when it has run out the responder is asked anew."""
    monkeypatch.setattr(composer_module, "HAND_IN_PAUSES", PAUSES)
    match, turn = async_desk.pushed()
    async_desk.composer(store=Failing(async_desk.store, [DatabaseUnavailable("gone")] * 9)).compose(turn)
    assert async_desk.told.of(PostgresLost) == [PostgresLost("gone")] * 4
    advance(async_desk.urls, LATER)
    async_desk.store.push_due(100)
    async_desk.composer().compose(turn)
    assert async_desk.app.said(match) == ["salut"]


def test_a_call_that_was_cancelled_changes_nothing(async_desk: Desk) -> None:
    """Its turn is another worker's by now, or will be."""
    begun = threading.Event()

    async def waits(_: Task) -> str:
        begun.set()
        await asyncio.Event().wait()
        return "trop tard"

    _, turn = async_desk.pushed()
    composer = Composer(async_desk.store, async_desk.leases, waits, async_desk.told)
    composer.calls = async_desk.composer().calls
    composer.compose(turn)
    assert begun.wait(5)
    before = async_desk.column(turn, "turns")
    [lease] = async_desk.leases._held.values()
    assert async_desk.leases._end(lease)
    async_desk.leases.drain()
    assert async_desk.column(turn, "turns") == before
    assert async_desk.told_of() == [TurnClaimed]


def test_people_between_themselves_are_left_alone(desk: Desk) -> None:
    """A match of two people makes no turn at all."""
    match = desk.app.match(LEA, HUGO)
    desk.app.write(match, "salut")
    desk.push(100)
    assert desk.app.value("SELECT count(*) FROM bridge.turns") == 0


# Refused by the table


_LONG: Final = "x" * 501
_TRIGGER: Final = """
    CREATE FUNCTION public.no() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        IF length(NEW.content) > 500 THEN {} END IF;
        RETURN NEW;
    END $$;
    CREATE TRIGGER no BEFORE INSERT ON messages FOR EACH ROW EXECUTE FUNCTION public.no()
"""
_RETYPED: Final = "DROP TRIGGER bridge_after_edit ON messages; ALTER TABLE messages ALTER content TYPE {}"
_REFUSALS: Final = {
    "varchar": (_RETYPED.format("varchar(500)"), "22001 character varying(500)", True),
    "char": (_RETYPED.format("char(500)"), "22001 character(500)", True),
    "check": (
        "ALTER TABLE messages ADD CONSTRAINT short CHECK (length(content) < 501)",
        "23514 short (table public.messages): CHECK ((length(content) < 501))",
        True,
    ),
    "domain": (
        "CREATE DOMAIN t text CONSTRAINT short CHECK (length(VALUE) < 501); " + _RETYPED.format("t"),
        "23514 short (type public.t): CHECK ((length(VALUE) < 501))",
        True,
    ),
    "unique": (
        "INSERT INTO messages (content) SELECT repeat('x', 501); CREATE UNIQUE INDEX once ON messages (md5(content))",
        "23505 once (table public.messages)",
        True,
    ),
    "raise": (_TRIGGER.format("RAISE 'not so long: %', NEW.content;"), f"P0001 not so long: {_LONG}"[:500], False),
    "assert": (_TRIGGER.format("ASSERT false, 'not so long';"), "P0004 not so long", False),
    "own state": (_TRIGGER.format("RAISE 'too long' USING ERRCODE = 'MOD01';"), "MOD01 too long", False),
    "raised check": (
        _TRIGGER.format("RAISE 'too long' USING ERRCODE = 'check_violation', CONSTRAINT = 'short';"),
        "23514 short too long",
        False,
    ),
}


@pytest.mark.parametrize(("change", "refused", "named"), _REFUSALS.values(), ids=_REFUSALS)
@pytest.mark.parametrize("pace", [AT_ONCE, SLOWLY], ids=["at once", "slowly"])
def test_a_reply_that_the_table_refuses_is_composed_again(
    desk: Desk, pace: Pace, change: str, refused: str, *, named: bool
) -> None:
    """The responder is told why and says something else. No event quotes the draft or the words of a trigger."""
    desk.app.rows(change)
    match, turn = desk.pushed()
    desk.respond = lambda task: "d'accord" if task.refused else _LONG
    composer = desk.composer(pace)
    for _ in range(2):
        composer.compose(turn)
        advance(desk.urls, 3)
        composer.deliver(turn)
        advance(desk.urls, 3)
    assert [task.refused for task in desk.asked] == ["", refused]
    assert [said.rstrip() for said in desk.app.said(match)] == ["d'accord"]
    [failed] = desk.told.of(TurnFailed)
    assert failed.error_type == f"delivery: {refused.partition(': CHECK')[0] if named else refused[:5]}"
    assert (desk.column(turn, "attempts"), desk.column(turn, "refused")) == (1, None)


def test_a_reply_that_is_refused_each_time_is_dead(desk: Desk) -> None:
    """After MAX_ATTEMPTS calls the operator decides, and reads which limit it was."""
    desk.app.rows(_RETYPED.format("varchar(500)"))
    match, turn = desk.pushed()
    desk.respond = lambda _: _LONG
    for attempt in range(MAX_ATTEMPTS):
        desk.composer().compose(turn)
        advance(desk.urls, 2**attempt)
    assert (len(desk.asked), desk.column(turn, "state")) == (MAX_ATTEMPTS, "dead")
    assert desk.column(turn, "last_error") == "22001 character varying(500)"
    assert desk.told.signals[-1] == TurnDead(turn, match, "delivery: 22001 character varying(500)")
    assert desk.app.said(match) == []


_KEPT: Final = {
    "not null": (
        "ALTER TABLE messages ADD kind int; UPDATE messages SET kind = 1; ALTER TABLE messages ALTER kind SET NOT NULL",
        "ALTER TABLE messages DROP kind",
        "23502 (column kind of table public.messages)",
    ),
    "unique": (
        "INSERT INTO messages (sender_id) SELECT bot_id FROM bridge.turns; CREATE UNIQUE INDEX ON messages (sender_id)",
        "DROP INDEX messages_sender_id_idx",
        "23505 messages_sender_id_idx (table public.messages)",
    ),
    "foreign key": (
        "ALTER TABLE messages ADD FOREIGN KEY (id) REFERENCES profiles NOT VALID",
        "ALTER TABLE messages DROP CONSTRAINT messages_id_fkey",
        "23503 messages_id_fkey (table public.messages)",
    ),
    "division": (_TRIGGER.format("END IF; IF 1 / 0 = 1 THEN"), "DROP TRIGGER no ON messages", "22012"),
}


@pytest.mark.parametrize(("change", "repair", "error"), _KEPT.values(), ids=_KEPT)
def test_a_draft_that_no_other_text_would_mend_is_kept(desk: Desk, change: str, repair: str, error: str) -> None:
    """The responder is asked once, the draft is inserted after the repair, and the error says what to repair."""
    match, turn = desk.pushed()
    desk.app.rows(change)
    composer = desk.composer()
    composer.compose(turn)
    assert (desk.column(turn, "state"), desk.column(turn, "last_error")) == ("typing", error)
    assert desk.told.of(TurnFailed) == [TurnFailed(turn, match, f"delivery: {error}", 1)]
    desk.app.rows(repair)
    advance(desk.urls, 1)
    composer.deliver(turn)
    assert (len(desk.asked), desk.app.said(match)) == (1, ["salut"])


def test_a_turn_whose_call_is_over_a_limit_waits_until_tomorrow(desk: Desk) -> None:
    """No attempt is counted, and one line tells of it; if the limit was raised meanwhile, the turn goes on at once."""
    _, turn = desk.pushed()

    def over(task: Task) -> str:
        del task
        raise OverLimit("limit_calls")

    desk.respond = over
    set_policy(desk.urls, limit_calls_person_day=1)
    composer = desk.composer()
    composer.compose(turn)
    assert desk.told.names() == ["turn_claimed"]  # by the books nothing is spent
    assert (desk.column(turn, "state"), desk.column(turn, "token"), desk.due_in(turn)) == ("composing", None, 0)

    desk.respond = spend(desk)
    composer.compose(turn)
    [held] = desk.told.of(TurnHeld)
    assert (held.turn_id, held.cause) == (turn, "limit_calls")
    assert (desk.column(turn, "state"), desk.column(turn, "attempts")) == ("open", 0)


def spend(desk: Desk) -> Callable[[Task], str]:
    """Return a responder that makes one call, and would make another one."""

    def respond(task: Task) -> str:
        answers = [
            desk.store.reserve_call(Call(task.claim, number, task.turn_id, "model", 1, 1, 30.0))["outcome"]
            for number in (1, 2)
        ]
        assert answers == ["reserved", "over"]
        raise OverLimit("limit_calls")

    return respond
