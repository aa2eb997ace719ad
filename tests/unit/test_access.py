"""Who is let in: with a token set, nobody but who brings it, but for the probes."""

import base64
import hmac
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge_service.web.guard import admits

ODD = string.punctuation
"""Everything that means something in a header, in a URL, in base64's surroundings or in a shell."""

TOKEN = "kanarienvogel-4711"


def basic(text: bytes) -> bytes:
    """Return a header of scheme Basic."""
    return b"Basic " + base64.b64encode(text)


@pytest.mark.parametrize("token", [TOKEN, ODD, ODD[::-1], "=" * 16, ":" * 16, "Bearer:Basic:Bearer", "a" * 256])
def test_who_brings_the_token(token: str) -> None:
    """It may come as a Bearer token or as anybody's password, whatever characters it is made of."""
    sent = token.encode()

    for header in (b"Bearer " + sent, b"bearer  " + sent, b"BEARER " + sent + b" "):
        assert admits(token, "/metrics", header)
    for user in (b"", b"prometheus", "é".encode()):
        assert admits(token, "/", basic(user + b":" + sent))
    assert admits(token, "/", basic(b"x:" + sent).replace(b"Basic", b"bAsIc"))


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b" ",
        b"Bearer",
        b"Bearer ",
        b"Basic",
        b"Basic ",
        TOKEN.encode(),
        b"Bearer " + TOKEN.encode()[:-1],
        b"Bearer " + TOKEN.encode() + b"x",
        b"Bearer " + TOKEN.upper().encode(),
        b"Bearer " + TOKEN.encode() + b"\0",
        b"Bearer\t" + TOKEN.encode(),
        b"Bearer " + TOKEN.encode() + b", Bearer " + TOKEN.encode(),
        b"Token " + TOKEN.encode(),
        b"Digest " + TOKEN.encode(),
        b"Basic " + TOKEN.encode(),
        b"Bearer " + base64.b64encode(TOKEN.encode()),
        basic(b""),
        basic(b":"),
        basic(TOKEN.encode()),
        basic(TOKEN.encode() + b":"),
        basic(TOKEN.encode() + b":x"),
        basic(b"x:" + TOKEN.encode() + b":"),
        basic(b"x:y:" + TOKEN.encode()),
        basic(b"x:" + TOKEN.encode()) + b"*",
        b"Basic *" + basic(b"x:" + TOKEN.encode())[6:],
        b"Basic =",
        "Bearer kanarienvögel-4711".encode(),
        b"Bearer \xff\xfe",
        basic(b"\xff:\xff"),
    ],
)
def test_who_does_not(header: bytes) -> None:
    """A header that is not exactly one of the two, with exactly the token, admits nobody."""
    assert not admits(TOKEN, "/metrics", header)


@given(header=st.binary())
def test_nothing_else_is_the_token(header: bytes) -> None:
    """No bytes raise, and none admit that do not hold the token."""
    for each in (header, b"Bearer " + header, b"Basic " + header, basic(header)):
        assert not admits(TOKEN, "/", each)


@pytest.mark.parametrize("path", ["/health/live", "/health/ready", "/health/nothing"])
def test_probes_need_no_token(path: str) -> None:
    """What a platform probes is open."""
    assert admits(TOKEN, path, b"")


@pytest.mark.parametrize("path", ["/", "/metrics", "/nothing", "", "/health", "/Health/live", "//health/live", "*"])
def test_all_else_is_closed(path: str) -> None:
    """What is not open is closed, whether it is there or not."""
    assert not admits(TOKEN, path, b"")


@pytest.mark.parametrize("header", [b"", b"Bearer x", b"Basic x"])
def test_without_a_token_all_is_open(header: bytes) -> None:
    """Without CONSOLE_TOKEN nothing is asked for, and what is brought all the same does no harm."""
    assert admits(None, "/metrics", header)


def test_the_comparison_takes_the_same_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is left to the one function that compares in constant time, as a whole."""
    compared: list[tuple[bytes, bytes]] = []

    def compare(one: bytes, other: bytes) -> bool:
        compared.append((one, other))
        return False

    monkeypatch.setattr(hmac, "compare_digest", compare)

    assert not admits(TOKEN, "/", b"Bearer " + TOKEN.encode())
    assert compared == [(TOKEN.encode(), TOKEN.encode())]
