"""The results of looks, and what the looks at PostgreSQL and at Redis share."""

import ipaddress
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, NamedTuple

from bridge_service.errors import BridgeError, type_of
from bridge_service.telemetry.logs import place_of

TIMEOUT_SECONDS: Final = 3.0

_PUBLIC: Final = "a public address"


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of the look `name`; see Found."""

    name: str
    ok: bool
    detail: str
    remedy: str = ""


class Found(NamedTuple):
    """What a look returns.

    Attributes:
      detail: what was found, without a secret.
      remedy: what to do, naming the variable or the command; '' if there is nothing to do. Beside `ok` it is advice.
    """

    ok: bool
    detail: str
    remedy: str = ""


def well(detail: str, advice: str = "") -> Found:
    """Return that all is well, or works and is unwise."""
    return Found(ok=True, detail=detail, remedy=advice)


def wrong(detail: str, remedy: str) -> Found:
    """Return that something is wrong."""
    return Found(ok=False, detail=detail, remedy=remedy)


def judge(detail: str, remedy: str, *, ok: bool) -> Found:
    """Return one of the two; the remedy counts only if it is wrong."""
    return well(detail) if ok else wrong(detail, remedy)


def attempt(
    name: str,
    look: Callable[[], Found],
    remedy: str,
    describe: Callable[[BaseException], str],
    expected: tuple[type[Exception], ...] = (BridgeError,),
) -> Finding:
    """Look. An error that the look raises becomes its finding, so that the other looks follow.

    Parameters:
      remedy: what to do if it raises.
      describe: says what went wrong, without a secret.
      expected: the errors that `describe` knows. Of another error the finding has only type and place.
    """
    try:
        return Finding(name, *look())
    except expected as error:
        detail = describe(error)
    except Exception as error:  # noqa: BLE001 - a half restored schema can raise anything
        # Its words may quote a row.
        detail = f"could not be looked at: {type_of(error)} at {place_of(error.__traceback__)}"
    return Finding(name, ok=False, detail=detail, remedy=remedy)


def encryption(host: str, *, encrypted: bool, verified: bool, remedy: str) -> Found:
    """Judge a connection. Plaintext to a public address is wrong, the rest is at most unwise.

    Parameters:
      host: that it leads to; a path is a unix socket.
      verified: whether the server has to prove its identity.
    """
    if encrypted and verified:
        return well("encrypted, and the server is verified")
    if encrypted:
        return well("encrypted, but the server is not verified", remedy)
    if host.startswith("/"):
        return well("a unix socket")
    place = _place(host)
    return Found(place != _PUBLIC, f"not encrypted, to {place}", remedy)


def _place(host: str) -> str:
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError:
        return _PUBLIC
    addresses = [ipaddress.ip_address(str(address[0]).partition("%")[0]) for *_, address in found]
    if all(address.is_loopback for address in addresses):
        return "this machine"
    # Platforms and VPNs use the carriers' shared range (100.64/10) as a private network.
    if all(address.is_private or not address.is_global for address in addresses):
        return "a private network"
    return _PUBLIC
