"""The console shows pauses, hours, disclosures and distress, counts them as `status` does, and sets pauses."""

from __future__ import annotations

import html
import re
from contextlib import closing
from typing import TYPE_CHECKING, Final

import pytest

from bridge_service.machine.database import Connection
from bridge_service.machine.ledger import Ledger
from bridge_service.operate.commands.stories import pause_words
from bridge_service.web import observer
from tests.integration.test_console import console
from tests.integration.test_console_actions import ADA, TOKEN, post
from tests.integration.test_console_books import CANARY, act, write, written
from tests.support.app import CAMILLE, App, Client
from tests.support.http import ask, samples
from tests.support.policy import set_policy
from tests.support.store import store_on

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bridge_service.demo.servers import RedisServer
    from bridge_service.machine.steps import Store
    from tests.support.roles import Urls

BOT: Final = f"/bots/{CAMILLE}"
ALWAYS: Final = {"quiet_hours": "00:00-23:59", "quiet_hours_weekend": "00:00-23:59"}


@pytest.fixture(autouse=True)
def looks_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the console look at each question."""
    monkeypatch.setattr(observer, "LOOK_SECONDS", 0.0)
    monkeypatch.setattr("bridge_service.web.books.BOTS_SECONDS", 0.0)


@pytest.fixture
def app(bridge_database: Urls) -> Iterator[App]:
    """Give the app; groups close at once."""
    set_policy(bridge_database, grouping_delay=0)
    with closing(App(bridge_database)) as app:
        yield app


@pytest.fixture
def store(app: App) -> Iterator[Store]:
    """Give the machine of that database."""
    with store_on(app.urls) as store:
        yield store


@pytest.fixture
def port(app: App, redis_server: RedisServer) -> Iterator[int]:
    """Give the port of a console with a token."""
    with console(app.urls.service, redis_server.url(), TOKEN) as port:
        yield port


def facts(port: int, path: str) -> str:
    """Return what a page says of a bot or a conversation, without its markup."""
    body = ask(port, path, authorization=ADA).body
    assert CANARY not in body
    found = re.search(r'<dl class="facts">(.*?)</dl>', body, re.DOTALL)
    assert found
    return html.unescape(" ".join(re.sub(r"<[^>]+>", " ", found[1]).split()))


def test_a_conversation_is_paused_and_resumed(app: App, store: Store, port: int) -> None:
    """The buttons do what the commands do; the page says until when and who asked, and each press leaves a row."""
    match = app.old_match()
    write(app, store, match)
    path = f"/conversations/{match}"
    assert facts(port, path).startswith("Now queued, next step at ")
    assert post(port, f"{path}/pause", {"seconds": "3600"})[:2] == (303, f"{path}?said=paused")
    assert re.fullmatch(
        r"Now paused, next step at \S+ Pause paused, by Ada, since [\d:]+, until ([\d-]+ )?[\d:]+", facts(port, path)
    )
    assert app.value(
        "SELECT until - since BETWEEN interval '3599 s' AND interval '3601 s' FROM bridge.pauses WHERE match_id = %s",
        match,
    )
    assert post(port, f"{path}/pause", {"seconds": ""})[:2] == (303, f"{path}?said=paused")
    assert facts(port, path).endswith("until it is resumed")
    app.value("SELECT bridge.pause(%s, NULL)", match)
    assert "Ada" not in facts(port, path)
    assert post(port, f"{path}/resume", {})[:2] == (303, f"{path}?said=resumed")
    assert post(port, f"{path}/resume", {})[:2] == (303, f"{path}?said=not_paused")
    assert "Pause" not in facts(port, path)
    assert [(what, on, outcome) for _, _, what, on, outcome in written(app)] == [
        ("pause", f'conversations/{match} {{"seconds": 3600}}', "paused"),
        ("pause", f"conversations/{match}", "paused"),
        ("resume", f"conversations/{match}", "resumed"),
        ("resume", f"conversations/{match}", "not_paused"),
    ]
    for said in ("paused", "resumed", "not_paused", "no_bot"):
        assert 'class="banner" role="status"' in ask(port, f"{path}?said={said}", authorization=ADA).body


def test_what_is_no_pause_of_ours_is_refused(app: App, port: int, redis_server: RedisServer) -> None:
    """Without the page's token, with another span, with what is no id, or without CONSOLE_TOKEN nothing is paused."""
    match = app.old_match()
    path = f"/conversations/{match}"
    assert post(port, f"{path}/pause", {"csrf": "x", "seconds": ""})[0] == 403
    assert post(port, f"{path}/pause", {"seconds": ""}, Origin="https://evil.example")[0] == 403
    assert post(port, f"{path}/pause", {"seconds": "1"})[0] == 400
    assert post(port, "/conversations/x/pause", {"seconds": ""})[0] == 404
    assert post(port, "/bots/default/pause", {"seconds": ""})[0] == 404
    with console(app.urls.service, redis_server.url()) as bare:
        assert post(bare, f"{path}/pause", {"seconds": ""})[0] in {404, 405}
    assert (app.rows("SELECT FROM bridge.pauses"), written(app)) == ([], [])
    nowhere = "/conversations/00000000-0000-4000-8000-00000000dead"
    assert post(port, f"{nowhere}/pause", {"seconds": ""})[:2] == (303, f"{nowhere}?said=no_bot")


def test_the_pause_and_its_row_are_one(app: App) -> None:
    """If the row cannot be written, nothing is paused."""
    match = app.old_match()
    app.rows("ALTER TABLE bridge.actions ADD CONSTRAINT full_disk CHECK (what <> 'pause')")
    with closing(Client(app.urls.service)) as client, pytest.raises(Exception, match="full_disk"):
        act(client, "pause", f"conversations/{match}")
    assert app.rows("SELECT FROM bridge.pauses") == []


def test_a_command_names_who_paused_on_the_console(app: App) -> None:
    """The words of `conversations show` and `why` have the user's name that the console was sent."""
    match = app.old_match()
    with closing(Client(app.urls.service)) as client:
        act(client, "pause", f"conversations/{match}")
    with closing(Connection(app.urls.service, application="test")) as connection:
        story = Ledger(connection).conversation(match)
    assert story is not None
    assert [pause_words(pause) for pause in story["pauses"]] == [
        "paused by Ada on the console; the bot is silent until `resume`"
    ]


def test_a_bot_is_paused_asleep_or_off(app: App, store: Store, port: int) -> None:
    """Its page and the list say whether a bot answers, and why not; the buttons pause and resume it everywhere."""
    match = app.old_match()
    write(app, store, match)
    assert facts(port, BOT) == "Now answers"
    assert post(port, f"{BOT}/pause", {"seconds": "86400"})[:2] == (303, f"{BOT}?said=paused")
    assert re.match(r"Now paused, by Ada, since [\d:]+, until 20", facts(port, BOT))
    assert "paused, by Ada, in all conversations of this bot" in facts(port, f"/conversations/{match}")
    set_policy(app.urls, CAMILLE, active="false", **ALWAYS)
    said = facts(port, BOT)
    assert "off: its messages are captured" in said
    assert "asleep: quiet hours, until" in said
    row = re.search(
        rf"{CAMILLE}</code></a></td>\s*<td>(.*?)</td>", ask(port, "/bots", authorization=ADA).body, re.DOTALL
    )
    assert row
    assert all(word in row[1] for word in ("paused, by Ada", "asleep", "off"))
    assert facts(port, f"/conversations/{match}").startswith("Now the bot is off")
    assert post(port, f"{BOT}/resume", {})[:2] == (303, f"{BOT}?said=resumed")
    assert post(port, f"{BOT}/resume", {})[:2] == (303, f"{BOT}?said=not_paused")
    assert "/pause" not in ask(port, "/bots/default", authorization=ADA).body


def test_what_a_bot_had_to_say_is_shown(app: App, store: Store, port: int) -> None:
    """A human's message, the disclosure and a mark of distress stand on its page, with times and no text."""
    match = app.old_match()
    write(app, store, match)
    app.write(match, CANARY, sender=CAMILLE)
    store.group()
    app.rows(
        "INSERT INTO bridge.disclosures (match_id, bot_id, message_id, said_at, version, event_id)"
        " VALUES (%s, %s, gen_random_uuid(), now(), repeat('ab', 32), 0)",
        match,
        CAMILLE,
    )
    app.rows(
        "INSERT INTO bridge.distress (match_id, bot_id, first_at, last_at, event_id, token)"
        " VALUES (%s, %s, now() - interval '1 hour', now(), 0, gen_random_uuid())",
        match,
        CAMILLE,
    )
    said = facts(port, f"/conversations/{match}")
    assert "Pause a human wrote in the bot's name, since" in said
    assert re.search(r"Disclosure said at [\d:]+, version abababababab Distress first at .*, last at", said)
    body = ask(port, f"/conversations/{match}", authorization=ADA).body
    assert "a human wrote</span>" in re.sub(r"\s+(?=<)", "", body)
    assert "a human answered in the bot&#39;s name" in body


def test_the_page_the_metrics_and_the_command_count_alike(app: App, store: Store, port: int) -> None:
    """Turns held by cause, pauses, takeovers and paused bots are the same numbers everywhere, and none is late."""
    asleep, paused, human = (app.old_match() for _ in range(3))
    write(app, store, human)
    app.write(human, CANARY, sender=CAMILLE)
    store.group()
    for match, held in ((asleep, "hours"), (paused, "paused")):
        _, turn = write(app, store, match)
        app.rows(
            "UPDATE bridge.turns SET state = 'open', held = %s, due_at = now() + '1 day' WHERE id = %s", held, turn
        )
    app.value("SELECT bridge.pause(%s, NULL)", paused)
    app.value("SELECT bridge.pause(%s, now() - interval '1 s')", asleep)  # it is over
    app.value("SELECT bridge.pause_bot(%s, NULL)", CAMILLE)

    with closing(Connection(app.urls.service, application="test")) as connection:
        status = Ledger(connection).status()
    assert status.held == {"hours": 1, "paused": 1}
    assert (status.paused, status.taken_over, status.bots_paused, status.overdue) == (2, 1, 1, 0)

    numbers = samples(ask(port, "/metrics", authorization=ADA).body)
    assert {name: int(value) for name, value in numbers.items() if "paused" in name or "taken_over" in name} == {
        'bridge_turns_on_hold{cause="paused"}': 1,
        "bridge_conversations_paused": 2,
        "bridge_conversations_taken_over": 1,
        "bridge_bots_paused": 1,
    }
    assert [int(numbers[f'bridge_turns_on_hold{{cause="{cause}"}}']) for cause in ("hours", "limit_tokens")] == [1, 0]

    page = ask(port, "/", authorization=ADA).body
    cards = dict(re.findall(r"<dt>([^<]+)</dt><dd class=\"\w*\">([^<]+)</dd>", page))
    assert [cards[name] for name in ("Paused", "Taken over", "Bots paused", "Overdue")] == ["2", "1", "1", "0"]
    assert re.search(r"its quiet hours</td><td class=\"number\">1</td>", page)


def test_what_is_over_costs_a_look_nothing(app: App) -> None:
    """Behind 20,000 pauses that are over and as many finished turns that were held, a look reads a handful of rows."""
    app.rows(
        "INSERT INTO bridge.pauses (match_id, cause, since, until)"
        " SELECT gen_random_uuid(), 'paused', now(), now() - interval '1 day' FROM generate_series(1, 20000)"
    )
    app.rows(
        "INSERT INTO bridge.turns (kind, match_id, bot_id, state, opened_at, ended_at, reason, held)"
        " SELECT 'reply', gen_random_uuid(), gen_random_uuid(), 'cancelled', now(), now(), 'old', 'hours'"
        " FROM generate_series(1, 20000)"
    )
    with closing(Client(app.urls.service)) as fresh:  # whose counters of its own reads begin at 0
        fresh.rows("BEGIN")
        assert fresh.value("SELECT bridge.on_hold(50000)") == {
            "held": {}, "paused": 0, "taken_over": 0, "bots_paused": 0,
        }  # fmt: skip
        read = fresh.rows(
            "SELECT relname, seq_tup_read, coalesce(idx_tup_fetch, 0) FROM pg_stat_xact_all_tables"
            " WHERE relid IN ('bridge.turns'::regclass, 'bridge.pauses'::regclass)"
        )
        fresh.rows("ROLLBACK")
    assert len(read) == 2
    assert all((scanned, fetched) == (0, 0) for _, scanned, fetched in read)
