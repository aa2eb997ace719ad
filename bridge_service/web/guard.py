"""Who may see the console's page and the numbers of all processes: everybody, or whoever brings CONSOLE_TOKEN.

One rule for both HTTP servers. What is not open is closed, so that a path that is added one day is closed, too.
"""

import base64
import binascii
import hmac
from typing import Final

OPEN: Final = "/health/"
"""What lies below answers in fixed words, and platforms probe it without credentials."""

CHALLENGE: Final = 'Basic realm="bridge"'
"""The WWW-Authenticate of a refusal: makes a browser ask by itself."""

REFUSAL: Final = "unauthorized\n"


def admits(token: str | None, path: str, authorization: bytes) -> bool:
    """Tell whether a request is to be answered.

    Parameters:
      token: CONSOLE_TOKEN, which is ASCII; None admits everybody.
      path: without its query, as the server looks it up.
      authorization: the header of that name as it was sent, empty if there is none: `Bearer` and the token, or `Basic`
        with the token as the password of any user.
    """
    if token is None or path.startswith(OPEN):
        return True
    # Takes as long for a token whose first characters are right as for any other.
    return hmac.compare_digest(_brought(authorization), token.encode())


def _brought(authorization: bytes) -> bytes:
    scheme, _, credentials = authorization.strip(b" \t").partition(b" ")
    credentials = credentials.lstrip(b" ")
    match scheme.lower():
        case b"bearer":
            return credentials
        case b"basic":
            try:
                return base64.b64decode(credentials, validate=True).partition(b":")[2]
            except binascii.Error:
                return b""
    return b""
