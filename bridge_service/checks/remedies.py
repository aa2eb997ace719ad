"""What to do about a PostgreSQL or a Redis that cannot be reached. No remedy gives TLS up without saying so."""

import re
import ssl
from collections.abc import Iterator
from typing import Final
from urllib.parse import urlsplit

import redis

# OpenSSL's verify_code. The other codes mean that the authority is unknown or did not sign.
_WRONG_NAME: Final = {62, 64}
_WRONG_TIME: Final = {9, 10}

_NOT_VERIFIED: Final = "encrypts without verifying: anyone in between can read and answer (REQUIRE_TLS refuses it)"

_VERIFY: Final = (
    "sslrootcert=/path/to/the/authority.pem, which the provider gives (for a public authority:"
    f" /etc/ssl/certs/ca-certificates.crt); sslmode=require {_NOT_VERIFIED}"
)

_POSTGRESQL: Final = {
    r"does not match host name": "the certificate is for another name: write the host that it names (and"
    " hostaddr=ITS_ADDRESS, if that name leads elsewhere); sslmode=verify-ca takes any certificate of that authority",
    r"certificate verify failed": "the certificate has expired, or is of another authority than sslrootcert names:"
    f" write {_VERIFY}",
    r"root certificate": f"write {_VERIFY}",
    r"server does not support SSL": "what answers there has no TLS: is it the right host and port? switch TLS on there"
    " (ssl = on); within a private network only, sslmode=disable goes without: all of it then travels in plaintext",
    r"client certificate|certificate required": "this PostgreSQL wants a client's certificate: add sslcert=/path and"
    " sslkey=/path",
    r"pg_hba\.conf(?!.*, SSL encryption).*, no encryption": "this PostgreSQL lets this role in with TLS alone: write"
    f" sslmode=verify-full and {_VERIFY}",
    r"pg_hba\.conf": "let this machine, role and database through: in PostgreSQL's pg_hba.conf, or in the provider's"
    " list of addresses",
    r"password authentication failed|no password supplied": "correct its user and its password",
}
"""Patterns of libpq's words, and what to do; the first match counts."""


def postgresql_remedy(error: BaseException) -> str:
    """Say what to do about a connection that PostgreSQL or libpq refused."""
    # libpq has a line for each address, and the TLS error may stand in the second. `translate` keeps one line.
    words = " ".join(f"{error} {error.__context__ or ''}".split())
    for pattern, remedy in _POSTGRESQL.items():
        if re.search(pattern, words):
            return f"DATABASE_URL: {remedy}"
    return "DATABASE_URL: correct it, or start PostgreSQL and let this machine through"


def redis_remedy(error: Exception, url: str) -> str:
    """Say what to do about a Redis that does not answer."""
    parts = urlsplit(url)
    if isinstance(error, redis.AuthenticationError):
        if parts.password is None:
            return "this Redis wants a password: write redis(s)://default:PASSWORD@HOST"
        return "correct its user and its password (a user of ACL SETUSER is gone after a restart unless ACL SAVE ran)"
    if isinstance(error, redis.ResponseError):
        return _refusal_remedy(error)
    if remedy := _tls_remedy(error, "&" if parts.query else "?"):
        return remedy
    if isinstance(error, redis.TimeoutError) or "refused" not in str(error):
        other = "redis" if parts.scheme == "rediss" else "rediss"
        return f"correct it (is it {other}:// that this Redis speaks?), or start Redis and let this machine through"
    return "correct its host and port, or start Redis and let this machine through"


def _refusal_remedy(error: redis.ResponseError) -> str:
    if "SELECT" in str(error) or "DB index" in str(error):
        return "correct its database's number (a cluster has number 0 alone): end the URL in /0"
    return "it answers, and refuses for the reason it gives: a right of its user, its database's number, its plan"


def _tls_remedy(error: Exception, joint: str) -> str:
    """Say what to do about an error of TLS; '' if it is another error, or if the server speaks no TLS."""
    for cause in _causes(error):
        if isinstance(cause, ssl.SSLCertVerificationError):
            return _certificate_remedy(cause.verify_code, joint)
        reason = str(getattr(cause, "reason", ""))
        if isinstance(cause, FileNotFoundError | PermissionError) or reason.startswith("NO_CERTIFICATE"):
            return "ssl_ca_certs, ssl_certfile or ssl_keyfile names a file that is missing or holds no PEM: correct it"
        if "CERTIFICATE_REQUIRED" in reason:
            return f"this Redis wants a client's certificate: add {joint}ssl_certfile=/path&ssl_keyfile=/path"
    return ""


def _certificate_remedy(code: int, joint: str) -> str:
    unverified = f"{joint}ssl_cert_reqs=none {_NOT_VERIFIED}"
    if code in _WRONG_NAME:
        return (
            "its certificate is for another name: write the host that it names;"
            f" {joint}ssl_check_hostname=false takes any certificate of a known authority, and {unverified}"
        )
    if code in _WRONG_TIME:
        return (
            "its certificate has expired or is not valid yet: renew it, or set this machine's clock;"
            f" until then {unverified}"
        )
    return (
        "this machine does not know the authority of its certificate: add"
        f" {joint}ssl_ca_certs=/path/to/the/authority.pem, if the provider gives it (a self-signed certificate is its"
        f" own authority); else, as for Heroku's, {unverified}"
    )


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and its causes."""
    seen: list[BaseException] = []
    while error is not None and error not in seen:
        seen.append(error)
        yield error
        error = error.__cause__ or error.__context__
