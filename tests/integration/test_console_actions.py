"""Actions on the console: who may act, what is refused, and that each one does what the command does."""

from __future__ import annotations

import html
import http.client
import re
from contextlib import closing
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode
from uuid import uuid4

import pytest

from bridge_service.web import observer
from bridge_service.web.forms import FORM_BYTES, csrf_token
from bridge_service.web.guard import user_of
from tests.integration.test_console import console
from tests.integration.test_console_books import CANARY, die, written
from tests.support.app import CAMILLE, App
from tests.support.http import ask, basic
from tests.support.policy import set_policy
from tests.support.store import store_on

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bridge_service.demo.servers import RedisServer
    from bridge_service.machine.steps import Store
    from tests.support.roles import Urls

TOKEN: Final = "a-token-of-sixteen"
ADA: Final = basic(TOKEN, user="Ada")


@pytest.fixture(autouse=True)
def answers_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let answers hold for long: a page shows what was just done because an action ends them."""
    monkeypatch.setattr(observer, "LOOK_SECONDS", 60.0)


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


def post(port: int, path: str, fields: dict[str, Any] | bytes, **changed: str | None) -> tuple[int, str, str]:
    """Send a form as the page does, except for the headers that are changed; return status, Location and body."""
    headers: dict[str, str | None] = {
        "Host": f"127.0.0.1:{port}",
        "Origin": f"http://127.0.0.1:{port}",
        "Authorization": ADA,
        "Content-Type": "application/x-www-form-urlencoded",
        **changed,
    }
    body = fields if isinstance(fields, bytes) else urlencode({"csrf": csrf_token(TOKEN), **fields}).encode()
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=20)) as connection:
        connection.putrequest("POST", path, skip_host=True)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            if value is not None:
                connection.putheader(name, value)
        connection.endheaders(body)
        answer = connection.getresponse()
        return answer.status, answer.headers.get("Location", ""), answer.read().decode()


def state(app: App, turn: int) -> tuple[str, str | None]:
    """Return a turn's state and reason."""
    [found] = app.rows("SELECT state, reason FROM bridge.turns WHERE id = %s", turn)
    return found[0], found[1]


def test_retry_and_drop(app: App, store: Store, port: int) -> None:
    """The forms of the page retry and drop a dead turn; the page then says what became of it, and who did it."""
    (_, first), (_, second) = die(app, store), die(app, store)
    page = ask(port, "/dead", authorization=ADA).body
    assert f'value="{first}"' in page
    assert CANARY not in page
    assert f'value="{csrf_token(TOKEN)}"' in page
    assert post(port, "/dead/retry", {"turn": first})[:2] == (303, "/dead?said=retried")
    assert post(port, "/dead/drop", {"turn": second})[:2] == (303, "/dead?said=dropped")
    assert post(port, "/dead/drop", {"turn": second})[:2] == (303, "/dead?said=nothing")
    assert (state(app, first), state(app, second)) == (("cancelled", "retried"), ("cancelled", "dropped"))
    assert written(app) == [
        ("Ada", "127.0.0.1", "retry", str(first), "retried"),
        ("Ada", "127.0.0.1", "drop", str(second), "dropped"),
        ("Ada", "127.0.0.1", "drop", str(second), "nothing"),
    ]
    assert "It is tried again." in ask(port, "/dead?said=retried", authorization=ADA).body
    assert re.search(r"Ada.*127\.0\.0\.1.*drop", ask(port, "/actions", authorization=ADA).body, re.DOTALL)


def test_a_page_shows_what_was_just_done(app: App, store: Store, port: int) -> None:
    """What another visitor has just asked for is asked anew after an action, and not shown as it was before."""
    _, turn = die(app, store)
    pages = ("/dead", "/bots/default", "/actions")
    before = [ask(port, page, authorization=ADA).body for page in pages]
    post(port, "/dead/drop", {"turn": turn})
    post(port, "/bots/default", {"max_merges": "7", "was_max_merges": ""})
    after = [ask(port, page, authorization=ADA).body for page in pages]
    for sign, place, shown in (
        (f'value="{turn}"', 0, False),
        ('name="max_merges" value="7"', 1, True),
        ("Ada", 2, True),
    ):
        assert (sign in before[place], sign in after[place]) == (not shown, shown)


def test_a_bots_values(app: App, port: int) -> None:
    """A form sets what the visitor changed and nothing else, takes values back, and says what is not accepted."""
    path = f"/bots/{CAMILLE}"
    changed = {"grouping_delay": "7.5", "was_grouping_delay": "", "max_merges": "3", "was_max_merges": "3"}
    assert post(port, path, changed)[:2] == (303, f"{path}?said=set")
    assert app.rows("SELECT grouping_delay, max_merges FROM bridge.bots WHERE scope = 'bot'") == [(7.5, None)]
    page = ask(port, path, authorization=ADA).body
    assert 'name="grouping_delay" value="7.5"' in page
    assert post(port, path, {"grouping_delay": "", "was_grouping_delay": "7.5"})[:2] == (303, f"{path}?said=set")
    assert app.rows("SELECT FROM bridge.bots WHERE scope = 'bot'") == []
    for values, fault in (
        ({"grouping_delay": "x"}, "GROUPING_DELAY must be a number from 0 to 86400"),
        ({"grouping_delay": "-1"}, "GROUPING_DELAY must be a number from 0 to 86400"),
        ({"thinking_delay_min": "9", "thinking_delay_max": "3"}, "set both"),
        ({"ignore_older_days": "3"}, "set it for `default`"),
    ):
        status, _, body = post(port, path, values)
        assert (status, fault in body) == (400, True)
    assert post(port, path, {})[:2] == (303, f"{path}?said=nothing_new")
    assert post(port, "/bots/default", {"max_merges": "1"})[:2] == (303, "/bots/default?said=set")
    assert app.value("SELECT max_merges FROM bridge.policy(%s)", CAMILLE) == 1
    assert [(what, outcome) for _, _, what, _, outcome in written(app)] == [
        ("set", outcome) for outcome in ("set", "set", "refused", "refused", "set")
    ]


def test_a_text_of_many_lines(app: App, port: int) -> None:
    """The longest persona goes through the form and back unchanged; a text that was not changed is not set again."""
    persona = ("é\n<b>& " * 4000)[:20000].strip()
    sent = persona.replace("\n", "\r\n")
    path = f"/bots/{CAMILLE}"
    assert post(port, path, {"persona": sent, "was_persona": ""})[:2] == (303, f"{path}?said=set")
    assert app.value("SELECT persona FROM bridge.bots WHERE scope = 'bot'") == persona
    assert html.escape(persona).replace("&#x27;", "'") in ask(port, path, authorization=ADA).body
    assert post(port, path, {"persona": sent, "was_persona": sent})[:2] == (303, f"{path}?said=nothing_new")
    assert post(port, path, {"persona": "none", "was_persona": sent})[:2] == (303, f"{path}?said=set")
    assert 'rows="3" aria-label="PERSONA">\nnone</textarea>' in ask(port, path, authorization=ADA).body


@pytest.mark.parametrize(
    ("changed", "status"),
    [
        ({"Authorization": None}, 401),
        ({"Authorization": basic("wrong-token-of-16", user="Ada")}, 401),
        ({"Origin": None}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "https://evil.example"}, 403),
        ({"Host": "evil.example"}, 403),
        ({"Host": None}, 400),
    ],
)
def test_another_website_acts_on_nothing(
    app: App, store: Store, port: int, changed: dict[str, str | None], status: int
) -> None:
    """Without the token, or from a page of another origin, nothing is done and nothing is written."""
    _, turn = die(app, store)
    assert post(port, "/dead/drop", {"turn": turn}, **changed)[0] == status
    assert state(app, turn)[0] == "dead"
    assert written(app) == []


@pytest.mark.parametrize(
    "fields",
    [
        {"csrf": ""},
        {"csrf": TOKEN},
        {"csrf": "é"},
        b"turn=1",
        b"x" * (FORM_BYTES + 1),
        b"&".join(b"a=b" for _ in range(200)),
        b"\xff\xfe",
    ],
)
def test_a_form_without_the_pages_token_does_nothing(app: App, store: Store, port: int, fields: Any) -> None:  # noqa: ANN401
    """A form that our page did not make, is too long, or is no form is refused."""
    _, turn = die(app, store)
    sent = {"turn": turn, **fields} if isinstance(fields, dict) else fields
    assert post(port, "/dead/drop", sent)[0] in {400, 403}
    assert state(app, turn)[0] == "dead"
    assert written(app) == []


@pytest.mark.parametrize("turn", ["", "x", "-1", "1e3", "٣", "9" * 19, "1;DROP"])
def test_what_is_no_turn_is_refused(app: App, port: int, turn: str) -> None:
    """A turn's id is digits; a turn that is not there is nothing to do."""
    assert post(port, "/dead/drop", {"turn": turn})[0] == 400
    assert post(port, "/dead/drop", {"turn": "999"})[1] == "/dead?said=nothing"
    assert post(port, "/bots/nobody", {"max_merges": "1"})[0] == 404
    assert [what for _, _, what, *_ in written(app)] == ["drop"]


def test_without_a_token_there_is_no_action(app: App, store: Store, redis_server: RedisServer) -> None:
    """A console that asks for nothing shows no form that acts, and has no such path."""
    _, turn = die(app, store)
    with console(app.urls.service, redis_server.url()) as port:
        assert 'method="post"' not in ask(port, "/dead").body
        assert 'name="csrf"' not in ask(port, "/bots/default").body
        assert post(port, "/dead/drop", {"turn": turn})[0] == 404
        assert post(port, "/bots/default", {"max_merges": "1"})[0] == 405
    assert state(app, turn)[0] == "dead"


def test_a_result_that_is_not_ours_is_not_shown(port: int) -> None:
    """The address decides only which of our own sentences stands on the page."""
    page = ask(port, f"/dead?said={CANARY}", authorization=ADA).body
    assert CANARY not in page


def test_where_a_search_leads(app: App, port: int) -> None:
    """An id leads to its conversation on this console, and nothing else leads anywhere."""
    match = app.old_match()
    message = app.write(match, CANARY)
    for each in (match, message, f" {message.upper()} ".replace(" ", "%20")):
        found = ask(port, f"/conversations?id={each}", authorization=ADA)
        assert found.status == 303
        page = ask(port, found.headers["Location"], authorization=ADA)
        assert page.status == 200
        assert f"message {message} captured" in page.body
        assert CANARY not in page.body
    for wrong in ("", "x", "//evil.example", "https://evil.example"):
        assert ask(port, f"/conversations?id={wrong}", authorization=ADA).status == 404
    assert ask(port, f"/conversations/{uuid4()}", authorization=ADA).status == 404


@pytest.mark.parametrize(
    ("user", "shown"), [("Ada", "Ada"), ("", ""), ("a\x00b\x1b[31m", "ab[31m"), ("é" * 300, "é" * 100)]
)
def test_the_name_that_is_written_down(user: str, shown: str) -> None:
    """The name that came with the password, bounded and without what a terminal obeys; none with a Bearer token."""
    assert user_of(basic(TOKEN, user=user).encode()) == shown
    assert user_of(b"Bearer x") == ""
