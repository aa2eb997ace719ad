"""The console shows how the bridge stands to whoever may reach it, and nothing of what people write."""

from __future__ import annotations

import json
import re
import signal
import socket
import string
import sys
import time
from contextlib import closing, contextmanager
from threading import Thread
from types import SimpleNamespace
from typing import TYPE_CHECKING, Final
from uuid import uuid4

import pytest

from bridge_service.brokers.redis_client import connect
from bridge_service.machine.database import Connection, Database
from bridge_service.machine.ledger import Ledger
from bridge_service.machine.steps import Store
from bridge_service.version import VERSION
from bridge_service.web import observer, server
from bridge_service.web.console import Console
from bridge_service.web.server import make_server
from tests.support.app import CAMILLE, App, Client
from tests.support.http import ask, basic, free_port, hangs_up, samples
from tests.support.policy import set_policy
from tests.support.service import Service
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator
    from uuid import UUID

    from bridge_service.demo.servers import RedisServer
    from tests.support.roles import Urls

GROUPING_DELAY: Final = 15.0
CAMILLE_PAGE: Final = f"/bots/{CAMILLE}"
PAGES: Final = (
    "/",
    "/?refresh=off",
    "/bots",
    "/bots/default",
    CAMILLE_PAGE,
    "/dead",
    "/actions",
    "/conversations?id=x",
)
PATHS: Final = (*PAGES, "/health/live", "/health/ready", "/metrics", "/nothing")
CANARY: Final = "canary-7d1e"
ATTACK: Final = f'<script>alert("{CANARY}")</script><img src=x onerror=alert(1)>'
AN_ID: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-")

Databases = tuple[str, str]
"""The URLs of a PostgreSQL and of a Redis."""


@contextmanager
def console(database_url: str, redis_url: str, token: str | None = None) -> Iterator[int]:
    """Serve the console in this process; gives its port."""
    database = Database(lambda: Connection(database_url, application="test console", seconds=2))
    client = connect(redis_url, timeout=2)
    console = Console(database, client, token)
    serving = make_server(console.app)
    with closing(socket.create_server(("127.0.0.1", 0))) as listening:
        thread = Thread(target=serving.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            eventually(lambda: serving.started)
            yield listening.getsockname()[1]
        finally:
            console.stop()
            serving.should_exit = True
            thread.join()
            client.close()
            database.close()


@pytest.fixture(autouse=True)
def looks_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the console look at each question, so that a test sees what it just did."""
    monkeypatch.setattr(observer, "LOOK_SECONDS", 0.0)


@pytest.fixture
def app(bridge_database: Urls) -> Iterator[App]:
    """Give the app of a database with the bridge, where a scheduler and a worker live."""
    with closing(App(bridge_database)) as app:
        app.rows(
            "INSERT INTO bridge.processes (id, role, started_at, seen_at, rss_bytes, rss_peak_bytes, cpu_seconds)"
            " SELECT gen_random_uuid(), r, now(), now() + interval '1 hour', 1, 1, 1"
            " FROM unnest('{scheduler,worker}'::text[]) r"
        )
        yield app


@pytest.fixture
def store(bridge_database: Urls) -> Iterator[Store]:
    """Give the machine of that database."""
    with closing(Database(lambda: Connection(bridge_database.service, application="test"))) as database:
        yield Store(database)


@pytest.fixture
def port(app: App, redis_server: RedisServer) -> Iterator[int]:
    """Give the port of a console on that database."""
    with console(app.urls.service, redis_server.url()) as port:
        yield port


def ask_raw(port: int, request: bytes) -> bytes:
    """Send these bytes and return all that comes back."""
    with closing(socket.create_connection(("127.0.0.1", port), timeout=20)) as connection:
        connection.sendall(request)
        return b"".join(iter(lambda: connection.recv(65536), b""))


def answer_one(app: App, store: Store, text: str, reply: str) -> int:
    """Let one conversation take place in no time; return its turn."""
    match = app.old_match()
    app.write(match, text)
    set_policy(app.urls, grouping_delay=0)
    [turn] = {grouped.turn_id for grouped in store.group()}
    set_policy(app.urls, grouping_delay=None)
    store.push_due(10)
    token = app.value("SELECT gen_random_uuid()::text")
    assert store.claim(turn, token).name == "claimed"
    assert store.finish(turn, token, reply, pause=0).name == "answered"
    return turn


def write_in_many(app: App, count: int) -> None:
    """Let people write one message each in new conversations."""
    app.rows(
        "WITH made AS (INSERT INTO matches (user1_id, user2_id)"
        " SELECT 'a0000000-0000-4000-8000-000000000001', 'b0000000-0000-4000-8000-000000000001'"
        " FROM generate_series(1, %s) RETURNING id, user1_id)"
        " INSERT INTO messages (match_id, sender_id, content) SELECT id, user1_id, %s FROM made",
        count,
        CANARY,
    )


# --- The page ------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", PATHS)
def test_headers(port: int, path: str) -> None:
    """Every answer, errors included, forbids scripts, frames, caches and guesses at its type, and names no server."""
    answer = ask(port, path)

    policy = dict(
        directive.strip().partition(" ")[::2] for directive in answer.headers["Content-Security-Policy"].split(";")
    )
    if path in PAGES:
        own = ("script-src", "style-src", "img-src", "connect-src")
        assert {policy.pop(name) for name in own} == {"'self'"}
        assert policy["form-action"] == "'self'"
        policy["form-action"] = "'none'"
    assert policy == dict.fromkeys(("default-src", "base-uri", "form-action", "frame-ancestors"), "'none'")
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["X-Frame-Options"] == "DENY"
    assert answer.headers["Referrer-Policy"] == ("same-origin" if path in PAGES else "no-referrer")
    assert answer.headers["Cache-Control"] == "no-store"
    assert "server" not in answer.headers


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
def test_nothing_can_be_changed(port: int, path: str, method: str) -> None:
    """Without a token no path takes anything but questions."""
    assert ask(port, path, method).status in {404, 405}


@pytest.mark.parametrize("path", PAGES)
def test_a_page_needs_nothing_else(port: int, path: str) -> None:
    """No page has an inline script, handler or style, and each loads its own files only, which are there."""
    page = ask(port, path).body

    assert not re.search(r"<style|<script(?! src)|<img|<iframe|\sstyle=|\son\w+=|https?:|//\w", page, re.IGNORECASE)
    targets = re.findall(r'(?:href|src|action|data-live)="([^"]*)"', page)
    assert all(target.startswith(("/", "?")) for target in targets)
    links = {target for target in targets if target.startswith("/") and not target.endswith("/live")}
    assert {ask(port, target).status for target in links - {"/conversations"}} == {200}


def test_the_page_refreshes_itself_until_told_not_to(port: int) -> None:
    """The page loads itself anew, with a script or without, and stands still once it was asked to."""
    for sign in ('<noscript><meta http-equiv="refresh"', "/static/console.js"):
        assert sign in ask(port, "/").body
        assert sign not in ask(port, "/?refresh=off").body


@pytest.mark.parametrize(("accepted", "words"), [("fr-FR,fr;q=0.9", b"Tout va bien"), ("de", b"All is well")])
def test_the_page_is_live(app: App, port: int, accepted: str, words: bytes) -> None:
    """The stream brings the page's inside anew in the browser's language, and what people write is not in it."""
    match = app.old_match()
    with closing(socket.create_connection(("127.0.0.1", port), timeout=20)) as stream:
        stream.sendall(f"GET /live HTTP/1.1\r\nHost: x\r\nAccept-Language: {accepted}\r\n\r\n".encode())
        app.write(match, CANARY)
        told = b""
        while rb"<dd class=\"\">1<" not in told:
            part = stream.recv(65536)
            assert part
            told += part
    assert words in told
    assert CANARY.encode() not in told


@pytest.mark.parametrize("path", ["/live", "/bots/live", "/dead/live", "/actions/live"])
def test_every_page_of_the_present_has_a_stream(port: int, path: str) -> None:
    """Each stream brings a page and its title."""
    with closing(socket.create_connection(("127.0.0.1", port), timeout=20)) as stream:
        stream.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        told = b""
        while b'"title":' not in told:
            part = stream.recv(65536)
            assert part
            told += part
    assert b'data: {"html":' in told


def test_the_language_of_the_page(port: int) -> None:
    """The page speaks the browser's language."""
    with closing(socket.create_connection(("127.0.0.1", port), timeout=20)) as connection:
        connection.sendall(b"GET / HTTP/1.0\r\nAccept-Language: fr-FR,fr;q=0.9\r\n\r\n")
        assert "Tout va bien" in b"".join(iter(lambda: connection.recv(65536), b"")).decode()


def test_nothing_that_people_write_is_shown(app: App, store: Store, port: int) -> None:
    """No path shows a message, a reply, a draft, a name or an error's text, whatever stands in them."""
    app.rows("UPDATE profiles SET first_name = %s", ATTACK)
    answered = answer_one(app, store, ATTACK, ATTACK)
    waiting = app.old_match()
    app.write(waiting, ATTACK)
    store.group()
    app.rows(
        "INSERT INTO bridge.turns (kind, match_id, bot_id, state, opened_at, ended_at, last_error)"
        " VALUES ('reply', gen_random_uuid(), gen_random_uuid(), 'dead', now(), now(), %s)",
        ATTACK,
    )

    answers = {path: ask(port, path) for path in (*PATHS, f"/conversations/{waiting}")}

    assert "Dead turns" in answers["/"].body
    assert "story_" not in answers[f"/conversations/{waiting}"].body
    assert all(CANARY not in answer.body for answer in answers.values())
    assert f'<td class="number">{answered}</td>' in answers["/"].body
    assert waiting in answers["/"].body


def test_why_a_turn_was_not_answered_is_said_in_words(app: App, port: int) -> None:
    """A silence, a bot that left and a turn that is held have a sentence each, in the list and in the story."""
    matches = [
        app.value(
            "INSERT INTO bridge.turns"
            " (kind, match_id, bot_id, opened_at, state, reason, held, due_at, ended_at, answered_at)"
            " SELECT 'reply', gen_random_uuid(), gen_random_uuid(), now(), s, r, h, CASE WHEN h <> '' THEN now() END,"
            " CASE WHEN h IS NULL THEN now() END, CASE WHEN s = 'answered' THEN now() END"
            " FROM (VALUES (%s, %s, %s)) v (s, r, h) RETURNING match_id::text",
            *turn,
        )
        for turn in (("answered", "silence", None), ("cancelled", "left", None), ("open", None, "limit_tokens"))
    ]
    sentences = ("the bot chose to say nothing", "the bot has left this conversation", "held until tomorrow")
    page = ask(port, "/?refresh=off").body
    for match, sentence in zip(matches, sentences, strict=True):
        assert sentence in page
        assert sentence in ask(port, f"/conversations/{match}").body.partition("<table>")[0]


def test_what_is_shown_is_escaped(app: App, port: int) -> None:
    """A text from the database that is shown, such as a reason, cannot become markup."""
    app.rows(
        "INSERT INTO bridge.turns (kind, match_id, bot_id, state, opened_at, ended_at, reason)"
        " VALUES ('reply', gen_random_uuid(), gen_random_uuid(), 'cancelled', now(), now(), %s)",
        ATTACK,
    )

    page = ask(port, "/?refresh=off").body

    assert "<script" not in page
    assert "<img" not in page
    assert "&lt;script&gt;" in page


def test_the_verdict(app: App, port: int) -> None:
    """The page says at its top whether there is anything to look at, and what."""
    assert "All is well" in ask(port, "/").body

    app.rows(
        "INSERT INTO bridge.turns (kind, match_id, bot_id, state, opened_at, due_at)"
        " SELECT 'reply', gen_random_uuid(), gen_random_uuid(), 'queued', now(), now() - interval '1 min'"
    )
    page = ask(port, "/").body

    assert "Worth a look" in page
    assert "does a scheduler run?" in page


# --- With a token --------------------------------------------------------------------------------

TOKEN: Final = string.punctuation
"""Everything that means something in a header, in a URL or in markup."""


@pytest.fixture
def closed(app: App, redis_server: RedisServer) -> Iterator[int]:
    """Give the port of a console that asks for a token."""
    with console(app.urls.service, redis_server.url(), TOKEN) as port:
        yield port


@pytest.mark.parametrize("authorization", [f"Bearer {TOKEN}", basic(TOKEN), basic(TOKEN, user="")])
def test_who_has_the_token(closed: int, authorization: str) -> None:
    """The token opens page and numbers, as a Bearer token and as a password, and no more than there is to see."""
    assert "All is well" in ask(closed, "/", authorization=authorization).body
    assert "bridge_postgresql_up 1.0" in ask(closed, "/metrics", authorization=authorization).body
    assert ask(closed, "/", "HEAD", authorization).status == 200
    assert ask(closed, "/nothing", authorization=authorization).status == 404
    assert ask(closed, "/", "POST", authorization).status == 405


@pytest.mark.parametrize("path", ["/", "/?refresh=off", "/metrics", "/nothing", "/health", "http://x/health/live"])
@pytest.mark.parametrize("authorization", [None, "", "Bearer", f"Bearer {TOKEN}x", basic("wrong"), "Bearer é\xa0"])
def test_who_has_it_not(closed: int, path: str, authorization: str | None) -> None:
    """Without the right token every path but the probes' says 401 and how to bring it, and nothing else."""
    for method in ("GET", "HEAD", "POST", "DELETE", "BREW"):
        answer = ask(closed, path, method, authorization)

        assert (answer.status, answer.body) == (401, "" if method == "HEAD" else "unauthorized\n")
        assert answer.headers["WWW-Authenticate"] == 'Basic realm="bridge"'
        assert answer.headers["Cache-Control"] == "no-store"
        assert "default-src 'none'" in answer.headers["Content-Security-Policy"]


def test_probes_need_no_token(closed: int) -> None:
    """A platform that knows no token is answered as ever, and no way round leads from there to the page."""
    assert ask(closed, "/health/live").body == "alive\n"
    assert ask(closed, "/health/ready").body == "ready\n"
    for path in ("/health/../metrics", "/health/%2e%2e/metrics", "/health//metrics", "/health/live;/metrics"):
        assert (ask(closed, path).status, ask(closed, path).body) == (404, "not found\n")


def test_the_database_is_not_asked_by_who_has_no_token(redis_server: RedisServer, nobody: str) -> None:
    """Who is turned away costs PostgreSQL and Redis nothing: with both away the answer is the same."""
    with console(f"postgresql://{nobody}/app", redis_server.url(), TOKEN) as port:
        assert ask(port, "/metrics").status == 401
        assert ask(port, "/metrics", authorization=f"Bearer {TOKEN}").status == 200


# --- Strangers -----------------------------------------------------------------------------------


@pytest.mark.parametrize("drop", [b"", b"x"])
@pytest.mark.parametrize("again", [False, True])
def test_who_does_not_ask_in_time(nobody: str, monkeypatch: pytest.MonkeyPatch, drop: bytes, *, again: bool) -> None:
    """Whoever sends nothing, or a header without end byte by byte, is hung up on, at the first request or the next."""
    monkeypatch.setattr(server, "REQUEST_SECONDS", 0.5)
    with (
        console(f"postgresql://{nobody}/app", f"redis://{nobody}/0") as port,
        closing(socket.create_connection(("127.0.0.1", port), timeout=20)) as connection,
    ):
        if again:
            connection.sendall(b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n")
            answer = connection.recv(65536)
            while not answer.endswith(b"alive\n"):
                more = connection.recv(65536)
                assert more
                answer += more
        connection.sendall(b"GET /health/live HTTP/1.1\r\nx: " if drop else b"")

        eventually(lambda: hangs_up(connection, drop))


def test_who_comes_when_too_many_ask(nobody: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server hangs up on visitors beyond CONNECTIONS_AT_ONCE; later the places are free again."""
    monkeypatch.setattr(server, "CONNECTIONS_AT_ONCE", 1)
    monkeypatch.setattr(server, "REQUEST_SECONDS", 60)
    with console(f"postgresql://{nobody}/app", f"redis://{nobody}/0") as port:

        def served() -> bool:
            try:
                return ask(port, "/health/live").status == 200
            except OSError:
                return False

        with closing(socket.create_connection(("127.0.0.1", port))):
            eventually(lambda: not served())
        eventually(served)


def test_too_much(nobody: str) -> None:
    """A request whose headers are longer than any of ours is refused, and not repeated."""
    with console(f"postgresql://{nobody}/app", f"redis://{nobody}/0", TOKEN) as port:
        try:
            answer = ask_raw(port, b"GET / HTTP/1.1\r\nHost: x\r\nx: " + CANARY.encode() * 10000)
        except ConnectionError:  # the server hung up on what was still to be read, and the answer went with it
            answer = b"HTTP/1.1 400 "

    assert answer.startswith(b"HTTP/1.1 400 ")
    assert CANARY.encode() not in answer


# --- Health --------------------------------------------------------------------------------------


def test_all_there(port: int) -> None:
    """With PostgreSQL, its schema and Redis there, both probes say one word."""
    live, ready = ask(port, "/health/live"), ask(port, "/health/ready")

    assert (live.status, live.body) == (200, "alive\n")
    assert (ready.status, ready.body) == (200, "ready\n")


@pytest.fixture
def nobody() -> str:
    """Give an address at which nobody answers."""
    return f"127.0.0.1:{free_port()}"


def test_both_away(nobody: str) -> None:
    """With both away the console lives, says so in fixed words, and shows no figure that it does not know."""
    with console(f"postgresql://{nobody}/app", f"redis://{nobody}/0") as port:
        live, ready, page = (ask(port, path) for path in ("/health/live", "/health/ready", "/"))
        numbers = samples(ask(port, "/metrics").body)

    assert (live.status, live.body) == (200, "alive\n")
    assert (ready.status, ready.body) == (503, "not ready: database redis\n")
    assert page.status == 200
    assert "Something is down" in page.body
    assert {name: value for name, value in numbers.items() if name.startswith("bridge_")} == {
        f'bridge_build_info{{version="{VERSION}"}}': 1,
        "bridge_postgresql_up": 0,
        "bridge_redis_up": 0,
    }


def test_no_schema(app_database: Urls, redis_server: RedisServer) -> None:
    """A database that nobody migrated is told apart from one that is away."""
    with console(app_database.service, redis_server.url()) as port:
        ready = ask(port, "/health/ready")
        numbers = samples(ask(port, "/metrics").body)

    assert (ready.status, ready.body) == (503, "not ready: schema\n")
    assert numbers["bridge_postgresql_up"] == 0
    assert numbers["bridge_redis_up"] == 1


# --- Metrics -------------------------------------------------------------------------------------


def test_the_figures(app: App, store: Store, port: int) -> None:
    """The figures are what PostgreSQL holds: what is captured, open, dead, and since when somebody waits."""
    numbers = samples(ask(port, "/metrics").body)
    assert numbers["bridge_oldest_unanswered_timestamp_seconds"] == 0
    assert numbers["bridge_captures_total"] == 0

    app.write(app.old_match(), "salut")
    captured_at = float(app.value("SELECT extract(epoch FROM captured_at) FROM bridge.events"))
    numbers = samples(ask(port, "/metrics").body)
    assert numbers["bridge_inbox_open"] == 1
    assert numbers['bridge_turns{state="open"}'] == 1
    assert numbers["bridge_captures_total"] == 1
    assert numbers["bridge_oldest_unanswered_timestamp_seconds"] == pytest.approx(captured_at, abs=0.001)

    store.group()
    numbers = samples(ask(port, "/metrics").body)
    assert numbers["bridge_inbox_open"] == 0
    assert numbers['bridge_turns{state="open"}'] == 1
    assert numbers["bridge_turns_overdue"] == 0
    assert numbers["bridge_oldest_unanswered_timestamp_seconds"] == pytest.approx(captured_at, abs=0.001)

    app.rows("UPDATE bridge.turns SET due_at = now() - interval '1 min'")
    assert samples(ask(port, "/metrics").body)["bridge_turns_overdue"] == 1

    app.rows("UPDATE bridge.turns SET state = 'dead', due_at = NULL, ended_at = now(), last_error = 'x'")
    numbers = samples(ask(port, "/metrics").body)
    assert numbers["bridge_dead_letters"] == 1
    assert numbers['bridge_turns{state="open"}'] == 0
    assert numbers["bridge_oldest_unanswered_timestamp_seconds"] == 0


def test_the_living_processes(app: App, store: Store, port: int) -> None:
    """A process counts from its first beat until it ends in order or has been silent for 45 s."""

    def shown() -> list[float]:
        numbers = samples(ask(port, "/metrics").body)
        return [numbers[f'bridge_processes{{role="{role}"}}'] for role in ("scheduler", "worker")]

    def beat(process: UUID, role: str, *, ended: bool = False) -> None:
        store.heartbeat(process, role, uptime=60, rss_bytes=1, cpu_seconds=1, ended=ended, environment={})

    app.rows("DELETE FROM bridge.processes")
    assert shown() == [0, 0]
    assert "No scheduler lives" in ask(port, "/").body

    scheduler, *workers = (uuid4() for _ in range(3))
    beat(scheduler, "scheduler")
    for worker in workers:
        beat(worker, "worker")
    assert shown() == [1, 2]

    beat(workers[0], "worker", ended=True)
    assert shown() == [1, 1]

    app.rows("UPDATE bridge.processes SET seen_at = seen_at - interval '46 s' WHERE role = 'scheduler'")
    assert shown() == [0, 1]


def test_the_clock(app: App, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """By how much PostgreSQL's clock is ahead is shown in seconds, behind as a negative number."""
    for ahead in (0, 60, -60):
        monkeypatch.setattr(observer, "time", SimpleNamespace(time=lambda ahead=ahead: time.time() - ahead))
        with console(app.urls.service, redis_server.url()) as port:
            shown = samples(ask(port, "/metrics").body)["bridge_clock_offset_seconds"]
        assert shown == pytest.approx(ahead, abs=5)


def test_the_figures_are_those_of_the_command(app: App, store: Store) -> None:
    """`status` and the console count alike, whatever stands where."""
    for _ in range(3):
        app.write(app.old_match(), "salut")
    app.match()
    store.group()
    app.rows("UPDATE bridge.turns SET due_at = now() - interval '1 min' WHERE kind = 'reply' AND id % 2 = 0")
    store.push_due(1)
    app.write(app.old_match(), "pas encore groupé")
    with closing(Connection(app.urls.service, application="test")) as connection:
        [[figures]] = connection.execute("SELECT bridge.metrics()")
        status = Ledger(connection).status()

    for name in ("open", "queued", "composing", "typing", "overdue", "dead"):
        assert figures[name] == getattr(status, name), name
    assert figures["overdue"] >= 1
    waited = float(app.value("SELECT extract(epoch FROM bridge.now())")) - figures["oldest_unanswered_at"]
    assert waited == pytest.approx(status.oldest_unanswered_seconds, abs=30)


def test_the_number_of_series_is_constant(app: App, store: Store, port: int) -> None:
    """A thousand conversations more add no series, and no series holds an id."""
    before = set(samples(ask(port, "/metrics").body))

    write_in_many(app, 1000)
    store.group()
    answer_one(app, store, CANARY, CANARY)
    text = ask(port, "/metrics").body

    assert set(samples(text)) == before
    assert samples(text)['bridge_turns{state="open"}'] == 1000
    assert not AN_ID.search(text)


@pytest.mark.parametrize("stale", [False, True], ids=["known", "believed open"])
def test_a_look_does_not_grow_with_history(app: App, *, stale: bool) -> None:
    """With twenty thousand finished turns, and processes that are gone, a look reads none of them.

    Nor where the planner's statistics are of a backlog that is answered by now.
    """
    app.rows(
        "INSERT INTO bridge.turns"
        " (kind, match_id, bot_id, state, opened_at, ended_at, answered_at, reply_message_id)"
        " SELECT 'reply', gen_random_uuid(), gen_random_uuid(), 'answered', now(), now(), now(), gen_random_uuid()"
        " FROM generate_series(1, 20000)"
    )
    if stale:
        app.rows("UPDATE bridge.turns SET state = 'open', due_at = now() + interval '1 day', ended_at = NULL")
    app.rows(
        "INSERT INTO bridge.events (kind, match_id, message_id, bot_id, turn_id, captured_at)"
        " SELECT 'message', match_id, gen_random_uuid(), bot_id, id, opened_at FROM bridge.turns"
    )
    app.rows(
        "INSERT INTO bridge.processes (id, role, started_at, seen_at, rss_bytes, rss_peak_bytes, cpu_seconds)"
        " SELECT gen_random_uuid(), 'worker', now() - interval '1 day', now() - interval '1 day', 1, 1, 1"
        " FROM generate_series(1, 20000)"
    )
    app.rows("ANALYZE bridge.turns; ANALYZE bridge.events; ANALYZE bridge.processes")
    if stale:
        app.rows("UPDATE bridge.turns SET state = 'answered', due_at = NULL, ended_at = now()")
    with closing(Client(app.urls.service)) as fresh:  # whose counters of its own reads begin at 0
        fresh.rows("BEGIN")
        fresh.rows("SELECT bridge.metrics()")
        fresh.rows("SELECT bridge.processes(45, 45)")
        fresh.rows("SELECT bridge.latest_turns(20)")
        read = fresh.rows(
            "SELECT relname, seq_tup_read, coalesce(idx_tup_fetch, 0) FROM pg_stat_xact_all_tables"
            " WHERE relid IN ('bridge.turns'::regclass, 'bridge.events'::regclass, 'bridge.processes'::regclass)"
        )
        fresh.rows("ROLLBACK")

    assert {name for name, *_ in read} == {"turns", "events", "processes"}
    for name, scanned, fetched in read:
        assert scanned == 0, name
        assert fetched <= 100, name


def test_a_count_above_the_bound_is_an_estimate(
    app: App, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However much is open, a look reads no more than the bound, and marks what it did not count."""
    monkeypatch.setattr(observer, "COUNTED", 100)
    app.rows(
        "INSERT INTO bridge.turns (kind, match_id, bot_id, state, opened_at, due_at)"
        " SELECT 'reply', gen_random_uuid(), gen_random_uuid(), 'open', now(), now() + interval '1 day'"
        " FROM generate_series(1, 5000)"
    )
    app.rows("ANALYZE bridge.turns")
    with closing(Client(app.urls.service)) as fresh:
        fresh.rows("BEGIN")
        fresh.rows("SELECT bridge.metrics(p_most => 100)")
        [[read]] = fresh.rows(
            "SELECT idx_tup_fetch FROM pg_stat_xact_all_tables WHERE relid = 'bridge.turns'::regclass"
        )
        fresh.rows("ROLLBACK")
    assert read <= 200
    with console(app.urls.service, redis_server.url()) as port:
        assert '<dd class="">≈ 5000</dd>' in ask(port, "/").body
    assert app.value("SELECT (bridge.status() ->> 'open')::int") == 5000


def test_what_a_bot_spends(app: App, port: int) -> None:
    """The page of bots shows the tokens of today, calls under way at their most, and the cost if a price is known."""
    set_policy(app.urls, CAMILLE, openai_price_input=1000, openai_price_output=1000)
    app.rows(
        "INSERT INTO bridge.budgets (day, kind, owner_id, calls, tokens_in, tokens_out, reserved_in, reserved_out)"
        " SELECT (now() AT TIME ZONE 'Europe/Paris')::date, 'bot', %s, 2, 1000, 200, 30, 4",
        CAMILLE,
    )
    assert '<td class="number">1234</td><td class="number">1.23</td>' in ask(port, "/bots").body


def test_many_who_ask_cost_one_look(app: App, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Within the time for which a look is good, PostgreSQL is asked once, however many ask the console."""
    monkeypatch.setattr(observer, "LOOK_SECONDS", 3600.0)
    with console(app.urls.service, redis_server.url()) as port:
        first = samples(ask(port, "/metrics").body)
        app.write(app.old_match(), "salut")
        assert samples(ask(port, "/metrics").body)["bridge_captures_total"] == first["bridge_captures_total"]
        assert ask(port, "/health/ready").status == 200


# --- The process ---------------------------------------------------------------------------------


def test_the_command(bridge_database: Urls, redis_server: RedisServer) -> None:
    """`python -m bridge_service console` serves on HOST and PORT, and ends well at SIGTERM."""
    port = free_port()
    environment = {"DATABASE_URL": bridge_database.service, "REDIS_URL": redis_server.url(), "PORT": str(port)}
    with Service(environment) as service:
        process = service.start("console", (sys.executable, "-m", "bridge_service", "console"))
        service.wait_for_line("⚙️ GROUPING_DELAY=15", process=process)
        service.wait_for_line(f"listening on http://127.0.0.1:{port}", process=process)
        eventually(lambda: ask(port, "/health/ready").status == 200)

        process.signal(signal.SIGTERM)

        assert process.wait() == 0
        assert service.texts("Arrêt terminé", process=process)


@pytest.mark.parametrize("log_format", ["text", "json"])
@pytest.mark.parametrize("level", ["INFO", "DEBUG"])
def test_the_token_is_found_nowhere(
    bridge_database: Urls, redis_server: RedisServer, log_format: str, level: str
) -> None:
    """Whatever is asked, with the token or with one that is nearly it, none is in an answer or in a line."""
    port = free_port()
    token = f"{CANARY}-{string.punctuation}"
    environment = {
        "DATABASE_URL": bridge_database.service,
        "REDIS_URL": redis_server.url(),
        "PORT": str(port),
        "HOST": "0.0.0.0",  # noqa: S104 - where it may have to be said that there is no token
        "CONSOLE_TOKEN": token,
        "LOG_FORMAT": log_format,
        "LOG_LEVEL": level,
    }
    with Service(environment) as service:
        process = service.start("console", (sys.executable, "-m", "bridge_service", "console"))
        service.wait_for_line(f"listening on http://0.0.0.0:{port}", process=process)
        answers = [
            ask(port, path, method, authorization)
            for path in PATHS
            for method in ("GET", "POST")
            for authorization in (None, f"Bearer {token}", basic(token), f"Bearer {token}x", f"Bearer {token} {token}")
        ]
        garbled = ask_raw(port, f"GET / HTTP/1.1\r\nAuthorization: Bearer {token}\x00\r\nHost\r\n\r\n".encode())
        process.signal(signal.SIGTERM)

        assert process.wait() == 0
        assert {answer.status for answer in answers} == {200, 401, 403, 404, 405}
        assert garbled.startswith(b"HTTP/1.1 400 ")
        assert all(CANARY not in f"{answer.headers}{answer.body}" for answer in answers)
        assert CANARY.encode() not in garbled
        assert not service.lines(CANARY)
        assert not service.lines("pages_open|CONSOLE_TOKEN")


def test_pages_that_are_open_are_told_of(bridge_database: Urls, redis_server: RedisServer) -> None:
    """A console that others can reach and that asks for nothing says so once, by a stable name, and serves."""
    port = free_port()
    environment = {
        "DATABASE_URL": bridge_database.service,
        "REDIS_URL": redis_server.url(),
        "PORT": str(port),
        "HOST": "0.0.0.0",  # noqa: S104 - what is told of
        "LOG_FORMAT": "json",
    }
    with Service(environment) as service:
        process = service.start("console", (sys.executable, "-m", "bridge_service", "console"))
        service.wait_for_line("listening on", process=process)
        [line] = service.lines("pages_open", process=process)
        told = json.loads(line.raw)

        assert (told["level"], told["event"], told["variable"]) == ("WARNING", "pages_open", "PORT")
        assert "CONSOLE_TOKEN" in told["message"]
        assert [ask(port, path).status for path in ("/", "/metrics", "/health/live")] == [200, 200, 200]


def test_a_taken_port(bridge_database: Urls, redis_server: RedisServer) -> None:
    """A PORT that somebody else holds ends the command with 1 and one line that says what to do."""
    with closing(socket.create_server(("127.0.0.1", 0))) as other:
        port = other.getsockname()[1]
        environment = {"DATABASE_URL": bridge_database.service, "REDIS_URL": redis_server.url(), "PORT": str(port)}
        with Service(environment) as service:
            process = service.start("console", (sys.executable, "-m", "bridge_service", "console"))

            assert process.wait() == 1
            [line] = service.texts("set another PORT", process=process)
            assert str(port) in line
