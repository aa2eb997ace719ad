"""Each weather of the proxy, seen by a plain socket that talks to a server that echoes."""

from __future__ import annotations

import contextlib
import gc
import socket
import sys
import threading
import time
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING

import pytest

from tests.chaos.ports import free_port
from tests.chaos.proxy import FINE, Proxy, Way, Weather

if TYPE_CHECKING:
    from collections.abc import Iterator


def _echo(connection: socket.socket) -> None:
    with connection, contextlib.suppress(ConnectionError):
        while data := connection.recv(65536):
            connection.sendall(data)


def _serve(listener: socket.socket) -> None:
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        threading.Thread(target=_echo, args=(connection,), daemon=True).start()


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    """Give a proxy in front of a server that echoes."""
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        threading.Thread(target=_serve, args=(listener,), daemon=True).start()
        with Proxy(free_port(), listener.getsockname()[1]) as proxy:
            yield proxy


def _connect(proxy: Proxy) -> socket.socket:
    return socket.create_connection(("127.0.0.1", proxy.port), timeout=5)


def _asks(client: socket.socket, text: bytes) -> bytes:
    client.sendall(text)
    return client.recv(65536)


def _drain(client: socket.socket) -> tuple[bytes, bool]:
    """Read to the end; also whether the end was a reset."""
    received = b""
    try:
        while data := client.recv(10):
            received += data
    except ConnectionResetError:
        return received, True
    return received, False


def test_fine_weather_passes_both_ways(proxy: Proxy) -> None:
    """What is sent comes back."""
    with _connect(proxy) as client:
        assert _asks(client, b"hello") == b"hello"


def test_refuse_is_a_real_refusal_and_ends(proxy: Proxy) -> None:
    """Nobody listens while it refuses; the same port answers afterwards."""
    proxy.set(Weather(refuse=True))
    with pytest.raises(ConnectionRefusedError):
        _connect(proxy)
    proxy.set(FINE)
    with _connect(proxy) as client:
        assert _asks(client, b"again") == b"again"


def test_cut_is_a_reset(proxy: Proxy) -> None:
    """A cut connection fails with an error instead of ending quietly."""
    with _connect(proxy) as client:
        assert _asks(client, b"x") == b"x"
        proxy.cut()
        with pytest.raises(ConnectionResetError):
            client.recv(1)


@pytest.mark.parametrize("way", list(Way))
def test_a_stall_holds_data_and_lets_it_go_later(proxy: Proxy, way: Way) -> None:
    """Nothing arrives during a stall of either direction; all of it does afterwards."""
    with _connect(proxy) as client:
        assert _asks(client, b"x") == b"x"
        proxy.set(Weather(stalled=frozenset({way})))
        client.sendall(b"late")
        client.settimeout(0.2)
        with pytest.raises(TimeoutError):
            client.recv(10)
        proxy.set(FINE)
        client.settimeout(5)
        assert client.recv(10) == b"late"


def test_a_connection_made_during_a_stall_is_accepted_and_waits(proxy: Proxy) -> None:
    """A black hole accepts; it does not refuse."""
    proxy.set(Weather(stalled=frozenset(Way)))
    with _connect(proxy) as client:
        client.sendall(b"first")
        proxy.set(FINE)
        assert client.recv(10) == b"first"


def test_slow_takes_its_time(proxy: Proxy) -> None:
    """Latency counts in each direction."""
    proxy.set(Weather(latency=0.1))
    with _connect(proxy) as client:
        began = time.monotonic()
        assert _asks(client, b"x") == b"x"
        assert time.monotonic() - began >= 0.2


@pytest.mark.parametrize("way", list(Way))
def test_a_limit_cuts_in_the_middle_of_a_message(proxy: Proxy, way: Way) -> None:
    """Just the bytes of the limit arrive, then the connection is reset."""
    proxy.set(Weather(limits={way: 3}))
    with _connect(proxy) as client:
        client.sendall(b"abcdef")
        received, was_reset = _drain(client)
        assert was_reset
        assert received in (b"abc", b"")  # a reset may overtake what was sent before it


def test_half_close_ends_the_answers_only(proxy: Proxy) -> None:
    """The client reads an end, and may still send."""
    with _connect(proxy) as client:
        assert _asks(client, b"x") == b"x"
        proxy.half_close()
        assert client.recv(10) == b""
        client.sendall(b"still here")
        client.sendall(b"and here")


def test_garble_changes_answers(proxy: Proxy) -> None:
    """The client reads what the weather makes of the answer."""
    proxy.set(Weather(garble=bytes.upper))
    with _connect(proxy) as client:
        assert _asks(client, b"loud") == b"LOUD"


def test_who_knocks_while_it_closes_leaves_no_socket_behind() -> None:
    """Clients that were accepted and not carried yet are hung up on; neither socket nor task outlives the proxy."""
    forgotten: list[object] = []
    with closing(socket.create_server(("127.0.0.1", 0))) as listener, pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "unraisablehook", lambda told: forgotten.append(told.exc_value))
        for _ in range(10):
            with ExitStack() as clients, Proxy(free_port(), listener.getsockname()[1]) as proxy:
                for _ in range(20):
                    clients.enter_context(_connect(proxy))
        gc.collect()
    assert forgotten == []
