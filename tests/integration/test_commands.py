"""The operator's commands, on a real PostgreSQL and Redis: what they print, what they change, how they end."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from uuid import uuid4

import psycopg2
import pytest
import redis
from typer.testing import CliRunner

from bridge_service.checks import notifications
from bridge_service.checks.finding import Finding, encryption
from bridge_service.checks.redis import check_redis
from bridge_service.errors import BridgeError, DatabaseUnavailable
from bridge_service.machine.database import Connection, Database
from bridge_service.machine.ledger import Ledger
from bridge_service.machine.steps import Store
from bridge_service.operate.cli import app
from bridge_service.operate.output import Output
from bridge_service.responders.budget import Call
from tests.support.app import Client
from tests.support.databases import execute
from tests.support.policy import MAX_ATTEMPTS, set_grouping, set_policy
from tests.support.roles import ADMIN, OWNER, SERVICE, Urls, assert_not
from tests.support.store import store_on
from tests.support.waiting import eventually, wait_for_lock_wait

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from bridge_service.demo.servers import PostgresServer, RedisServer

REPOSITORY: Final = Path(__file__).parents[2]
CAMILLE: Final = "b0000000-0000-4000-8000-000000000001"
LEA: Final = "a0000000-0000-4000-8000-000000000001"
HUGO: Final = "a0000000-0000-4000-8000-000000000002"
CONTENT: Final = "un-secret-entre-nous"
PASSWORD: Final = "canary-9f3b"
NOBODY_LISTENS: Final = 1
"""A port that nothing listens on."""

NUMBERS: Final = ["open", "queued", "composing", "typing", "overdue", "dead", "oldest_unanswered_seconds"]
STATUS: Final = [*NUMBERS, "held", "paused", "taken_over", "bots_paused", "redis", "postgresql"]
VERIFY: Final = ["messages", "answered", "open", "cancelled", "dead", "unaccounted", "doubled", "undisclosed"]


class Result(NamedTuple):
    """How a command ended and what it printed."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:  # noqa: ANN401 - whatever the JSON holds
        """The one object on standard output."""
        assert self.out.count("\n") == 1
        return json.loads(self.out)


class Operator:
    """An operator who types commands; `environ` is what they have set."""

    def __init__(self, **environ: str) -> None:
        self.environ = environ

    def by(self, role: str) -> Operator:
        """Return an operator with the same settings and another role."""
        url = self.environ["DATABASE_URL"].replace(f"//{SERVICE}@", f"//{role}@")
        return Operator(**{**self.environ, "DATABASE_URL": url})

    def __call__(self, *words: str, typed: str = "") -> Result:
        """Run a command in this process."""
        cleared: dict[str, str | None] = dict.fromkeys(os.environ)
        runner = CliRunner(env={**cleared, "PATH": os.environ["PATH"], "COLUMNS": "200", **self.environ})
        result = runner.invoke(app, list(words), input=typed, catch_exceptions=False)
        return Result(result.exit_code, result.stdout, result.stderr)

    def process(self, *words: str) -> Result:
        """Run a command in a process of its own."""
        assert_not(self.environ.get("DATABASE_URL", ""), ADMIN)
        done = subprocess.run(
            [sys.executable, "-m", "bridge_service", *words],
            cwd=REPOSITORY,
            env={"PATH": os.environ["PATH"], **self.environ},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        return Result(done.returncode, done.stdout, done.stderr)


class Chat:
    """The app's side of one database, and a scheduler's and a worker's hands."""

    def __init__(self, urls: Urls) -> None:
        self.urls = urls
        self.connection = psycopg2.connect(urls.admin)
        self.connection.autocommit = True
        self.people = Client(urls.app)
        self.database = Database(lambda: Connection(urls.service, application="test"))
        self.store = Store(self.database)

    def close(self) -> None:
        """Close all connections."""
        self.connection.close()
        self.people.close()
        self.database.close()

    def rows(self, statement: str, *parameters: object) -> list[tuple[Any, ...]]:
        """Run a statement."""
        with self.connection.cursor() as cursor:
            cursor.execute(statement, parameters or None)
            return cursor.fetchall() if cursor.description else []

    def match(self, person: str = LEA) -> str:
        """Match a person with Camille."""
        match = str(uuid4())
        self.people.rows("INSERT INTO matches (id, user1_id, user2_id) VALUES (%s, %s, %s)", match, person, CAMILLE)
        return match

    def write(self, match: str, *, sender: str = LEA, age: str = "0 s", unseen: bool = False) -> str:
        """Insert a message that the app dates `age` ago; one that is `unseen` fires no trigger."""
        message = str(uuid4())
        if unseen:
            self.rows("SET session_replication_role = replica")
        writer = self if unseen else self.people
        writer.rows(
            "INSERT INTO messages (id, match_id, sender_id, content, created_at)"
            " VALUES (%s, %s, %s, %s, now() - %s::interval)",
            *(message, match, sender, CONTENT, age),
        )
        self.rows("RESET session_replication_role")
        return message

    def group(self, *, openers: bool = False) -> None:
        """Group everything, due at once."""
        if openers:
            set_policy(self.urls, initiation_probability=1)
        self.store.group()

    def answer(self) -> None:
        """Group, push, and answer all that is due."""
        self.group()
        for push in self.store.push_due(100):
            token = uuid4()
            self.store.claim(push.turn_id, token)
            self.store.finish(push.turn_id, token, CONTENT, pause=0)

    def kill(self, *, openers: bool = False) -> int:
        """Group, push, and fail at the one turn that is due until it is dead; return its id."""
        self.group(openers=openers)
        [push] = self.store.push_due(100)
        for _ in range(MAX_ATTEMPTS):
            token = uuid4()
            self.store.claim(push.turn_id, token)
            self.store.fail(push.turn_id, token, "ValueError: no words", retry=0, counts=True)
        assert self.state(push.turn_id)[0] == "dead"
        return push.turn_id

    def state(self, turn: int) -> tuple[Any, ...]:
        """Return a turn's state and reason."""
        [row] = self.rows("SELECT state, reason FROM bridge.turns WHERE id = %s", turn)
        return row

    def known(self) -> list[str]:
        """Return the messages that events know, in the order of their events."""
        return [row[0] for row in self.rows("SELECT message_id FROM bridge.events WHERE kind = 'message' ORDER BY id")]

    def install_earlier(self, age: str = "10 days") -> None:
        """Make the installation as old as that."""
        self.rows("UPDATE bridge.installation SET installed_at = now() - %s::interval", age)


@pytest.fixture
def chat(bridge_database: Urls) -> Iterator[Chat]:
    """Give a database of the app with the bridge in it."""
    set_grouping(bridge_database, 0, opener=0, probability=0)
    with closing(Chat(bridge_database)) as chat:
        yield chat


@pytest.fixture
def operator(bridge_database: Urls, redis_server: RedisServer) -> Operator:
    """Give an operator of the database with the bridge in it."""
    return Operator(DATABASE_URL=bridge_database.service, REDIS_URL=redis_server.url())


@pytest.fixture
def newcomer(app_database: Urls, redis_server: RedisServer) -> Operator:
    """Give an operator of a database without the bridge."""
    return Operator(DATABASE_URL=app_database.service, REDIS_URL=redis_server.url())


def lost(url: str) -> str:
    """Return the URL with a port on which nothing listens."""
    return re.sub(r":\d+/", f":{NOBODY_LISTENS}/", url)


READING: Final = (
    ["check"],
    ["status"],
    ["why", LEA],
    ["verify"],
    ["dead", "list"],
    ["dead", "show", "1"],
    ["report"],
    ["migrate", "--plan"],
)
WITH_REDIS: Final = (["check"], ["status"])
WRITING: Final = (["migrate"], ["uninstall", "--yes"], ["dead", "retry", "1"], ["dead", "drop", "1"], ["replay"])


# --- What all have in common ---------------------------------------------------------------------


@pytest.mark.parametrize("words", [*READING, *WRITING], ids=" ".join)
def test_a_wrong_configuration_ends_every_command_with_78(words: list[str]) -> None:
    """Each fault is a line on standard error that names its variable, and no line tells its value."""
    result = Operator(DATABASE_URL=f"http://{PASSWORD}@x", GROUPING_DELAY="-1")(*words)
    assert result.code == 78
    needed = ["DATABASE_URL", "REDIS_URL"] if words in WITH_REDIS else ["DATABASE_URL"]
    assert [line.partition(":")[0] for line in result.err.splitlines()] == [*needed, "GROUPING_DELAY"]
    assert result.out == ""
    assert PASSWORD not in result.err


@pytest.mark.parametrize("words", [*READING, *WRITING], ids=" ".join)
def test_a_command_asks_only_for_what_it_uses(operator: Operator, words: list[str]) -> None:
    """Without REDIS_URL a command that uses no Redis does the same; the others end with 78 and name it."""
    role = OWNER if words[0] in ("migrate", "uninstall") else SERVICE
    result = Operator(DATABASE_URL=operator.by(role).environ["DATABASE_URL"])(*words)
    if words in WITH_REDIS:
        assert result.code == 78
        assert result.err.startswith("REDIS_URL: not set: ")
    else:
        assert result.code in (0, 1)
        assert "REDIS_URL" not in result.err


@pytest.mark.parametrize("words", [*READING, *WRITING], ids=" ".join)
def test_a_command_validates_what_it_does_not_use(operator: Operator, words: list[str]) -> None:
    """A variable that is set and wrong ends every command, so that no wrong value waits for a process to start."""
    operator.environ.update(REDIS_URL="http://x", HEALTH_PORT="0", RESPONDER="nothing")
    result = operator(*words)
    assert result.code == 78
    assert [line.partition(":")[0] for line in result.err.splitlines()] == ["REDIS_URL", "RESPONDER", "HEALTH_PORT"]


@pytest.mark.parametrize("words", READING, ids=" ".join)
def test_json_is_one_object_whatever_happens(operator: Operator, words: list[str]) -> None:
    """A reading command with --json prints one object and nothing else: also for what is away or wrong."""
    down = Operator(DATABASE_URL=lost(operator.environ["DATABASE_URL"]), REDIS_URL=operator.environ["REDIS_URL"])
    wrong = Operator(DATABASE_URL="x")
    for who in (operator, down, wrong):
        assert isinstance(who(*words, "--json").document, dict)


@pytest.mark.parametrize("words", [*READING, *WRITING], ids=" ".join)
def test_a_postgresql_that_is_away_is_said_in_one_line(newcomer: Operator, words: list[str]) -> None:
    """The command ends with 1 and says so, without the password; `status` reports it instead, and ends with 0."""
    newcomer.environ["DATABASE_URL"] = lost(newcomer.environ["DATABASE_URL"])
    result = newcomer.by(f"{SERVICE}:{PASSWORD}")(*words)
    assert PASSWORD not in result.out + result.err
    if words == ["status"]:
        assert (result.code, result.err) == (0, "")
        return
    assert result.code == 1
    told = [line for line in (result.out + result.err).splitlines() if "DATABASE_URL" in line]
    assert len(told) == 1


@pytest.mark.parametrize("words", [["why", LEA], ["verify"], ["dead", "list"], ["replay"]], ids=" ".join)
def test_a_database_without_the_bridge_is_told_to_migrate(newcomer: Operator, words: list[str]) -> None:
    """The line names the command that helps."""
    result = newcomer(*words)
    assert (result.code, result.err.count("\n")) == (1, 1)
    assert "python -m bridge_service migrate" in result.err


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["nonsense"],
        ["why", "no-uuid"],
        ["why"],
        ["dead", "retry"],
        ["dead", "retry", "1", "--all"],
        ["dead", "show", "0"],
        ["dead", "drop", str(2**63)],
        ["replay", "--since", "yesterday"],
        ["replay", "--since", "2026-02-01", "--until", "2026-01-01"],
        ["replay", "--match", "no-uuid"],
        ["status", "--watch"],
        ["status", "--watch", "--json"],
        ["uninstall"],
    ],
    ids=lambda words: " ".join(words) or "nothing",
)
def test_wrong_usage_ends_with_2(operator: Operator, words: list[str]) -> None:
    """What cannot be meant is refused before anything is done."""
    assert operator(*words).code == 2
    assert operator("status", "--json").document["postgresql"] == "ok"


def test_a_process_of_its_own_behaves_the_same(operator: Operator, chat: Chat) -> None:
    """`python -m bridge_service` gives the exit codes, and plain text where there is no terminal."""
    message = chat.write(chat.match(), unseen=True)
    assert operator.process("status", "--json").document["postgresql"] == "ok"
    assert operator.process("why", message).code == 1
    assert operator.process("why", "x").code == 2
    result = operator.process("verify")
    assert result.code == 1
    assert "\x1b" not in result.out + result.err
    assert Operator().process("verify").code == 78


def test_no_error_tells_a_secret() -> None:
    """Whatever a library quotes, a password is replaced, and only the first line of its words is told."""
    output = Output(as_json=False)
    output.secrets = (PASSWORD, "abc", "p@ss'wörd")
    told = output.describe(DatabaseUnavailable(f'no host "{PASSWORD}@x" in abc\nDETAIL: {CONTENT}'))
    assert told.endswith('no host "***@x" in abc')
    assert output.describe(BridgeError("as p%40ss%27w%C3%B6rd in a URL")) == "as *** in a URL"


def test_every_command_and_check_is_documented(operator: Operator) -> None:
    """docs/COMMANDS.md has a row for every check, and a section for each command of this file."""
    page = (REPOSITORY / "docs" / "COMMANDS.md").read_text(encoding="utf-8")
    for words in (*READING, *WRITING):
        assert f"\n## {words[0]}\n" in page
    for check in operator("check", "--json").document["checks"]:
        assert f"| `{check['name']}` |" in page


# --- migrate, uninstall --------------------------------------------------------------------------


def test_migrate_says_what_it_did_and_then_that_nothing_is_left(newcomer: Operator) -> None:
    """The first run names migration and triggers, the second says "up to date"."""
    first = newcomer.by(OWNER)("migrate")
    assert first.code == 0
    assert "0001_tables.sql" in first.out
    assert "bridge_after_message" in first.out
    second = newcomer.by(OWNER)("migrate")
    assert (second.code, second.out) == (0, "Schema bridge is up to date.\n")


def test_migrate_refuses_a_role_that_is_not_there(newcomer: Operator) -> None:
    """The line names the role, and nothing was installed."""
    result = newcomer.by(OWNER)("migrate", "--reader-role", "nobody_of_that_name")
    assert (result.code, result.err.count("\n")) == (1, 1)
    assert "nobody_of_that_name" in result.err
    assert newcomer("status", "--json").document["postgresql"] == "no schema"


def test_migrate_prints_what_it_would_run(newcomer: Operator, app_database: Urls) -> None:
    """With --plan nothing is there afterwards; what is printed is SQL, for people and as one object."""
    owner = newcomer.by(OWNER)
    result = owner("migrate", "--plan")
    assert (result.code, result.err) == (0, "")
    assert "\nCREATE SCHEMA bridge;\n" in result.out
    document = owner("migrate", "--plan", "--json").document
    assert result.out.endswith(f"\n{document['sql']}\n")
    assert newcomer("status", "--json").document["postgresql"] == "no schema"

    done = owner("migrate", "--json").document
    assert document == {**done, "sql": document["sql"]}
    assert list(done) == ["migrations", "functions", "kept", "triggers", "bound", "sequences", "found"]
    assert owner("migrate", "--plan").out == "-- Schema bridge is up to date.\n"
    execute(app_database.admin, "ALTER FUNCTION bridge.deliver COST 7")
    assert owner("migrate", "--plan").out.splitlines()[1:] == ["-- Left alone what the app replaced: deliver."]
    assert owner("migrate", "--plan", "--json").document["sql"] == ""


def test_migrate_lets_several_roles_read(newcomer: Operator, app_database: Urls, postgres: PostgresServer) -> None:
    """--reader-role can be given more than once, and each role is named."""
    roles = [f"reader_{uuid4().hex[:8]}" for _ in range(2)]
    execute(postgres.url(), "; ".join(f"CREATE ROLE {role}" for role in roles))
    try:
        result = newcomer.by(OWNER)("migrate", *(word for role in roles for word in ("--reader-role", role)))
        assert result.out.splitlines()[-2:] == [f"Role {role} may read the bridge's tables." for role in roles]
    finally:
        execute(app_database.admin, f"DROP OWNED BY {', '.join(roles)}")
        execute(app_database.admin, f"DROP ROLE {', '.join(roles)}")


def test_migrate_leaves_alone_what_the_app_replaced(operator: Operator, chat: Chat) -> None:
    """An adapter function of the app's own is named and kept, and `check` is content with it."""
    chat.rows(
        "CREATE OR REPLACE FUNCTION bridge.messages_to_bots(p_since timestamptz, p_until timestamptz)"
        " RETURNS TABLE (message_id uuid, match_id uuid, bot_id uuid, sender_id uuid, created_at timestamptz)"
        " LANGUAGE sql STABLE AS 'SELECT NULL::uuid, NULL::uuid, NULL::uuid, NULL::uuid, NULL::timestamptz WHERE false'"
    )
    assert "messages_to_bots" in operator.by(OWNER)("migrate").out
    chat.write(chat.match(), unseen=True)
    assert operator("verify", "--json").document["messages"] == 0
    assert "replaced by the app: messages_to_bots" in found(operator("check", "--json"), "schema")["detail"]


def test_uninstall_takes_the_bridge_out_once(operator: Operator, chat: Chat) -> None:
    """With --yes nothing is asked; the second run finds nothing to do, and is content."""
    assert operator.by(OWNER)("uninstall", "--yes").code == 0
    assert chat.rows("SELECT 1 FROM pg_namespace WHERE nspname = 'bridge'") == []
    result = operator.by(OWNER)("uninstall", "--yes")
    assert (result.code, result.out) == (0, "There was nothing to take out.\n")


def on_a_terminal(operator: Operator, typed: str, *words: str) -> Result:
    """Run a command whose questions are answered with what is typed."""
    master, terminal = pty.openpty()
    try:
        process = subprocess.Popen(
            [sys.executable, "-m", "bridge_service", *words],
            cwd=REPOSITORY,
            env={"PATH": os.environ["PATH"], **operator.environ},
            stdin=terminal,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        os.write(master, typed.encode())
        out, err = process.communicate(timeout=60)
    finally:
        os.close(master)
        os.close(terminal)
    return Result(process.returncode, out, err)


@pytest.mark.parametrize(("typed", "stays"), [("n\n", True), ("y\n", False)])
def test_uninstall_asks_on_a_terminal(operator: Operator, chat: Chat, typed: str, *, stays: bool) -> None:
    """No leaves everything as it was and ends with 1, yes takes it out."""
    assert on_a_terminal(operator.by(OWNER), typed, "uninstall").code == int(stays)
    assert bool(chat.rows("SELECT 1 FROM pg_namespace WHERE nspname = 'bridge'")) is stays


# --- status --------------------------------------------------------------------------------------


def test_status_counts_what_is_under_way(operator: Operator, chat: Chat) -> None:
    """Each turn counts where it stands, and the oldest message that waits says for how long."""
    assert list(operator("status", "--json").document) == STATUS
    chat.write(chat.match(HUGO), sender=HUGO)
    chat.kill()
    chat.write(chat.match())
    chat.group()
    chat.rows("UPDATE bridge.events SET captured_at = now() - interval '1 hour'")
    status = operator("status", "--json").document
    assert (status["open"], status["overdue"], status["dead"]) == (1, 1, 1)
    assert 3600 <= status["oldest_unanswered_seconds"] < 3700
    chat.store.push_due(100)
    status = operator("status", "--json").document
    assert (status["open"], status["queued"], status["overdue"]) == (0, 1, 0)
    assert (status["redis"], status["postgresql"]) == ("ok", "ok")


def test_status_counts_ungrouped_conversations_as_open(operator: Operator, chat: Chat) -> None:
    """Without a scheduler a conversation is an open turn to be, overdue once its group should have been pushed."""
    match = chat.match()
    chat.write(match)
    chat.write(match)
    set_policy(chat.urls, grouping_delay=15)
    assert operator("status", "--json").document["open"] == 1
    assert operator("status", "--json").document["overdue"] == 0
    set_policy(chat.urls, grouping_delay=0)
    assert operator("status", "--json").document["overdue"] == 1
    chat.answer()
    idle = operator("status", "--json").document
    assert {idle[name] for name in NUMBERS} == {0}
    assert re.search(r"oldest unanswered seconds +no message waits", operator("status").out)


def test_status_reports_what_is_away(operator: Operator, newcomer: Operator) -> None:
    """Whatever is down is said in a fixed word, what only it knows is null, and the exit code is 0."""
    wrong = {**operator.environ, "REDIS_URL": lost(operator.environ["REDIS_URL"])}
    assert Operator(**wrong)("status", "--json").document["redis"] == "down"
    wrong["DATABASE_URL"] = lost(operator.environ["DATABASE_URL"])
    result = Operator(**wrong)("status", "--json")
    assert (result.code, result.document) == (0, {**dict.fromkeys(STATUS), "redis": "down", "postgresql": "down"})
    assert newcomer("status", "--json").document["postgresql"] == "no schema"
    assert newcomer("status").code == 0


def test_status_tells_how_much_lies_in_the_queue(
    operator: Operator, bridge_database: Urls, redis_client: redis.Redis
) -> None:
    """The table shows the length of this installation's list."""
    with store_on(bridge_database) as store:
        redis_client.rpush(f"dramatiq:{{{store.queue_id()}}}:bot_messages", "a", "b", "c")
    assert re.search(r"messages in the queue +3", operator("status").out)


def test_status_is_watched_until_interrupted(operator: Operator) -> None:
    """On a terminal --watch shows the table until Ctrl-C, and ends with 0."""
    master, terminal = pty.openpty()
    shown = bytearray()

    def read() -> None:
        while not shown.endswith(b"closed"):
            try:
                shown.extend(os.read(master, 4096))
            except OSError:
                return

    try:
        process = subprocess.Popen(
            [sys.executable, "-m", "bridge_service", "status", "--watch"],
            cwd=REPOSITORY,
            env={"PATH": os.environ["PATH"], "TERM": "xterm", **operator.environ},
            stdin=terminal,
            stdout=terminal,
            stderr=terminal,
        )
        os.close(terminal)
        reader = threading.Thread(target=read, daemon=True)
        reader.start()
        eventually(lambda: b"oldest unanswered" in shown)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=10) == 0
    finally:
        process.kill()
        os.close(master)


# --- why -----------------------------------------------------------------------------------------


def test_why_tells_a_message_s_story_without_its_content(operator: Operator, chat: Chat) -> None:
    """Id, state and every step with its time are there, from the capture to the reply's id."""
    match = chat.match()
    message = chat.write(match)
    result = operator("why", message)
    assert (result.code, result.out.splitlines()[0]) == (0, f"{message} open")
    chat.answer()
    result = operator("why", message)
    [[turn, reply]] = chat.rows("SELECT id, reply_message_id FROM bridge.turns WHERE kind = 'reply'")
    assert result.out.splitlines()[0] == f"{message} answered"
    for step in ("captured", f"turn {turn}: opened", "pushed", "claimed", f"answered 1 message with {reply}"):
        assert step in result.out
    assert CONTENT not in result.out
    story = operator("why", message, "--json").document
    assert (story["state"], story["match_id"]) == ("answered", match)
    assert story["turn"]["reply_message_id"] == reply
    assert CONTENT not in json.dumps(story)


def test_conversations_tell_where_a_bot_left_and_let_it_answer_again(operator: Operator, chat: Chat) -> None:
    """`show` names the cause and what is owed, `why` and `verify` know both, and `resume` works once."""
    match = chat.match()
    left = chat.write(match)
    assert operator("conversations", "show", match).out.splitlines()[0] == f"{match} open"
    chat.group()
    [push] = chat.store.push_due(10)
    token = uuid4()
    chat.store.claim(push.turn_id, token)
    story = operator("conversations", "show", match, "--json").document
    assert (story["state"], [turn["turn_id"] for turn in story["turns"]]) == ("composing", [push.turn_id])
    chat.store.finish(push.turn_id, token, "", pause=0, action="leave")
    ignored = chat.write(match)
    chat.group()

    shown = operator("conversations", "show", match)
    assert (shown.code, shown.out.splitlines()[0]) == (0, f"{match} left")
    assert f"left, by turn {push.turn_id}" in shown.out
    assert "answered 1 message with silence, as its responder chose; the bot left" in operator("why", left).out
    assert f"cancelled, left; `conversations show {match}`" in operator("why", ignored).out
    counted = operator("verify", "--json").document
    assert {name: counted[name] for name in VERIFY if counted[name]} == {"messages": 2, "answered": 1, "cancelled": 1}

    assert operator("conversations", "resume", match, "--json").document == {"match_id": match, "resumed": True}
    again = operator("conversations", "resume", match)
    assert again.code == 1
    assert again.err == f"{match}: the bot had not left this conversation, and nothing paused it there\n"
    assert operator("conversations", "show", match, "--json").document["state"] == "idle"
    assert operator("replay", "--yes").code == 0
    assert chat.store.group() == []


def test_an_operator_pauses_a_conversation_and_a_bot(operator: Operator, chat: Chat) -> None:
    """`show`, `why` and `--json` tell who ordered a pause and until when; `resume` works once."""
    match = chat.match()
    message = chat.write(match)
    paused = operator("conversations", "pause", match, "--until", "2999-01-01", "--json").document
    assert paused == {"match_id": match, "paused": True, "until": "2999-01-01T00:00:00+00:00"}
    [pause] = operator("conversations", "show", match, "--json").document["pauses"]
    assert (pause["cause"], pause["until"]) == ("paused", "2999-01-01T00:00:00+00:00")
    shown = operator("conversations", "show", match).out
    assert shown.splitlines()[0] == f"{match} paused"
    assert "paused by an operator or the app; the bot is silent until" in shown
    assert "the bot is silent until" in operator("why", message).out
    assert operator("conversations", "resume", match).code == 0

    bot = operator("conversations", "show", match, "--json").document["bot_id"]
    assert operator("bots", "pause", bot, "--json").document == {"bot": bot, "paused": True, "until": None}
    shown = operator("conversations", "show", match).out
    assert "for all conversations of this bot; the bot is silent until `resume`" in shown
    assert operator("bots", "resume", bot, "--json").document == {"bot": bot, "resumed": True}
    assert operator("bots", "resume", bot).code == 1
    assert operator("conversations", "pause", str(uuid4())).code == 1


def test_a_conversation_that_nobody_knows(operator: Operator) -> None:
    """An unknown id is 1, with one line; what is no id is wrong usage."""
    result = operator("conversations", "show", str(uuid4()))
    assert (result.code, result.out, len(result.err.splitlines())) == (1, "", 1)
    assert operator("conversations", "show", str(uuid4()), "--json").document["state"] is None
    assert operator("conversations", "resume", "x").code == 2


def test_why_follows_a_message_through_the_turns_it_passed(operator: Operator, chat: Chat) -> None:
    """A superseded and a dead turn are told of before the one that answered."""
    match = chat.match()
    message = chat.write(match)
    chat.group()
    [push] = chat.store.push_due(10)
    token = uuid4()
    chat.store.claim(push.turn_id, token)
    chat.write(match)
    outcome = chat.store.finish(push.turn_id, token, CONTENT, pause=0)
    assert outcome.name == "superseded"
    dead = chat.kill()
    assert f"dead show {dead}" in operator("why", message).out
    operator("dead", "retry", str(dead))
    chat.answer()
    result = operator("why", message)
    steps = [f"turn {push.turn_id}: cancelled, superseded", f"turn {dead}: cancelled, retried", "answered 2 messages"]
    assert sorted(steps, key=result.out.index) == steps
    assert result.out.startswith(f"{message} answered")


def test_why_says_that_the_responder_is_away(operator: Operator, chat: Chat) -> None:
    """While a worker has the turn `why` names the lease's end, then the error and the time of the next try."""
    message = chat.write(chat.match())
    chat.group()
    [push] = chat.store.push_due(10)

    def fail(error: str, *, counts: bool) -> None:
        token = uuid4()
        chat.store.claim(push.turn_id, token)
        assert "a worker has it; its lease ends at " in operator("why", message).out
        chat.store.fail(push.turn_id, token, error, retry=30, counts=counts)

    fail("ModelAway: 503", counts=False)
    due = "SELECT to_char(due_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS') FROM bridge.turns WHERE id = %s"
    [[until]] = chat.rows(due, push.turn_id)
    assert f"the responder is away (ModelAway: 503); next try at {until}" in operator("why", message).out
    story = operator("why", message, "--json").document["turn"]
    assert (story["leased"], story["due_at"]) == (False, story["retry_at"])
    chat.rows("UPDATE bridge.turns SET retry_at = now()")
    fail("ValueError: no words", counts=True)
    assert "the attempt failed (ValueError: no words); next try at " in operator("why", message).out


def test_why_and_report_tell_of_a_limit(operator: Operator, chat: Chat) -> None:
    """`why` says until when a message waits, and `report` what was spent, spared and left unsettled."""
    set_policy(chat.urls, limit_calls_person_day=1, openai_price_input=2)
    message = chat.write(chat.match())
    chat.group()
    [push] = chat.store.push_due(10)
    token = uuid4()
    chat.store.claim(push.turn_id, token)
    call = Call(token, 1, push.turn_id, "model", 1_000_000, 10, 30.0)
    assert chat.store.reserve_call(call)["outcome"] == "reserved"
    assert chat.store.hold(push.turn_id, token).name == "held"

    assert "held, over today's limit (limit_calls), answered from " in operator("why", message).out
    document = operator("report", "--json").document
    [spent] = document["spending"]
    assert (spent["calls"], spent["tokens_in"], spent["unsettled"], spent["cost"]) == (1, 1_000_000, 1_000_010, 2)
    assert document["calls"] == {"begun": 1, "unsettled": 1, "cancelled": 0, "discarded": 0, "spared": 0}
    shown = operator("report").out
    assert "today" in shown
    assert "2.00" in shown


def test_why_tells_of_what_was_set_aside(operator: Operator, chat: Chat) -> None:
    """An event that could not be grouped says so, with the error; control characters in it are shown, not obeyed."""
    match = chat.match()
    message = chat.write(match)
    chat.store.set_aside(match, "22008 \x1b[2Jout of range")
    result = operator("why", message)
    assert (result.code, result.out.splitlines()[0]) == (0, f"{message} set aside")
    assert r"22008 \x1b[2Jout of range" in result.out


def test_why_has_the_patience_of_those_that_look_at_every_turn(chat: Chat, bridge_database: Urls) -> None:
    """Earlier turns of a message are found by no index: with a long history that may take longer than a step's call."""
    message = chat.write(chat.match())
    with closing(Connection(bridge_database.service, application="test")) as connection:
        assert Ledger(connection, seconds=0.0).why(message) is not None


def test_why_knows_nothing_of_other_ids(operator: Operator, chat: Chat) -> None:
    """A match and an invented id end with 1 and one line; a message that a human wrote in a bot's name is known."""
    match = chat.match()
    assert "which a human wrote in the bot's name" in operator("why", chat.write(match, sender=CAMILLE)).out
    for unknown in (match, str(uuid4())):
        result = operator("why", unknown)
        assert (result.code, result.out, result.err.count("\n")) == (1, "", 1)
        assert operator("why", unknown, "--json").document == {"message_id": unknown, "state": None}


# --- verify --------------------------------------------------------------------------------------


def columns(result: Result) -> dict[str, int]:
    """Return the numbers of `verify --json` that are not 0."""
    document = result.document
    assert list(document) == VERIFY
    assert document["messages"] == sum(document[name] for name in VERIFY[1:6])
    return {name: number for name, number in document.items() if number}


def test_verify_counts_every_message_once(operator: Operator, chat: Chat) -> None:
    """Answered, open, cancelled and dead messages each have their column, and all is well."""
    assert columns(operator("verify", "--json")) == {}
    chat.write(chat.match(HUGO), sender=HUGO)
    chat.answer()
    chat.write(chat.match())
    dropped = chat.kill()
    operator("dead", "drop", str(dropped))
    chat.write(chat.match())
    chat.kill()
    open_match = chat.match()
    chat.write(open_match)
    chat.group()
    chat.write(open_match)
    chat.write(open_match, sender=CAMILLE)
    result = operator("verify", "--json")
    assert result.code == 0
    assert columns(result) == {"messages": 5, "answered": 1, "open": 2, "cancelled": 1, "dead": 1}
    assert operator("verify").code == 0


def test_verify_misses_what_was_never_captured(operator: Operator, chat: Chat) -> None:
    """A message from after the installation that no event knows is unaccounted for, until it is replayed."""
    message = chat.write(chat.match(), unseen=True)
    result = operator("verify", "--json")
    assert (result.code, columns(result)) == (1, {"messages": 1, "unaccounted": 1})
    told = operator("verify").err.splitlines()
    assert told[0] == f"{message}: never captured"
    assert "replay" in told[1]
    operator("replay")
    assert columns(operator("verify", "--json")) == {"messages": 1, "open": 1}


@pytest.mark.parametrize("age", ["1 s", "20 days", "-1 day", "-200000 years"])
def test_verify_is_not_confused_by_the_app_s_times(operator: Operator, chat: Chat, age: str) -> None:
    """What the app dates before the installation or in the future is not missed."""
    chat.rows("UPDATE bridge.installation SET installed_at = now() - interval '0.5 s'")
    chat.write(chat.match(), unseen=True, age=age)
    result = operator("verify", "--json")
    assert (result.code, columns(result)) == (0, {})


def test_verify_looks_at_people_s_messages_to_bots_only(operator: Operator, chat: Chat) -> None:
    """`verify` counts no message of a bot, between two people, or of a stranger."""
    match = chat.match()
    chat.write(match, sender=CAMILLE, unseen=True)
    chat.write(match, sender=HUGO, unseen=True)
    turned = str(uuid4())
    chat.rows("INSERT INTO matches (id, user1_id, user2_id) VALUES (%s, %s, %s)", turned, CAMILLE, LEA)
    chat.write(turned, sender=HUGO, unseen=True)
    people = str(uuid4())
    chat.rows("INSERT INTO matches (id, user1_id, user2_id) VALUES (%s, %s, %s)", people, LEA, HUGO)
    chat.write(people, unseen=True)
    assert columns(operator("verify", "--json")) == {}


def test_verify_misses_nothing_while_the_bridge_is_being_installed(newcomer: Operator, app_database: Urls) -> None:
    """A message that was written while `migrate` ran counts as one from before it."""
    with closing(Chat(app_database)) as chat, closing(psycopg2.connect(app_database.app)) as writer:
        match = chat.match()
        with writer.cursor() as cursor:
            cursor.execute("LOCK TABLE messages IN ROW EXCLUSIVE MODE")
        migration = threading.Thread(target=newcomer.by(OWNER).process, args=("migrate", "--runtime-role", SERVICE))
        migration.start()
        waiting = "SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE 'CREATE TRIGGER%'"
        eventually(lambda: bool(chat.rows(waiting)))
        with writer.cursor() as cursor:
            cursor.execute(
                "INSERT INTO messages (match_id, sender_id, created_at) VALUES (%s, %s, clock_timestamp())",
                (match, LEA),
            )
        writer.commit()
        migration.join()
        chat.write(match)
        assert columns(newcomer("verify", "--json")) == {"messages": 1, "open": 1}


def test_verify_misses_what_was_set_aside_or_left_out(operator: Operator, chat: Chat) -> None:
    """An event with an error, and one whose turn was answered without it, are unaccounted for."""
    first = chat.match()
    chat.write(first)
    chat.answer()
    chat.rows("UPDATE bridge.turns SET covers = '{}'")
    aside = chat.match(HUGO)
    chat.write(aside, sender=HUGO)
    chat.store.set_aside(aside, "22008 out of range")
    result = operator("verify", "--json")
    assert (result.code, columns(result)) == (1, {"messages": 2, "unaccounted": 2})
    assert "set aside: 22008 out of range" in result.err
    assert "its turn was answered without it" in result.err


@pytest.mark.parametrize("how", ["covered twice", "one reply for two turns"])
def test_verify_finds_what_was_answered_twice(operator: Operator, chat: Chat, how: str) -> None:
    """A message that two answered turns cover, or whose reply is another turn's too, is doubled."""
    for person in (LEA, HUGO):
        chat.write(chat.match(person), sender=person)
        chat.answer()
    if how == "covered twice":
        chat.rows("UPDATE bridge.turns SET covers = ARRAY(SELECT id FROM bridge.events WHERE kind = 'message')"
                  " WHERE id = (SELECT max(id) FROM bridge.turns)")  # fmt: skip
        expected = 1
    else:
        chat.rows("UPDATE bridge.turns SET reply_message_id = gen_random_uuid() WHERE kind = 'initiation'")
        chat.rows("UPDATE bridge.turns SET reply_message_id = %s WHERE kind = 'reply'", str(uuid4()))
        expected = 2
    result = operator("verify", "--json")
    assert (result.code, columns(result)) == (1, {"messages": 2, "answered": 2, "doubled": expected})
    assert "answered twice" in result.err


def test_verify_asks_for_the_disclosure(operator: Operator, chat: Chat) -> None:
    """A conversation whose disclosure the app deleted is a fault, with its match, until its words are gone too."""
    set_policy(chat.urls, disclosure=CONTENT[::-1])
    match = chat.match()
    chat.write(match)
    chat.answer()
    assert operator("verify").code == 0
    chat.rows("DELETE FROM messages WHERE content = %s", CONTENT[::-1])
    result = operator("verify", "--json")
    assert (result.code, columns(result)) == (1, {"messages": 1, "answered": 1, "undisclosed": 1})
    told = operator("verify").err.splitlines()
    assert told[0] == f"{match}: the bot speaks in this match, and its disclosure is not there"
    assert told[1] == "without the disclosure that was due: 1 conversation"
    assert CONTENT not in result.err + result.out
    assert operator("report", "--json").document["undisclosed"] == 1
    chat.rows("DELETE FROM messages WHERE sender_id = %s", CAMILLE)
    assert operator("verify").code == 0


def test_verify_forgets_what_is_older_than_the_retention(operator: Operator, chat: Chat) -> None:
    """A message older than RETENTION_DAYS is not counted, pruned or not."""
    chat.install_earlier()
    chat.write(chat.match(), age="9 days")
    chat.answer()
    chat.rows("UPDATE bridge.events SET captured_at = now() - interval '9 days'")
    chat.rows("UPDATE bridge.turns SET ended_at = now() - interval '9 days'")
    assert columns(operator("verify", "--json")) == {"messages": 1, "answered": 1}
    operator.environ["RETENTION_DAYS"] = "8"
    assert columns(operator("verify", "--json")) == {}
    assert chat.store.prune(8, 100) == 1
    assert columns(operator("verify", "--json")) == {}


# --- dead ----------------------------------------------------------------------------------------


def test_dead_turns_are_listed_and_shown(operator: Operator, chat: Chat) -> None:
    """List and show tell turn, error and messages, never the content."""
    assert operator("dead", "list", "--json").document == {"dead": []}
    assert operator("dead", "list").code == 0
    message = chat.write(chat.match())
    dead = chat.kill()
    [listed] = operator("dead", "list", "--json").document["dead"]
    shown = operator("dead", "show", str(dead), "--json").document
    assert listed == shown
    assert (shown["turn_id"], shown["message_ids"], shown["attempts"]) == (dead, [message], MAX_ATTEMPTS)
    for words in (["list"], ["show", str(dead)]):
        result = operator("dead", *words)
        assert result.code == 0
        assert "ValueError: no words" in result.out
        assert CONTENT not in result.out


def test_only_dead_turns_are_decided_about(operator: Operator, chat: Chat) -> None:
    """A turn in another state, and one that is not there, are named, left alone, and end with 1."""
    chat.write(chat.match())
    chat.answer()
    [[turn]] = chat.rows("SELECT id FROM bridge.turns WHERE kind = 'reply'")
    for decision in ("show", "retry", "drop"):
        result = operator("dead", decision, str(turn))
        assert (result.code, result.err) == (1, f"turn {turn} is not dead but answered\n")
        result = operator("dead", decision, "999")
        assert (result.code, result.err) == (1, "there is no turn 999\n")
    assert chat.state(turn) == ("answered", None)


def test_a_retried_reply_goes_on_in_the_waiting_turn(operator: Operator, chat: Chat) -> None:
    """Its messages join what waits, the dead turn is cancelled as retried, and all are answered once (A2)."""
    match = chat.match()
    chat.write(match)
    dead = chat.kill()
    chat.write(match)
    chat.group()
    result = operator("dead", "retry", str(dead))
    [[waiting]] = chat.rows("SELECT id FROM bridge.turns WHERE state = 'open'")
    assert (result.code, result.out) == (0, f"turn {dead}: its messages wait in turn {waiting} now\n")
    assert chat.state(dead) == ("cancelled", "retried")
    chat.answer()
    assert columns(operator("verify", "--json")) == {"messages": 2, "answered": 2}
    assert operator("dead", "retry", str(dead)).code == 1


def test_a_retried_reply_gets_a_turn_that_is_due_at_once(operator: Operator, chat: Chat) -> None:
    """Where nothing waits, a new turn does, and the grouping delay is not waited for."""
    chat.write(chat.match())
    dead = chat.kill()
    assert operator("dead", "retry", str(dead)).code == 0
    [push] = chat.store.push_due(10)
    assert (push.turn_id != dead, push.messages) == (True, 1)


def test_all_dead_turns_are_retried_together(operator: Operator, chat: Chat) -> None:
    """--all takes each of them, and says how many; with none there is nothing wrong."""
    for person in (LEA, HUGO):
        chat.write(chat.match(person), sender=person)
        chat.kill()
    assert operator("dead", "retry", "--all").out.endswith("2 turns of 2 will be tried again.\n")
    assert operator("status", "--json").document["dead"] == 0
    assert operator("dead", "retry", "--all").code == 0


def test_a_retried_opener_is_queued_again_in_its_place(operator: Operator, chat: Chat) -> None:
    """`dead retry` queues a dead opener again while its match has no message."""
    match = chat.match()
    dead = chat.kill(openers=True)
    assert operator("dead", "retry", str(dead)).out == f"turn {dead}: queued again\n"
    [push] = chat.store.push_due(10)
    assert (push.turn_id, push.first) == (dead, False)
    token = uuid4()
    chat.store.claim(dead, token)
    chat.store.finish(dead, token, "bonjour", pause=0)
    assert chat.store.deliver(dead).name == "answered"
    assert chat.rows("SELECT content FROM messages WHERE match_id = %s", match) == [("bonjour",)]


def test_a_retried_opener_makes_way_for_a_message(operator: Operator, chat: Chat) -> None:
    """`dead retry` cancels a dead opener whose match has a message (I4)."""
    match = chat.match()
    dead = chat.kill(openers=True)
    chat.write(match)
    assert operator("dead", "retry", str(dead)).code == 0
    assert chat.state(dead) == ("cancelled", "message")


def test_a_retried_opener_waits_for_a_message_on_its_way(chat: Chat) -> None:
    """A message that is not committed yet holds the decision up, as it holds up a delivery (F1)."""
    match = chat.match()
    dead = chat.kill(openers=True)
    chat.rows("ALTER FUNCTION bridge.retry_dead SET lock_timeout = '10s'")
    with closing(psycopg2.connect(chat.urls.app)) as writer, closing(psycopg2.connect(chat.urls.service)) as decider:
        with writer.cursor() as cursor:
            cursor.execute("INSERT INTO messages (match_id, sender_id) VALUES (%s, %s)", (match, LEA))
        answers: list[Any] = []

        def decide() -> None:
            with decider, decider.cursor() as cursor:
                cursor.execute("SELECT bridge.retry_dead(%s)", (dead,))
                answers.append(cursor.fetchone())

        decision = threading.Thread(target=decide)
        decision.start()
        wait_for_lock_wait(chat.connection, decider.get_backend_pid())
        writer.commit()
        decision.join()
    assert answers == [({"outcome": "cancelled", "state": "cancelled"},)]


def test_a_dropped_turn_is_cancelled(operator: Operator, chat: Chat) -> None:
    """Its messages stay unanswered, by decision, and `verify` is content."""
    chat.write(chat.match())
    dead = chat.kill()
    result = operator("dead", "drop", str(dead))
    assert (result.code, result.out) == (0, f"turn {dead}: dropped\n")
    assert chat.state(dead) == ("cancelled", "dropped")
    assert columns(operator("verify", "--json")) == {"messages": 1, "cancelled": 1}


# --- replay --------------------------------------------------------------------------------------


def test_replay_captures_what_was_missed_in_order(operator: Operator, chat: Chat) -> None:
    """Messages that no event knows are captured in the order of the app's times; known ones are not touched."""
    chat.install_earlier()
    match = chat.match()
    late = chat.write(match, age="1 hour", unseen=True)
    early = chat.write(match, age="2 hours", unseen=True)
    other = chat.write(chat.match(HUGO), sender=HUGO, age="90 min", unseen=True)
    known = chat.write(match)
    result = operator("replay", "--dry-run")
    assert (result.code, result.out, chat.known()) == (0, "3 messages would be captured.\n", [known])
    result = operator("replay")
    assert (result.code, result.out) == (0, "3 messages captured.\n")
    assert chat.known() == [known, early, other, late]
    assert operator("replay").out == "0 messages captured.\n"


def test_replay_goes_on_batch_after_batch(operator: Operator, chat: Chat, monkeypatch: pytest.MonkeyPatch) -> None:
    """What does not fit into one batch comes in the next ones, and is counted together."""
    monkeypatch.setattr("bridge_service.machine.ledger.REPLAY_BATCH", 2)
    monkeypatch.setattr("bridge_service.operate.commands.replay.REPLAY_BATCH", 2)
    match = chat.match()
    messages = [chat.write(match, age=f"{5 - number} hours", unseen=True) for number in range(5)]
    assert operator("replay").out.endswith("\n5 messages captured.\n5 messages are from before the installation.\n")
    assert chat.known() == messages


def test_replay_keeps_to_what_was_asked_for(operator: Operator, chat: Chat) -> None:
    """--since, --until and --match leave out the rest; a time without a zone is UTC."""
    match = chat.match()
    chat.write(match, age="3 days", unseen=True)
    wanted = chat.write(match, age="2 days", unseen=True)
    chat.write(match, age="1 day", unseen=True)
    chat.write(chat.match(HUGO), sender=HUGO, age="2 days", unseen=True)
    [[since, until]] = chat.rows(
        "SELECT (now() AT TIME ZONE 'UTC' - interval '50 hours')::text, (now() - interval '40 hours')::text"
    )
    chat.install_earlier()
    assert operator("replay", "--since", since, "--until", until, "--match", match).out == "1 message captured.\n"
    assert chat.known() == [wanted]


def test_replay_leaves_out_what_another_program_has_answered(operator: Operator, chat: Chat) -> None:
    """Only what came after the bot's last message is captured, unless that message was a reply of our own."""
    match = chat.match()
    chat.write(match, age="4 hours", unseen=True)
    chat.write(match, sender=CAMILLE, age="3 hours", unseen=True)
    after = chat.write(match, age="2 hours", unseen=True)
    chat.write(match)
    chat.answer()
    chat.install_earlier()
    assert operator("replay").out == "1 message captured.\n"
    assert after in chat.known()


def test_replay_keeps_what_is_old_without_an_answer(operator: Operator, chat: Chat) -> None:
    """What is older than IGNORE_OLDER_DAYS is captured and cancelled as `old`; it looks as far as `verify` does."""
    chat.install_earlier("29 days")
    match = chat.match()
    old, young = chat.write(match, age="16 days", unseen=True), chat.write(match, age="14 days", unseen=True)
    older = chat.write(chat.match(HUGO), sender=HUGO, age="28 days", unseen=True)
    assert columns(operator("verify", "--json")) == {"messages": 2, "unaccounted": 2}
    told = "1 message is older than IGNORE_OLDER_DAYS: kept, and not answered.\n"
    assert operator("replay", "--dry-run").out == f"2 messages would be captured.\n{told}"
    assert operator("replay").out == f"2 messages captured.\n{told}"
    assert chat.known() == [old, young]
    assert columns(operator("verify", "--json")) == {"messages": 2, "open": 1, "cancelled": 1}
    assert operator("why", old).out.startswith(f"{old} cancelled")
    [[since]] = chat.rows("SELECT (now() - interval '29 days')::date::text")
    assert operator("replay", "--since", since).out == f"1 message captured.\n{told}"
    assert chat.known() == [old, young, older]


def test_replay_says_what_is_from_before_the_installation(operator: Operator, chat: Chat) -> None:
    """Counted or captured, it is told how many; a --since after the installation leaves them out."""
    chat.rows("UPDATE bridge.installation SET installed_at = now() - interval '2 hours'")
    match = chat.match()
    old = chat.write(match, age="3 hours", unseen=True)
    missed = chat.write(match, age="1 hour", unseen=True)
    [[since]] = chat.rows("SELECT (now() AT TIME ZONE 'UTC' - interval '90 min')::text")
    told = "1 message is from before the installation.\n"
    assert operator("replay", "--dry-run").out == f"2 messages would be captured.\n{told}"
    assert operator("replay", "--since", since).out == "1 message captured.\n"
    assert chat.known() == [missed]
    assert operator("replay").out == f"1 message captured.\n{told}"
    assert chat.known() == [missed, old]


def test_replay_asks_on_a_terminal_before_it_takes_what_is_old(operator: Operator, chat: Chat) -> None:
    """No captures nothing and ends with 1; nothing is asked where all is new, time or --yes is given."""
    match = chat.match()
    old = chat.write(match, age="3 hours", unseen=True)
    refused = on_a_terminal(operator, "n\n", "replay")
    assert (refused.code, chat.known()) == (1, [])
    assert "1 message would be captured. 1 message is from before the installation. Go on?" in refused.out
    assert "--since" in refused.err
    assert on_a_terminal(operator, "n\n", "replay", "--dry-run").code == 0
    assert (on_a_terminal(operator, "y\n", "replay").code, chat.known()) == (0, [old])

    chat.install_earlier()
    new = chat.write(match, age="2 hours", unseen=True)
    assert (on_a_terminal(operator, "n\n", "replay").code, chat.known()) == (0, [old, new])
    chat.rows("UPDATE bridge.installation SET installed_at = now()")
    [[since]] = chat.rows("SELECT (now() AT TIME ZONE 'UTC' - interval '1 day')::text")
    third = chat.write(match, age="1 hour", unseen=True)
    assert on_a_terminal(operator, "n\n", "replay", "--since", since).code == 0
    fourth = chat.write(match, age="1 min", unseen=True)
    assert on_a_terminal(operator, "n\n", "replay", "--yes").code == 0
    assert chat.known() == [old, new, third, fourth]


def test_replay_gives_back_what_was_set_aside(operator: Operator, chat: Chat) -> None:
    """Events that could not be grouped get another chance once their cause is gone."""
    match = chat.match()
    chat.write(match)
    chat.store.set_aside(match, "22008 out of range")
    assert "2 events that had been set aside would be given back" in operator("replay", "--dry-run").out
    assert columns(operator("verify", "--json")) == {"messages": 1, "unaccounted": 1}
    operator("replay")
    chat.answer()
    assert columns(operator("verify", "--json")) == {"messages": 1, "answered": 1}


# --- check ---------------------------------------------------------------------------------------


def found(result: Result, name: str) -> dict[str, Any]:
    """Return one of the checks."""
    [check] = [check for check in result.document["checks"] if check["name"] == name]
    assert list(check) == ["name", "ok", "detail", "remedy"]
    return dict(check)


def failed(result: Result) -> set[str]:
    """Return the names of the checks that are not ok; each says what to do, and the exit code tells."""
    checks = [check for check in result.document["checks"] if not check["ok"]]
    assert all(check["remedy"] for check in checks)
    assert result.code == int(bool(checks))
    return {check["name"] for check in checks}


def test_check_is_content_with_a_system_that_works(operator: Operator) -> None:
    """Plaintext to this machine and no persistence are unwise: ok, with a remedy."""
    result = operator("check", "--json")
    assert failed(result) == set()
    for unwise in ("postgresql_encryption", "redis_encryption", "redis_persistence"):
        assert found(result, unwise)["remedy"]
    for well in (
        "configuration",
        "access",
        "postgresql",
        "listen",
        "schema",
        "rights",
        "triggers",
        "clock",
        "connections",
        "redis_scripting",
    ):
        assert found(result, well)["remedy"] == ""
    lines = operator("check").out.splitlines()
    assert [line.split()[1].rstrip(":") for line in lines] == [check["name"] for check in result.document["checks"]]


@pytest.mark.parametrize(
    ("environ", "detail", "advised"),
    [
        ({}, "this machine alone", False),
        ({"HOST": "0.0.0.0"}, "every machine that reaches HOST", True),  # noqa: S104 - what is looked at
        ({"CONSOLE_TOKEN": f"{PASSWORD}-0123456789"}, "ask for CONSOLE_TOKEN", False),
        ({"HOST": "::", "CONSOLE_TOKEN": f"{PASSWORD}-0123456789"}, "ask for CONSOLE_TOKEN", False),
    ],
)
def test_check_tells_who_may_see_the_pages(
    newcomer: Operator, environ: dict[str, str], detail: str, *, advised: bool
) -> None:
    """Pages that a network can reach and that ask for no token are unwise: ok, with a remedy. No token is printed."""
    newcomer.environ.update(environ)
    result = newcomer("check", "--json")
    check = found(result, "access")
    assert check["ok"]
    assert detail in check["detail"]
    assert check["remedy"].startswith("CONSOLE_TOKEN: ") == advised
    assert PASSWORD not in result.out + result.err
    result = newcomer("check")
    assert PASSWORD not in result.out + result.err


def test_check_tells_of_a_token_that_is_refused(operator: Operator) -> None:
    """A token that is too short ends the command with 78, and is not printed."""
    operator.environ["CONSOLE_TOKEN"] = PASSWORD
    for words in (["check"], ["check", "--json"], ["status", "--json"]):
        result = operator(*words)
        assert result.code == 78
        assert result.err.startswith("CONSOLE_TOKEN: must be ")
        assert PASSWORD not in result.out + result.err


@pytest.mark.superuser
def test_check_advises_against_a_superuser(operator: Operator) -> None:
    """It works, and the remedy names what makes another role fit."""
    result = operator.by(ADMIN)("check", "--json")
    assert failed(result) == set()
    assert found(result, "postgresql")["detail"].endswith("a superuser")
    assert "--runtime-role" in found(result, "postgresql")["remedy"]


def test_check_fails_what_does_not_answer(operator: Operator) -> None:
    """A URL that parses and leads nowhere is a failed check, and its password is nowhere to be read."""
    wrong = Operator(
        DATABASE_URL=lost(operator.by(f"{SERVICE}:{PASSWORD}").environ["DATABASE_URL"]),
        REDIS_URL=lost(operator.environ["REDIS_URL"]).replace("//", f"//user:{PASSWORD}@"),
    )
    result = wrong("check", "--json")
    assert failed(result) == {"postgresql", "redis"}
    assert found(result, "postgresql")["remedy"].startswith("DATABASE_URL")
    assert found(result, "redis")["remedy"].startswith("REDIS_URL")
    assert PASSWORD not in result.out + result.err
    assert wrong("check").out.count("❌") == 2


@pytest.mark.parametrize(
    ("login", "scheme", "remedy"),
    [
        ("", "redis", "wants a password"),
        (f"bridge:{PASSWORD}@", "redis", "correct its user and its password"),
        ("", "rediss", "is it redis:// that this Redis speaks?"),
        (":another@", "redis", "its database's number"),
    ],
)
def test_check_tells_why_redis_does_not_answer(
    operator: Operator, redis_server: RedisServer, login: str, scheme: str, remedy: str
) -> None:
    """No password, a wrong one, a Redis without TLS, a number that no database has: each has a remedy of its own."""
    address = redis_server.url(9999).removeprefix("redis://")
    with closing(redis.Redis.from_url(redis_server.url())) as client:
        client.config_set("requirepass", "another")
        try:
            operator.environ["REDIS_URL"] = f"{scheme}://{login}{address}"
            result = operator("check", "--json")
        finally:
            client.config_set("requirepass", "")
    assert failed(result) == {"redis"}
    assert remedy in found(result, "redis")["remedy"]
    assert "HELLO" not in found(result, "redis")["detail"]


def test_check_tells_a_wrong_configuration_as_a_check(operator: Operator) -> None:
    """With --json the faults are a failed check beside the lines on standard error, and the exit code is 78."""
    operator.environ["MAX_MERGES"] = "many"
    result = operator("check", "--json")
    assert result.code == 78
    assert found(result, "configuration")["detail"].startswith("MAX_MERGES")
    assert result.err.startswith("MAX_MERGES")


def test_check_sends_to_migrate_where_the_schema_is_missing_or_old(newcomer: Operator, app_database: Urls) -> None:
    """No schema, an old function or one changed by hand: the remedy is `migrate`, and then all is well."""
    assert failed(newcomer("check", "--json")) == {"schema", "rights", "row_security", "triggers"}
    assert f"Role {SERVICE} may call" in newcomer.by(OWNER)("migrate", "--runtime-role", SERVICE).out
    execute(app_database.admin, "UPDATE bridge.laid_functions SET digest = 'old' WHERE name IN ('claim', 'prune')")
    result = newcomer("check", "--json")
    assert failed(result) == {"schema"}
    assert "claim, prune" in found(result, "schema")["detail"]
    newcomer.by(OWNER)("migrate")
    execute(app_database.admin, "ALTER FUNCTION bridge.claim SET lock_timeout = '1h'")
    assert "changed by hand: claim" in found(newcomer("check", "--json"), "schema")["detail"]
    newcomer.by(OWNER)("migrate")
    assert failed(newcomer("check", "--json")) == set()
    execute(app_database.admin, "INSERT INTO bridge.migrations (number, name) VALUES (9999, 'of the future')")
    assert failed(newcomer("check", "--json")) == set()


def test_check_names_the_rights_that_are_missing(operator: Operator, chat: Chat, postgres: PostgresServer) -> None:
    """A role without rights is told that it may be the wrong one, one that lacks some how to get them."""
    role = f"stranger_{uuid4().hex[:8]}"
    execute(postgres.url(), f"CREATE ROLE {role} LOGIN")
    try:
        result = operator.by(role)("check", "--json")
        assert failed(result) == {"schema", "rights", "row_security"}
        assert "closed to this role" in found(result, "schema")["detail"]
        for name in ("schema", "rights"):
            assert found(result, name)["remedy"].startswith("DATABASE_URL: name the run-time role, or run ")
        assert f"--runtime-role {role}" in found(result, "rights")["remedy"]
        assert "permission denied for schema bridge" in operator.by(role)("verify").err
        assert operator.by(role)("status", "--json").document["postgresql"] == "refused"
        chat.rows(f"GRANT USAGE ON SCHEMA bridge TO {role}; GRANT EXECUTE ON FUNCTION bridge.installed TO {role}")
        result = operator.by(role)("check", "--json")
        assert failed(result) == {"rights", "row_security"}
        assert "claim, " in found(result, "rights")["detail"]
        assert found(result, "rights")["remedy"].startswith("run ")
    finally:
        execute(chat.urls.admin, f"DROP OWNED BY {role}", f"DROP ROLE {role}")


def test_check_names_the_rights_that_the_schema_s_owner_has_lost(operator: Operator, chat: Chat) -> None:
    """The bridge looks and writes as its owner: each right to the app's tables that it lacks, and the GRANT, are named.

    Once granted again, all is well; and a function that the app has replaced may do without.
    """
    assert failed(operator("check", "--json")) == set()
    for right in ("SELECT ON messages", "INSERT ON messages", "SELECT ON matches", "SELECT ON profiles"):
        chat.people.rows(f"REVOKE {right} FROM {OWNER}")
    result = operator("check", "--json")
    assert failed(result) == {"rights"}
    assert f"role {OWNER}, which owns the bridge's functions, lacks" in found(result, "rights")["detail"]
    remedy = found(result, "rights")["remedy"].removeprefix("as the tables' owner: ")
    assert "GRANT INSERT ON messages" in remedy
    chat.people.rows(remedy)
    assert failed(operator("check", "--json")) == set()
    chat.people.rows(f"REVOKE INSERT ON messages FROM {OWNER}")
    chat.rows("ALTER FUNCTION bridge.deliver SET work_mem = '5MB'")
    assert failed(operator("check", "--json")) == set()


def test_a_missing_process_is_a_fault_once_a_turn_waits(operator: Operator, chat: Chat) -> None:
    """Nobody who works is no fault before anything is due; then it is, and the remedy is the command to start them."""
    chat.write(chat.match())
    quiet = found(operator("check", "--json"), "processes")
    assert (quiet["ok"], quiet["detail"]) == (True, "alive: schedulers 0, workers 0")
    chat.rows("UPDATE bridge.events SET captured_at = now() - interval '1 minute'")
    result = operator("check", "--json")
    assert failed(result) == {"processes"}
    assert "turns that wait: 1" in found(result, "processes")["detail"]
    for command in ("python -m schedulers", "dramatiq bridge_service"):
        assert command in found(result, "processes")["remedy"]
    begin = "INSERT INTO bridge.processes SELECT gen_random_uuid(), %s, now(), now(), NULL, 0, 0, 0"
    chat.rows(begin, "scheduler")
    result = operator("check", "--json")
    assert failed(result) == {"processes"}
    assert "python -m schedulers" not in found(result, "processes")["remedy"]
    chat.rows(begin, "worker")
    assert found(operator("check", "--json"), "processes")["detail"] == "alive: schedulers 1, workers 1"


def test_check_misses_a_worker_between_two_pushes(operator: Operator, chat: Chat) -> None:
    """A turn that no worker takes is due for an instant at each push, and waits all the same."""
    chat.rows("INSERT INTO bridge.processes SELECT gen_random_uuid(), 'scheduler', now(), now(), NULL, 0, 0, 0")
    chat.write(chat.match())
    chat.group()
    chat.rows("UPDATE bridge.events SET captured_at = now() - interval '1 minute'")
    chat.store.push_due(100)
    assert operator("status", "--json").document["overdue"] == 0
    result = operator("check", "--json")
    assert failed(result) == {"processes"}
    assert found(result, "processes")["detail"] == "alive: schedulers 1, workers 0; turns that wait: 1"
    assert found(result, "processes")["remedy"].startswith("start a worker")


def test_check_says_how_to_put_all_triggers_right(operator: Operator, chat: Chat) -> None:
    """The remedy for what is disabled is SQL that can be run as it stands, for all of it."""
    chat.rows("ALTER TABLE messages DISABLE TRIGGER USER")
    remedy = found(operator("check", "--json"), "triggers")["remedy"]
    statements, _, rest = remedy.partition(", then ")
    assert rest.startswith("`replay --since`")
    chat.rows(statements)
    assert failed(operator("check", "--json")) == set()


@pytest.mark.parametrize(
    ("statement", "name", "detail"),
    [
        ("ALTER TABLE messages DISABLE TRIGGER bridge_after_message", "triggers", "disabled: bridge_after_message"),
        ("DROP TRIGGER bridge_after_match ON matches", "triggers", "missing: bridge_after_match"),
        ("ALTER TABLE profiles RENAME first_name TO called", "app_tables", "profiles has no column first_name"),
        ("ALTER TABLE profiles RENAME TO people", "app_tables", "no table profiles"),
        ("ALTER DATABASE {} SET session_replication_role = replica", "replication_role", "no trigger fires"),
        ("ALTER DATABASE {} SET default_transaction_read_only = on", "postgresql_writable", "read only"),
    ],
)  # fmt: skip
def test_check_finds_what_is_wrong_in_the_database(
    operator: Operator, chat: Chat, statement: str, name: str, detail: str
) -> None:
    """Each fault fails its own check and no other."""
    [[database]] = chat.rows("SELECT current_database()")
    chat.rows(statement.format(database))
    result = operator("check", "--json")
    assert failed(result) == {name}
    assert detail in found(result, name)["detail"]


def test_check_advises_against_another_encoding_than_utf8(newcomer: Operator, postgres: PostgresServer) -> None:
    """It may not hold every reply, and works for those that it does."""
    name = f"test_{uuid4().hex}"
    execute(postgres.url(), f"CREATE DATABASE {name} TEMPLATE template0 ENCODING 'LATIN1'")
    try:
        newcomer.environ["DATABASE_URL"] = Urls(postgres.url(name)).service
        encoding = found(newcomer("check", "--json"), "postgresql_encoding")
        assert (encoding["ok"], encoding["detail"]) == (True, "LATIN1")
        assert "UTF8" in encoding["remedy"]
    finally:
        execute(postgres.url(), f"DROP DATABASE {name} WITH (FORCE)")


def test_check_finds_triggers_that_only_another_role_switches_off(
    operator: Operator, chat: Chat, postgres: PostgresServer
) -> None:
    """A role of the app's whose sessions fire no triggers is a fault, also if another role runs `check`."""
    role = f"silent_{uuid4().hex[:8]}"
    execute(postgres.url(), f"CREATE ROLE {role}")
    try:
        [[database]] = chat.rows("SELECT current_database()")
        execute(postgres.url(), f"ALTER ROLE {role} IN DATABASE {database} SET session_replication_role = replica")
        result = operator("check", "--json")
        assert failed(result) == {"replication_role"}
        assert f"replica for {role}" in found(result, "replication_role")["detail"]
    finally:
        execute(postgres.url(), f"DROP ROLE {role}")


def test_check_counts_the_connections_that_are_left(operator: Operator, chat: Chat, postgres: PostgresServer) -> None:
    """A role that may open only few connections cannot run the bridge."""
    role = f"narrow_{uuid4().hex[:8]}"
    execute(postgres.url(), f"CREATE ROLE {role} LOGIN CONNECTION LIMIT 5")
    try:
        operator.by(OWNER)("migrate", "--runtime-role", role)
        result = operator.by(role)("check", "--json")
        assert failed(result) == {"connections"}
        assert "1 of the role's 5" in found(result, "connections")["detail"]
    finally:
        execute(chat.urls.admin, f"DROP OWNED BY {role}", f"DROP ROLE {role}")


def test_check_notices_that_notifications_do_not_arrive(
    bridge_database: Urls, postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where LISTEN is accepted and nothing comes, a pooler is suspected; here the bell rings in another database."""
    monkeypatch.setattr(notifications, "LISTEN_SECONDS", 0.2)
    with closing(Connection(bridge_database.service, application="test")) as connection:
        finding = notifications.listen(connection, Urls(postgres.url()).service)
    assert not finding.ok
    assert "pooler" in finding.remedy


def test_check_notices_clocks_that_disagree(operator: Operator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Five seconds between this machine and PostgreSQL's are too many."""
    monkeypatch.setattr("bridge_service.checks.server.time.time", lambda: 1_000_000_000.0)
    assert failed(operator("check", "--json")) == {"clock"}


def named(findings: Iterator[Finding]) -> dict[str, Finding]:
    """Return findings by name."""
    return {finding.name: finding for finding in findings}


@pytest.fixture
def look_at_redis(redis_server: RedisServer) -> Iterator[Callable[..., dict[str, Finding]]]:
    """Give a function that checks Redis as a user, and put Redis in order afterwards."""

    def look(user: str = "") -> dict[str, Finding]:
        return named(check_redis(redis_server.url().replace("//", f"//{user}"), "redis", "REDIS_URL", describe=str))

    with closing(redis.Redis.from_url(redis_server.url())) as client:
        yield look
        client.replicaof("NO", "ONE")
        client.config_set("maxmemory-policy", "noeviction")
        client.config_set("maxmemory", 0)
        client.acl_deluser("guest")


def test_check_finds_what_is_wrong_in_redis(
    redis_server: RedisServer, look_at_redis: Callable[..., dict[str, Finding]]
) -> None:
    """Eviction of any key, no room left and a replica fail their checks."""
    assert all(finding.ok for finding in look_at_redis().values())
    with closing(redis.Redis.from_url(redis_server.url())) as client:
        client.config_set("maxmemory-policy", "allkeys-lru")
        assert not look_at_redis()["redis_eviction"].ok
        client.config_set("maxmemory", int(client.info("memory")["used_memory"]) + 100_000)
        assert not look_at_redis()["redis_memory"].ok
        client.config_set("maxmemory", 0)
        client.replicaof("127.0.0.1", NOBODY_LISTENS)
        assert not look_at_redis()["redis_writable"].ok


def test_check_needs_scripts_and_asks_for_no_more(
    redis_server: RedisServer, look_at_redis: Callable[..., dict[str, Finding]]
) -> None:
    """A user who may not EVAL fails, one who may not ask INFO is told what went unchecked; a wrong password fails."""
    with closing(redis.Redis.from_url(redis_server.url())) as client:
        client.acl_setuser(
            "guest",
            enabled=True,
            passwords="+pass",
            keys=["dramatiq:*"],
            categories=["+@all", "-@scripting"],
            commands=["-info"],
        )
        checks = look_at_redis("guest:pass@")
        assert not checks["redis_scripting"].ok
        assert (checks["redis_info"].ok, bool(checks["redis_info"].remedy)) == (True, True)
        client.acl_setuser("guest", enabled=True, categories=["+@scripting"])
        assert all(finding.ok for finding in look_at_redis("guest:pass@").values())
    refused = look_at_redis("guest:wrong@")
    assert list(refused) == ["redis"]
    assert not refused["redis"].ok


def test_check_looks_at_a_broker_of_its_own(operator: Operator, redis_server: RedisServer) -> None:
    """Another BROKER_URL is checked as Redis is, and named in its remedy."""
    operator.environ["BROKER_URL"] = redis_server.url(database=1)
    assert found(operator("check", "--json"), "broker_scripting")["ok"]
    operator.environ["BROKER_URL"] = lost(redis_server.url())
    result = operator("check", "--json")
    assert failed(result) == {"broker"}
    assert found(result, "broker")["remedy"].startswith("BROKER_URL")


@pytest.mark.parametrize(
    ("host", "encrypted", "verified", "ok", "advised"),
    [
        ("/run/postgresql", False, False, True, False),
        ("127.0.0.1", False, False, True, True),
        ("10.1.2.3", False, False, True, True),
        ("8.8.8.8", False, False, False, True),
        ("8.8.8.8", True, False, True, True),
        ("8.8.8.8", True, True, True, False),
        ("no-such-host.invalid", False, False, False, True),
    ],
)
def test_check_judges_encryption_by_where_it_leads(
    host: str, *, encrypted: bool, verified: bool, ok: bool, advised: bool
) -> None:
    """Plaintext is unwise within the machine and a private network, and wrong beyond; unverified is unwise anywhere."""
    finding = encryption(host, encrypted=encrypted, verified=verified, remedy="write rediss://")
    assert (finding.ok, bool(finding.remedy)) == (ok, advised)
