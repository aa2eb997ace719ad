"""A port to listen on that no outgoing connection will be given."""

from __future__ import annotations

import secrets
import socket

# Below the range that systems give out for outgoing connections, as in bridge_service/demo/servers.py.
FIRST, LAST = 20000, 32000


def free_port() -> int:
    """Return a port of 127.0.0.1 that nobody listens on just now."""
    while True:
        port = FIRST + secrets.randbelow(LAST - FIRST)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port
