"""What a look finds, and what the looks at PostgreSQL and at Redis share."""

import ipaddress
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from bridge_service.errors import BridgeError, type_of
from bridge_service.telemetry.logs import place_of

TIMEOUT_SECONDS: Final = 3.0


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one look.

    Attributes:
      detail: what was found, without a secret.
      remedy: what to do, naming the variable or the command; '' if there is nothing to do. One beside `ok` is advice.
    """

    name: str
    ok: bool
    detail: str
    remedy: str = ""


def attempt(
    name: str,
    look: Callable[[], Finding],
    remedy: str,
    describe: Callable[[BaseException], str],
    expected: tuple[type[Exception], ...] = (BridgeError,),
) -> Finding:
    """Look; whatever the look raises is its finding, so that the other looks go on.

    Parameters:
      remedy: what to do if it raises.
      describe: says what went wrong, without a secret.
      expected: the errors that `describe` knows; of every other one only type and place are told.
    """
    try:
        return look()
    except expected as error:
        detail = describe(error)
    except Exception as error:  # noqa: BLE001 - a half restored schema makes Python stumble in many ways
        # Its words may quote a row.
        detail = f"could not be looked at: {type_of(error)} at {place_of(error.__traceback__)}"
    return Finding(name, ok=False, detail=detail, remedy=remedy)


def encryption(name: str, host: str, *, encrypted: bool, verified: bool, remedy: str) -> Finding:
    """Judge a connection: what leaves the private network unencrypted is not well, the rest is at most unwise.

    Parameters:
      host: that it leads to; a path is a unix socket.
      verified: whether the other side has to prove who it is.
    """
    place = _place(host)
    if encrypted and verified:
        return Finding(name, ok=True, detail="encrypted, and the server is verified")
    if encrypted:
        return Finding(name, ok=True, detail="encrypted, but the server is not verified", remedy=remedy)
    if place == "socket":
        return Finding(name, ok=True, detail="a unix socket")
    detail = f"not encrypted, to {place}"
    return Finding(name, ok=place != "a public address", detail=detail, remedy=remedy)


def _place(host: str) -> str:
    if host.startswith("/"):
        return "socket"
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError:
        return "a public address"
    addresses = [ipaddress.ip_address(str(address[0]).partition("%")[0]) for *_, address in found]
    if all(address.is_loopback for address in addresses):
        return "this machine"
    # Carriers' shared range (100.64/10) serves platforms and VPNs as a private network.
    if all(address.is_private or not address.is_global for address in addresses):
        return "a private network"
    return "a public address"
