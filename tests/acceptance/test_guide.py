"""The scenes of the deployment guide, with its log lines word for word: people follow it, and scripts grep for it.

The database's clock is moved on over the guide's fifteen seconds; only the waits between attempts on Redis are real.
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import TYPE_CHECKING

import pytest

from tests.support.clock import install_clock
from tests.support.service import QUICK, Service
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    import redis

    from bridge_service.demo.servers import RedisServer
    from tests.support.app import App
    from tests.support.roles import Urls
    from tests.support.service import ServiceProcess

UUID = r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"
TEST_MODE = {name: value for name, value in QUICK.items() if name not in ("GROUPING_DELAY", "INITIATION_PROBABILITY")}


@pytest.fixture
def service(bridge_database: Urls, redis_server: RedisServer, redis_client: redis.Redis) -> Iterator[Service]:
    """Give a service with the guide's own delays, on a database whose clock can be moved."""
    del redis_client  # only asked for because it empties Redis
    install_clock(bridge_database)
    urls = {"DATABASE_URL": bridge_database.service, "REDIS_URL": redis_server.url()}
    with Service({**urls, **TEST_MODE, "TEST_MODE": "true"}) as service:
        yield service


def up(service: Service) -> ServiceProcess:
    """Start the service; return its scheduler, whose log the guide shows."""
    service.up()
    return service.processes[0]


def assert_lines(lines: list[str], *patterns: str) -> None:
    """Check that these lines, and no others, were written in this order."""
    # A look beside the start tells, at some moment or other, of the clock that these tests move.
    lines = [line for line in lines if "functions changed by hand: now" not in line]
    assert len(lines) == len(patterns), lines
    for line, pattern in zip(lines, patterns, strict=True):
        assert re.fullmatch(pattern, line), f"{line!r} is not {pattern!r}"


def test_the_start(service: Service) -> None:
    """The scheduler tells its settings, its connections and its listening, in the guide's words and order."""
    scheduler = up(service)

    assert_lines(
        service.texts(process=scheduler),
        r"⚙️ GROUPING_DELAY=15 TEST_MODE=true .*",
        "✅ Connecté à PostgreSQL",
        "✅ Connecté à Redis",
        re.escape("👂 Démarrage écoute 'bot_events' et 'new_match'..."),
        "✅ Écoute active",
    )
    assert len(service.lines("GROUPING_DELAY", process=scheduler)) == 1


def test_the_immediate_test(service: Service, app: App) -> None:
    """One message gives the guide's six lines, and nothing between them."""
    scheduler = up(service)
    match = app.old_match()
    mark = service.mark()

    app.write(match, "test")
    service.wait_for_line("timer", process=scheduler, after=mark)
    app.pass_time(15)
    app.wait_for_replies(match, "test")

    assert_lines(
        service.texts(process=scheduler, after=mark),
        r"📨 Notification reçue \(pid=\d+, channel=bot_events\)",
        rf'   Payload: {{"match_id":"{match}",.*',
        f"   Match ID: {match}",
        "⏰ Nouveau message, démarrage timer 15s",
        "📦 Grouping: 1 messages",
        "✅ Message poussé dans queue",
    )
    # The first lines for `grep`, the content for nobody.
    assert not any('"test"' in line.raw or "message_content" in line.raw for line in service.lines())


def test_1_ten_messages(service: Service, app: App) -> None:
    """Ten messages in ten conversations are ten lines of `grep "Message poussé"`."""
    up(service)
    matches = [app.old_match() for _ in range(10)]

    for match in matches:
        app.write(match, "un message")
    service.wait_for_line("timer 15s", count=10)
    app.pass_time(15)
    for match in matches:
        app.wait_for_replies(match, "un message")

    assert len(service.lines("Message poussé")) == 10


def test_2_grouping(service: Service, app: App) -> None:
    """Three rapid messages give the guide's lines of `grep -E "Grouping|timer"`, one push and one answer."""
    up(service)
    match = app.old_match()

    for number, text in enumerate(("salut", "ça va ?", "tu fais quoi ?"), start=1):
        app.write(match, text)
        service.wait_for_line("Grouping|timer", count=number)
    app.pass_time(15)
    app.wait_for_replies(match, "salut\nça va ?\ntu fais quoi ?")

    assert service.texts("Grouping|timer|Message poussé") == [
        "⏰ Nouveau message, démarrage timer 15s",
        "🔄 Grouping: +1 message (2 total)",
        "🔄 Grouping: +1 message (3 total)",
        "📦 Grouping: 3 messages",
        "✅ Message poussé dans queue",
    ]


def test_3_initiation(service: Service, app: App) -> None:
    """A new match gives the guide's lines and, within a minute in TEST_MODE, one first word."""
    scheduler = up(service)
    mark = service.mark()

    match = app.match()
    service.wait_for_line("Nouveau match", process=scheduler, after=mark)
    app.pass_time(60)
    app.wait_for_replies(match, "bonjour")

    assert service.texts("Nouveau match|Initiation|Message poussé", after=mark) == [
        "🔍 Nouveau match détecté",
        f"💬 Initiation pour match {match}",
        "✅ Message poussé dans queue",
    ]
    assert len(service.lines(r"📨 Notification reçue \(pid=\d+, channel=new_match\)", process=scheduler)) == 1


def test_4_fifty_rapid_messages(service: Service, app: App) -> None:
    """Fifty rapid messages in five conversations are five pushes that hold all fifty, and five answers."""
    up(service)
    matches = [app.old_match() for _ in range(5)]

    for number in range(50):
        app.write(matches[number % 5], f"message {number}")
    service.wait_for_line("timer|total", count=50)
    app.pass_time(15)
    for place, match in enumerate(matches):
        app.wait_for_replies(match, "\n".join(f"message {number}" for number in range(place, 50, 5)))

    assert service.texts("📦 Grouping") == ["📦 Grouping: 10 messages"] * 5
    assert len(service.lines("Message poussé")) == 5


def test_the_context_keys(service: Service, app: App, redis_client: redis.Redis) -> None:
    """`KEYS "context:*"` shows a group as long as it is open, with a lifetime longer than what is left of it."""
    up(service)
    match = app.old_match()
    key = f"context:{match}"

    app.write(match, "un")
    app.write(match, "deux")
    eventually(lambda: redis_client.hget(key, "count") == "2")

    assert redis_client.keys("context:*") == [key]
    shown = {str(name): str(value) for name, value in redis_client.hgetall(key).items()}
    turn, opened_at, due_at = app.rows("SELECT id, opened_at, due_at FROM bridge.turns WHERE match_id = %s", match)[0]
    assert set(shown) == {"count", "turn_id", "first_message_at", "due_at"}
    assert shown["turn_id"] == str(turn)
    assert datetime.fromisoformat(shown["first_message_at"]) == opened_at
    assert datetime.fromisoformat(shown["due_at"]) == due_at
    assert redis_client.ttl(key) > (due_at - app.value("SELECT bridge.now()")).total_seconds()

    app.pass_time(15)
    app.wait_for_replies(match, "un\ndeux")
    eventually(lambda: redis_client.keys("context:*") == [])


@pytest.mark.slow
def test_a_short_cut_of_redis(service: Service, app: App, mortal_redis: RedisServer) -> None:
    """A Redis that is back at the second attempt gives the guide's lines, and the message is answered."""
    mortal_redis.start()
    scheduler = up(service)
    match = app.old_match()
    mark = service.mark()

    app.write(match, "un message")
    service.wait_for_line("timer", process=scheduler, after=mark)
    mortal_redis.kill()
    app.pass_time(15)
    service.wait_for_line("Retry dans", process=scheduler, after=mark)
    mortal_redis.start()
    app.wait_for_replies(match, "un message")

    assert_lines(
        service.texts("Redis|Retry|Message poussé", process=scheduler, after=mark),
        "⚠️ Tentative 1/3 - Connexion Redis perdue: .+",
        re.escape("⏳ Retry dans 1s..."),
        re.escape("🔄 Reconnexion Redis..."),
        "✅ Reconnexion Redis réussie",
        "✅ Message poussé dans queue",
    )


@pytest.mark.slow
def test_a_long_absence_of_redis(service: Service, app: App, mortal_redis: RedisServer) -> None:
    """All attempts failing is told once, whatever comes in meanwhile; afterwards everything is answered by itself."""
    mortal_redis.start()
    scheduler = up(service)
    first, second = app.old_match(), app.old_match()
    mark = service.mark()

    app.write(first, "avant")
    service.wait_for_line("timer", process=scheduler, after=mark)
    mortal_redis.kill()
    app.pass_time(15)
    service.wait_for_line("Échec définitif", process=scheduler, after=mark)
    assert_lines(
        service.texts("Redis|Retry|Échec|Message poussé", process=scheduler, after=mark),
        "⚠️ Tentative 1/3 - Connexion Redis perdue: .+",
        re.escape("⏳ Retry dans 1s..."),
        re.escape("🔄 Reconnexion Redis..."),
        "⚠️ Tentative 2/3 - Connexion Redis perdue: .+",
        re.escape("⏳ Retry dans 2s..."),
        re.escape("🔄 Reconnexion Redis..."),
        "⚠️ Tentative 3/3 - Connexion Redis perdue: .+",
        re.escape("⏳ Retry dans 4s..."),
        re.escape("🔄 Reconnexion Redis..."),
        "❌ Échec définitif après 3 tentatives",
    )

    app.write(second, "pendant")
    service.wait_for_line("timer", count=2, process=scheduler, after=mark)
    app.pass_time(15)
    mortal_redis.start()
    app.wait_for_replies(first, "avant")
    app.wait_for_replies(second, "pendant")

    assert len(service.lines("Échec définitif")) == 1
    assert service.texts("Reconnexion Redis réussie|Message poussé", process=scheduler) == [
        "✅ Reconnexion Redis réussie",
        "✅ Message poussé dans queue",
        "✅ Message poussé dans queue",
    ]


def test_nothing_restarts_the_count_of_an_outage(service: Service, app: App, mortal_redis: RedisServer) -> None:
    """An outage that lasts through several groups and probes has one ❌ line a scheduler process."""
    service.environment["REDIS_MAX_ATTEMPTS"] = "1"
    mortal_redis.start()
    scheduler = up(service)
    mortal_redis.kill()
    for number in range(3):
        app.write(app.old_match(), f"message {number}")
        service.wait_for_line("timer", count=number + 1, process=scheduler)
        app.pass_time(15)
    service.wait_for_line("Échec définitif", process=scheduler)

    mortal_redis.start()
    service.wait_for_line("Reconnexion Redis réussie", process=scheduler)
    eventually(lambda: app.value("SELECT count(*) FROM bridge.turns WHERE state = 'answered'") == 3)

    assert service.texts("Échec définitif") == ["❌ Échec définitif après 1 tentatives"]
