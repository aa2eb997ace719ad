"""The playground's page without a browser: what it lets in, what it sends, and in which language."""

from __future__ import annotations

import http.client
import json
import re
import socket
from contextlib import closing, contextmanager
from threading import Thread
from typing import TYPE_CHECKING, Any, Final

import pytest
from starlette.applications import Starlette

from bridge_service.web.feed import Feed
from bridge_service.web.forms import BODY_BYTES
from bridge_service.web.guard import Guarded
from bridge_service.web.local import Local
from bridge_service.web.playground import Play, Refused, routes
from bridge_service.web.server import make_server
from bridge_service.web.templates import language
from tests.support.http import hangs_up
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

TOKEN: Final = "the-token-of-this-page"
STATE: Final = {"now": 1.0}


class Served:
    """A playground with nothing behind it."""

    def __init__(self) -> None:
        self.asked: list[Mapping[str, str]] = []
        self.looks = 0
        self.changes: list[dict[str, Any]] = []
        self.feed = Feed(self._whole, self._look, 0.01)
        self.port = 0

    def routes(self) -> list[Any]:
        """Return its paths."""
        play = Play("a-boot", ["Léa"], ["Camille"], ["redis"], ["thinking"], self._act)
        return routes(play, self.feed, TOKEN)

    async def _whole(self) -> Mapping[str, Any]:
        return STATE

    async def _look(self) -> Mapping[str, Any]:
        self.looks += 1
        return self.changes.pop(0) if self.changes else {}

    def _act(self, asked: Mapping[str, str]) -> Mapping[str, str]:
        if asked.get("action") == "refuse":
            raise Refused("tour")
        self.asked.append(asked)
        return {"done": "yes"}

    def send(self, method: str, path: str, headers: Mapping[str, str], body: bytes = b"") -> tuple[int, str]:
        """Send exactly these headers; return status and body."""
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)) as connection:
            connection.putrequest(method, path, skip_host=True)
            for name, value in {**headers, **({"Content-Length": str(len(body))} if body else {})}.items():
                connection.putheader(name, value)
            connection.endheaders(body or None)
            response = connection.getresponse()
            return response.status, response.read().decode()

    def act(self, asked: object, **changed: str | None) -> tuple[int, str]:
        """Press a button as the page does, but for the headers that are changed, or left out with None."""
        headers: dict[str, str | None] = {
            "Host": f"localhost:{self.port}",
            "Origin": f"http://localhost:{self.port}",
            "X-CSRF-Token": TOKEN,
        }
        headers |= {name.replace("_", "-"): value for name, value in changed.items()}
        kept = {name: value for name, value in headers.items() if value is not None}
        return self.send("POST", "/act", kept, json.dumps(asked).encode())


@contextmanager
def serving() -> Iterator[Served]:
    """Serve a playground."""
    served = Served()
    with closing(socket.create_server(("127.0.0.1", 0))) as listening:
        served.port = listening.getsockname()[1]
        app = Guarded(Local(Starlette(routes=served.routes())), None)
        server = make_server(app)
        thread = Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            eventually(lambda: server.started)
            yield served
        finally:
            served.feed.stop()
            server.should_exit = True
            thread.join()


@pytest.fixture
def served() -> Iterator[Served]:
    """Give a playground that is served."""
    with serving() as served:
        yield served


@contextmanager
def stream(served: Served) -> Iterator[socket.socket]:
    """Open the stream as a page does; what is read from it begins after the answer's headers."""
    with closing(socket.create_connection(("127.0.0.1", served.port), timeout=10)) as connection:
        connection.sendall(f"GET /live HTTP/1.1\r\nHost: localhost:{served.port}\r\n\r\n".encode())
        yield connection


def read_until(connection: socket.socket, wanted: str) -> str:
    """Read until a text has come; return all that was read."""
    read = b""
    while wanted.encode() not in read:
        more = connection.recv(65536)
        assert more, f"the stream ended before {wanted}: {read!r}"
        read += more
    return read.decode()


def test_a_button_of_the_page_is_obeyed(served: Served) -> None:
    """Host, Origin and token of the page itself let an action through, under both names of this machine."""
    assert served.act({"action": "break", "what": "redis"}) == (200, '{"done":"yes"}')
    host = f"127.0.0.1:{served.port}"
    assert served.act({"action": "skip"}, Host=host, Origin=f"http://{host}")[0] == 200
    tunnel = "localhost:9000"
    assert served.act({"action": "skip"}, Host=tunnel, Origin=f"http://{tunnel}")[0] == 200
    assert [asked["action"] for asked in served.asked] == ["break", "skip", "skip"]


@pytest.mark.parametrize(
    ("changed", "status"),
    [
        ({"Host": "evil.example"}, 421),
        ({"Host": "localhost:80"}, 403),
        ({"Host": "localhost:1@evil.example"}, 421),
        ({"Host": "localhost\t.evil.example"}, 421),
        ({"Host": "127.0.0.2:{port}"}, 421),
        ({"Host": "localhost.evil.example:{port}"}, 421),
        ({"Host": None}, 400),
        ({"Origin": None}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "http://localhost:1"}, 403),
        ({"Origin": "file://localhost:{port}"}, 403),
        ({"Origin": "http://127.0.0.1:{port}"}, 403),
        ({"X_CSRF_Token": None}, 403),
        ({"X_CSRF_Token": ""}, 403),
        ({"X_CSRF_Token": "another"}, 403),
        ({"X_CSRF_Token": "é"}, 403),
    ],
)
def test_another_website_presses_no_button(served: Served, changed: dict[str, str | None], status: int) -> None:
    """A wrong or missing Host, Origin or token breaks nothing."""
    named = {name: value and value.replace("{port}", str(served.port)) for name, value in changed.items()}
    assert served.act({"action": "break", "what": "redis"}, **named)[0] == status
    assert not served.asked


@pytest.mark.parametrize("path", ["/", "/live", "/static/playground.js", "/act", "/nothing"])
def test_a_foreign_name_of_this_machine_reads_nothing(served: Served, path: str) -> None:
    """Another website whose name was made to point here gets no page, no token and no conversation."""
    assert served.send("GET", path, {"Host": f"evil.example:{served.port}"}) == (421, "misdirected request\n")


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b'"action"', b'{"action": 1}', b"\xff", b'{"action": "' + b"x" * BODY_BYTES + b'"}']
)
def test_what_is_not_understood_does_nothing(served: Served, body: bytes) -> None:
    """A body that is no object of texts, or is too long, is refused."""
    headers = {
        "Host": f"localhost:{served.port}",
        "Origin": f"http://localhost:{served.port}",
        "X-CSRF-Token": TOKEN,
    }
    assert served.send("POST", "/act", headers, body) == (400, '{"refused":"unreadable"}')
    assert not served.asked


def test_a_refusal_names_its_sentence(served: Served) -> None:
    """The page has the sentence in its own language under the name that the refusal gives."""
    assert served.act({"action": "refuse"}) == (409, '{"refused":"tour"}')
    _, page = served.send("GET", "/", {"Host": f"localhost:{served.port}", "Accept-Language": "fr"})
    assert "La visite joue encore." in re.sub(r"\\u00(..)", lambda each: chr(int(each[1], 16)), page)


def test_the_page_loads_its_own_files_and_nothing_else(served: Served) -> None:
    """No inline script or style, no handler, no foreign address; each file that the page names is there."""
    host = {"Host": f"localhost:{served.port}"}
    _, page = served.send("GET", "/", host)
    assert not re.search(r"<style|<script(?! src)|\sstyle=|\son\w+=|https?:|//\w", page)
    for path in re.findall(r'(?:src|href)="(/static/[^"]+)"', page):
        status, text = served.send("GET", path, host)
        assert (status, bool(text)) == (200, True)
    assert served.send("GET", "/static/..%2Ftemplates%2Fwords.json", host)[0] == 404


@pytest.mark.parametrize(
    ("accepted", "chosen"),
    [
        ("", "en"),
        ("fr", "fr"),
        ("fr-CA,en;q=0.5", "fr"),
        ("en-GB,fr;q=0.9", "en"),
        ("de,fr;q=0.4,en;q=0.3", "fr"),
        ("de, es", "en"),
        ("fr;q=0", "en"),
        ("fr;q=x", "en"),
        ("FR", "fr"),
        ("*", "en"),
        (",;,;q=", "en"),
    ],
)
def test_the_language_is_the_browsers(accepted: str, chosen: str) -> None:
    """The best of French and English in Accept-Language, English without either."""
    assert language(accepted) == chosen


def test_both_languages_say_the_same(served: Served) -> None:
    """Every sentence exists in both, with the same blanks."""
    from bridge_service.web.templates import _WORDS  # noqa: PLC0415 - looked at, not used

    del served
    blanks = {
        code: {name: set(re.findall(r"{\w+}", text)) for name, text in words.items()} for code, words in _WORDS.items()
    }
    assert blanks["fr"] == blanks["en"]


def test_two_pages_cost_one_look(served: Served) -> None:
    """Both pages get the state and then the change, which was looked for once; nothing looks before a page is open."""
    assert served.looks == 0
    with stream(served) as one, stream(served) as two:
        for page in (one, two):
            read_until(page, 'data: {"now":1.0}')
        served.changes.append({"turns": [7]})
        for page in (one, two):
            read_until(page, 'data: {"turns":[7]}')
        assert not served.changes


def test_nothing_looks_after_the_last_page_left(served: Served) -> None:
    """The pages' database is left alone again once the last page is closed."""
    with stream(served) as page:
        read_until(page, "data: ")
    pump = served.feed._pump
    assert pump is not None
    eventually(pump.done)


def test_a_stream_ends_with_the_server() -> None:
    """A server that stops hangs up on the open pages, which connect again by themselves."""
    with serving() as served, stream(served) as page:
        read_until(page, "data: ")
        served.feed.stop()
        eventually(lambda: hangs_up(page))
