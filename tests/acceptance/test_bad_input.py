"""What strangers send and what somebody broke: one clear line, nobody dies, and real messages are still answered."""

from __future__ import annotations

import json
import random
from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4

import pytest

from tests.support.app import CAMILLE, HUGO, LEA
from tests.support.clock import install_clock
from tests.support.roles import SERVICE
from tests.support.waiting import eventually

if TYPE_CHECKING:
    import redis

    from tests.support.app import App
    from tests.support.service import Service

SECRET: Final = "mon secret"


def notification(match: str, message: str | None = None, **changes: object) -> str:
    """Return the payload that the contract describes, as a foreign trigger would send it, with some fields changed."""
    payload = {
        "match_id": match,
        "bot_id": CAMILLE,
        "sender_id": LEA,
        "message_id": message or str(uuid4()),
        "message_content": SECRET,
        "created_at": "2026-11-24T12:00:00+00:00",
        **changes,
    }
    return json.dumps(payload)


def assert_still_answers(service: Service, app: App) -> None:
    """Check that every process lives, none of its threads has died, and a real message is answered."""
    match = app.old_match()
    app.write(match, "et moi ?")
    app.wait_for_replies(match, "et moi ?")
    assert [process.exit_code for process in service.processes] == [None] * len(service.processes)
    assert not service.lines("CRITICAL|Traceback|Exception in thread|unexpected|" + SECRET)


def test_malformed_notifications(service: Service, app: App) -> None:
    """Whatever any role may NOTIFY is refused in one line a second, which quotes none of it."""
    service.up()
    [scheduler, _] = service.processes
    match = str(uuid4())
    payloads = [
        "",
        SECRET,
        "{",
        "null",
        "[]",
        "17",
        '"text"',
        "{}",
        "[" * 3900,
        '{"a":' * 1500,
        "x" * 7900,
        notification(match, padding="x" * 7000)[:-1],
        notification(match, match_id=None),
        notification(match, match_id=17),
        notification(match, match_id=[match]),
        notification(match, match_id=SECRET),
        notification(match, match_id=match.replace("-", "")),
        notification(match, match_id="{" + match + "}"),
        notification(match, match_id=f"{match[:-1]}\0"),
        notification(match, bot_id={"id": CAMILLE}),
        notification(match, sender_id=True),
        notification(match, message_id="1; DROP TABLE messages"),
        '{"match_id": "\\ud800"}',
        '{"match_id": 1e999}',
        "\x1b[31m" + SECRET,
    ]

    for channel in ("bot_events", "new_match"):
        for payload in payloads:
            app.rows("SELECT pg_notify(%s, %s)", channel, payload)
    assert_still_answers(service, app)

    rejected = service.texts("Annonce ignorée")
    assert "🚫 Annonce ignorée (channel=bot_events): the payload is not JSON" in rejected
    service.assert_at_most_once_a_second("Annonce ignorée", scheduler)
    assert not service.lines("📨", process=scheduler)[1:], "a malformed one was taken for a notification"


def test_forged_notifications_are_only_bells(service: Service, app: App) -> None:
    """Well-formed ones that name nothing, something else or the same thing again change nothing."""
    service.up()
    match = app.old_match()
    other = app.old_match()
    people = app.old_match(LEA, HUGO)
    message = app.write(match, "une fois")

    for payload in (
        notification(str(uuid4())),
        notification(match),
        notification(other, message),
        notification(people),
        notification(match, message, bot_id=HUGO, sender_id=CAMILLE),
        notification(match, message, note=SECRET, padding="x" * 7000, deep=[[SECRET]]),
        notification(match, message, created_at="294276-12-31"),
        *[notification(match, message)] * 20,
    ):
        app.rows("SELECT pg_notify('bot_events', %s)", payload)
    for first, second in ((LEA, CAMILLE), (CAMILLE, LEA), (LEA, HUGO), (str(uuid4()), str(uuid4()))):
        payload = json.dumps({"id": match, "user1_id": first, "user2_id": second, "created_at": None})
        app.rows("SELECT pg_notify('new_match', %s)", payload)
    app.wait_for_replies(match, "une fois")
    assert_still_answers(service, app)

    assert app.said(match) == ["une fois"]
    assert app.said(other) == app.said(people) == []
    assert app.value("SELECT count(*) FROM bridge.turns WHERE kind = 'initiation'") == 0


def test_a_foreign_trigger_is_enough(service: Service, app: App) -> None:
    """Where the bridge's triggers are off a notification brings its message in, once; a forged one brings nothing."""
    app.rows("ALTER TABLE messages DISABLE TRIGGER USER; ALTER TABLE matches DISABLE TRIGGER USER")
    service.up()
    match = app.old_match()
    people = app.old_match(LEA, HUGO)
    message = app.write(match, "par annonce")
    between_people = app.write(people, "entre nous")

    for payload in (
        notification(str(uuid4())),
        notification(match),
        notification(people, message),
        notification(people, between_people),
        *[notification(match, message)] * 5,
    ):
        app.rows("SELECT pg_notify('bot_events', %s)", payload)

    app.wait_for_replies(match, "par annonce")
    service.wait_for_line(r"🚫 Annonce ignorée \(channel=bot_events\): it names nothing that is to be answered")
    assert app.value("SELECT count(*) FROM bridge.events") == 1
    assert not service.lines(SECRET)


def queue_of(app: App) -> str:
    """Return the name of the list of the ids that wait."""
    return f"dramatiq:{{{app.value('SELECT bridge.queue_id()')}}}:bot_messages"


def forge(redis_client: redis.Redis, queue: str, body: bytes | str, *, id_: str = "") -> None:
    """Put a message into the queue as anybody could who may write to Redis."""
    name = id_ or str(uuid4())
    redis_client.hset(f"{queue}.msgs", name, body)
    redis_client.rpush(queue, name)
    redis_client.lpush(f"{queue}.bell", "1")


def forged_bodies(count: int) -> list[bytes | str]:
    """Return so many bodies that are almost messages of ours, each wrong in its own way, always the same ones."""
    rng = random.Random(7)  # noqa: S311 - chance, not secrets
    nothing: list[Any] = [None, True, -1, 0, 2**63, 10**400, 1.5, "1", SECRET, [], [1], {}, {"id": 1}, [[[[]]]]]

    def body() -> bytes | str:
        message: dict[str, Any] = {
            "queue_name": "bot_messages",
            "actor_name": rng.choice(["compose", "deliver"]),
            # No such turn: what is wrong with the rest decides.
            "args": [10**6],
            "kwargs": {},
            "options": {"redis_message_id": str(uuid4())},
            "message_id": str(uuid4()),
            "message_timestamp": 1,
        }
        match rng.randrange(8):
            case 0:
                message[rng.choice([*message])] = rng.choice(nothing)
            case 1:
                del message[rng.choice([*message])]
            case 2:
                message["queue_name"] = rng.choice(["default", "bot_messages.DQ", "bot_messages.XQ", "", "../x", "é\n"])
            case 3:
                message["options"] = {
                    "pipe_target": {**message, "actor_name": "no_such_actor", "queue_name": "elsewhere"},
                    "pipe_ignore": rng.choice(nothing),
                    "retries": rng.choice(nothing),
                    "eta": rng.choice(nothing),
                    "max_retries": rng.choice(nothing),
                    "requeue_timestamp": rng.choice(nothing),
                }
            case 4:
                message["actor_name"] = rng.choice(["no_such_actor", "__init__", SECRET, "", "compose\0", *nothing])
            case 5:
                message["args"] = rng.choice([[each] for each in nothing] + [nothing, [1, 2], {"turn_id": 1}])
            case 6:
                return rng.choice([b"", b"\x80\x04.", b"\xff\xfe" * 50, b"[" * 9000, b"x" * 200_000, b"NaN", b"null"])
            case 7:
                text = json.dumps(message)
                return text[: rng.randrange(len(text))]
        return json.dumps(message)

    return [body() for _ in range(count)]


def test_forged_queue_messages(service: Service, app: App, redis_client: redis.Redis) -> None:
    """Hundreds of messages that nobody of ours wrote kill no thread; one line a second counts them and quotes none."""
    service.up()
    [_, worker] = service.processes

    queue = queue_of(app)
    for body in forged_bodies(400):
        forge(redis_client, queue, body)
    redis_client.rpush(queue, "an id without a body")
    redis_client.lpush(f"{queue}.bell", "1")
    eventually(lambda: redis_client.llen(queue) == 0)
    # More real ones than the worker has threads.
    matches = [app.old_match() for _ in range(6)]
    for match in matches:
        app.write(match, "en vrai")
    for match in matches:
        app.wait_for_replies(match, "en vrai")
    assert_still_answers(service, app)

    assert service.lines("🚫 Envoi illisible dans la queue, ignoré: ", process=worker)
    service.assert_at_most_once_a_second("Envoi illisible", worker)
    assert redis_client.hlen(f"{queue}.msgs") == 0
    assert not [key for key in redis_client.scan_iter() if "elsewhere" in key or "XQ" in key]


def test_a_forged_push_does_not_answer_early(service: Service, app: App, redis_client: redis.Redis) -> None:
    """A message that names a real turn before its time finds nothing to do."""
    install_clock(app.urls)
    service.environment["GROUPING_DELAY"] = "15"
    service.up()
    match = app.old_match()
    app.write(match, "un")
    service.wait_for_line("timer 15s")
    turn = app.value("SELECT id FROM bridge.turns")

    queue = queue_of(app)
    for step in ("compose", "deliver", "compose"):
        forge(redis_client, queue, json.dumps({"actor_name": step, "args": [turn]}))
    eventually(lambda: redis_client.llen(queue) == 0)
    # A forged one for a turn that is due proves that forged ones are run at all.
    due = app.old_match()
    app.write(due, "deux")
    service.wait_for_line("timer 15s", count=2)
    app.rows("UPDATE bridge.turns SET state = 'queued', queued_at = now() WHERE match_id = %s", due)
    forge(redis_client, queue, json.dumps({"actor_name": "compose", "args": [turn + 1]}))
    app.wait_for_replies(due, "deux")
    assert app.value("SELECT state FROM bridge.turns WHERE id = %s", turn) == "open"

    app.pass_time(15)
    app.wait_for_replies(match, "un")


def test_keys_of_the_wrong_type(service: Service, app: App, redis_client: redis.Redis) -> None:
    """Whatever a stranger puts in the place of the queue's keys, messages are answered by themselves."""
    service.up()
    queue = queue_of(app)
    for name in (queue, f"{queue}.msgs", f"{queue}.bell"):
        match = app.old_match()
        redis_client.set(f"context:{match}", SECRET)
        redis_client.delete(name)
        redis_client.set(name, SECRET)

        app.write(match, "quand même")
        app.wait_for_replies(match, "quand même")
    assert_still_answers(service, app)


@pytest.mark.parametrize("table", ["public.messages", "public.profiles", "bridge.turns"])
def test_a_table_that_is_missing(service: Service, app: App, table: str) -> None:
    """One that somebody renamed is told of (`check` names it), at most once a second; once it is back all goes on."""
    install_clock(app.urls)
    service.environment["GROUPING_DELAY"] = "15"
    service.up()
    match = app.old_match()
    app.write(match, "un")
    service.wait_for_line("timer")
    name = table.partition(".")[2]

    app.rows(f"ALTER TABLE {table} RENAME TO away")
    app.pass_time(15)
    lines = service.wait_for_line("PostgreSQL refuse|bridge absent")
    app.rows(f"ALTER TABLE {table.partition('.')[0]}.away RENAME TO {name}")

    assert "UndefinedTable" in lines[0].text or "bridge absent" in lines[0].text
    app.pass_time(20)  # until the push is believed lost
    app.wait_for_replies(match, "un")
    for process in service.processes:
        service.assert_at_most_once_a_second("PostgreSQL refuse", process)
    assert app.value("SELECT attempts FROM bridge.turns") == 0


@pytest.mark.parametrize("function", ["group_events", "push_due", "claim", "finish"])
def test_a_right_that_is_missing(service: Service, app: App, function: str) -> None:
    """A right that somebody took away is told of in words; once it is granted again every message is answered."""
    install_clock(app.urls)
    service.environment["GROUPING_DELAY"] = "15"
    service.up()
    first, second = app.old_match(), app.old_match()
    app.write(first, "avant")
    service.wait_for_line("timer")

    app.rows(f"REVOKE EXECUTE ON FUNCTION bridge.{function} FROM {SERVICE}")
    app.write(second, "pendant")
    app.pass_time(15)
    service.wait_for_line(f"PostgreSQL refuse: permission denied for function {function}")
    app.rows(f"GRANT EXECUTE ON FUNCTION bridge.{function} TO {SERVICE}")
    eventually(lambda: app.value("SELECT count(*) FROM bridge.turns WHERE state <> 'cancelled'") == 2)

    app.pass_time(20)
    app.wait_for_replies(first, "avant")
    app.wait_for_replies(second, "pendant")
    assert app.value("SELECT count(*) FROM bridge.events WHERE error IS NOT NULL") == 0
