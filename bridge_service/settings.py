"""The configuration: every variable, read once, and the only place that reads them.

`VARIABLES` describes each variable; docs/CONFIGURATION.md and .env.example are checked against it.
"""

# A table of our own, not environs or pydantic-settings: their error texts quote the value, which may hold a password.

import importlib
import importlib.util
import inspect
import ipaddress
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from itertools import zip_longest
from typing import Any, Final, Self
from urllib.parse import SplitResult, unquote, unquote_plus, urlsplit

import psycopg2.extensions
import redis

from bridge_service.errors import ConfigurationError, type_of


class _Refused(Exception):
    """Raised when a value is refused; its text is our own and never holds the value."""


# --- How a value is read -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Reader:
    """What a variable accepts.

    Attributes:
      accepts: the same in words, to follow "must be".
      read: turns the text into the value; `_Refused` says why not, any ValueError or LookupError
        means "must be {accepts}".
    """

    accepts: str
    read: Callable[[str], object]


def _number(low: int, high: int, *, low_is_allowed: bool = True) -> Reader:
    def read(text: str) -> float:
        value = float(_digits(text))
        # Written so that NaN, which compares false, is refused.
        if not (low <= value <= high and (low_is_allowed or value > low)):
            raise ValueError
        return value

    return Reader(f"a number {'from' if low_is_allowed else 'above'} {low} to {high}", read)


def _whole(low: int, high: int) -> Reader:
    def read(text: str) -> int:
        value = int(_digits(text))
        if not low <= value <= high:
            raise ValueError
        return value

    return Reader(f"a whole number from {low} to {high}", read)


def _digits(text: str) -> str:
    # Python reads 1_5 as 15 and digits of every script; a person who typed them meant something else.
    if "_" in text or not text.isascii():
        raise ValueError
    return text


def _one_of(accepts: str, words: Mapping[str, object]) -> Reader:
    return Reader(accepts, lambda text: words[text.lower()])


_PORT: Final = _whole(1, 65535)
_TRUE_OR_FALSE: Final = "true or false (or 1, 0, yes, no, on, off)"
_TRUTH: Final = {
    **dict.fromkeys(("true", "1", "yes", "on"), True),
    **dict.fromkeys(("false", "0", "no", "off"), False),
}
_LEVELS: Final = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
_ENCRYPTED_MODES: Final = ("require", "verify-ca", "verify-full")
_SSL_MODES: Final = ("disable", "allow", "prefer", *_ENCRYPTED_MODES)


def _host(text: str) -> str:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        if not re.fullmatch(r"[\w.-]{1,253}", text):
            raise
    return text


def _split_url(text: str, *schemes: str) -> SplitResult:
    """Take a URL apart, or refuse it before a library can quote its password in an error.

    libpq, redis-py and urllib cut a URL with an unescaped `@`, `/`, `?` or `#` at different places and then
    complain about a "host" or a "port" that is part of the password.
    """
    if not text.startswith(tuple(f"{scheme}://" for scheme in schemes)):
        beginnings = " or ".join(f"{scheme}://" for scheme in schemes)
        raise _Refused(f"must begin with {beginnings}, without quotes around it")
    if not text.isprintable() or " " in text:
        raise _Refused("holds a space or an invisible character: take it out, or write a space as %20")
    if re.search(r"%(?!(?!00)[0-9A-Fa-f]{2})", text):
        raise _Refused("holds a % that begins no escape: write % as %25")
    try:
        unquote(text, errors="strict")
    except UnicodeDecodeError:
        raise _Refused(
            "holds an escape that is not UTF-8: write each character as the escapes of its UTF-8 bytes"
        ) from None
    authority, *rest = re.split(r"[/?]", text.partition("://")[2], maxsplit=1)
    if "#" in text or authority.count("@") > 1 or "@" in "".join(rest):
        raise _Refused("holds an @, /, ? or # of the user or the password as it is: write %40, %2F, %3F or %23")
    try:
        parts = urlsplit(text)
    except ValueError:
        raise _Refused(
            "has a host that is not understood: write an IPv6 address in [ ], a [ of the password as %5B"
        ) from None
    if parts.query and not all("=" in pair for pair in parts.query.split("&")):
        # redis-py would silently drop it.
        raise _Refused("has a parameter without a value: after the ? comes NAME=VALUE, several joined by &")
    return parts


def _check_host(host: str) -> None:
    try:
        _host(host)
    except ValueError:
        raise _Refused(
            "has no host, or one that is not understood: after the @ (or the ://) comes HOST or HOST:PORT"
        ) from None


def _check_port(port: str) -> None:
    try:
        _PORT.read(port)
    except ValueError:
        raise _Refused(
            f"has a port that is not {_PORT.accepts}: correct it, or write a / of the password as %2F"
        ) from None


def _database_url(text: str) -> str:
    if text.startswith(("postgresql://", "postgres://")) or "://" in text.partition("=")[0]:
        _split_url(text, "postgresql", "postgres")
    try:
        parts = psycopg2.extensions.parse_dsn(text)
    except (psycopg2.Error, UnicodeError, ValueError):
        raise _Refused(
            "is not understood by libpq: write postgresql://USER:PASSWORD@HOST:5432/NAME,"
            " and after a ? only parameters that libpq knows"
        ) from None
    if not (parts.keys() & {"host", "hostaddr", "service"}):
        raise _Refused("names no host: add one, or ?host=/the/directory of the unix socket")
    # libpq takes several hosts and ports, with commas; an empty one is its default, a path is a unix socket.
    for host in f"{parts.get('host', '')},{parts.get('hostaddr', '')}".split(","):
        if host and not host.startswith("/"):
            _check_host(host)
    for port in filter(None, parts.get("port", "").split(",")):
        _check_port(port)
    if parts.get("sslmode", "prefer") not in _SSL_MODES:
        raise _Refused(f"has an unknown sslmode: write one of {', '.join(_SSL_MODES)}")
    return text


def _redis_url(text: str) -> str:
    if text.startswith("unix://"):
        raise _Refused("cannot be a unix:// socket: let Redis listen on a port and write redis://127.0.0.1:6379/0")
    parts = _split_url(text, "redis", "rediss")
    _check_address(parts)
    if not re.fullmatch(r"/?|/[0-9]+", parts.path):
        # redis-py would silently take database 0.
        raise _Refused("has a path that is no database: after the host comes at most / and the database's number")
    try:
        # Builds the connection, which checks every parameter after the ?, and does not open it.
        redis.ConnectionPool.from_url(text).make_connection()
    except Exception:  # noqa: BLE001 - whatever redis-py says may quote the URL, so none of it may pass
        raise _Refused("has a parameter after the ? that redis-py does not take: correct it or take it out") from None
    return text


def _broker_url(text: str) -> str:
    if text.startswith(("amqp://", "amqps://")):
        raise _Refused("RabbitMQ is not part of this version: use redis:// or rediss://, or leave BROKER_URL unset")
    return _redis_url(text)


def _check_address(parts: SplitResult) -> None:
    _check_host(unquote(parts.hostname or ""))
    try:
        port = parts.port
    except ValueError:
        port = 0
    if port is not None:
        _check_port(str(port))


def _token(text: str) -> str:
    # What every client can send in a header as it is, and too much of it to be guessed.
    if not re.fullmatch(r"[!-~]{16,256}", text):
        raise ValueError
    return text


def _responder(text: str) -> str:
    if text in ("scripted", "echo"):
        return text
    if text == "openai":
        if not _has_openai():
            raise _Refused("openai is not part of this version: use scripted, echo or package.module:callable")
        return text
    if not re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*", text):
        raise ValueError
    path, _, attribute = text.partition(":")
    try:
        found = getattr(importlib.import_module(path), attribute, None)
    except ModuleNotFoundError as error:
        if error.name and not f"{path}.".startswith(f"{error.name}."):
            raise _Refused(f"its module needs {error.name}, which is not installed") from None
        raise _Refused("its module was not found: look at the spelling, and at PYTHONPATH") from None
    except (Exception, SystemExit) as error:  # noqa: BLE001 - a module may raise anything while it is imported
        # Its words may quote whatever the module was configured with, so only the type is told.
        raise _Refused(f"its module raises {type_of(error)}: import it by hand to see why") from None
    if not callable(found) or inspect.iscoroutinefunction(found):
        raise _Refused(
            "what stands behind the colon is no plain function: name one that takes a task and returns a text"
        )
    return text


def _has_openai() -> bool:
    try:
        return importlib.util.find_spec("bridge_service.responders.openai") is not None
    except ModuleNotFoundError:
        return False


# --- The variables -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Variable:
    """One environment variable; its field in `Settings` has the same name in lower case.

    Attributes:
      name: as it stands in the environment.
      default: as one would write it; empty if there is none.
      reader: what it accepts.
      meaning: one sentence, with its unit.
      default_in_test_mode: the default while TEST_MODE is true, where that differs.
      other_name: read where `name` is unset.
      required: True if the service cannot start without it.
    """

    name: str
    default: str
    reader: Reader
    meaning: str
    default_in_test_mode: str = ""
    other_name: str = ""
    required: bool = False

    @property
    def default_text(self) -> str:
        """The default as the documentation says it."""
        if self.required:
            return "required"
        if self.default_in_test_mode:
            return f"{self.default}; {self.default_in_test_mode} in TEST_MODE"
        return self.default or "unset"


VARIABLES: Final = (
    Variable(
        "DATABASE_URL",
        "",
        Reader("a postgresql:// URL or the key=value form of libpq", _database_url),
        "The app's PostgreSQL.",
        other_name="POSTGRES_CONNECTION_STRING",
        required=True,
    ),
    Variable(
        "REDIS_URL",
        "",
        Reader("a redis:// or rediss:// URL", _redis_url),
        "The Redis of queue and context.",
        required=True,
    ),
    Variable(
        "BROKER_URL",
        "",
        Reader("a redis:// or rediss:// URL", _broker_url),
        "What carries the queue; unset: REDIS_URL.",
    ),
    Variable(
        "GROUPING_DELAY",
        "15",
        _number(0, 86400),
        "Seconds from a burst's first message to its push; 0 pushes at once.",
    ),
    # Before the variables whose defaults it decides.
    Variable(
        "TEST_MODE",
        "false",
        _one_of(_TRUE_OR_FALSE, _TRUTH),
        "True: initiations always happen, within a minute of the match.",
    ),
    Variable(
        "INITIATION_DELAY_MIN",
        "120",
        _number(0, 604800),
        "Seconds from a match to the bot's first word, at least.",
        default_in_test_mode="0",
    ),
    Variable(
        "INITIATION_DELAY_MAX",
        "300",
        _number(0, 604800),
        "Seconds from a match to the bot's first word, at most.",
        default_in_test_mode="60",
    ),
    Variable(
        "INITIATION_PROBABILITY",
        "0.5",
        _number(0, 1),
        "Share of the matches in which the bot speaks first.",
        default_in_test_mode="1",
    ),
    Variable("THINKING_DELAY_MIN", "2", _number(0, 86400), "Seconds before typing starts, at least."),
    Variable("THINKING_DELAY_MAX", "15", _number(0, 86400), "Seconds before typing starts, at most."),
    Variable(
        "TYPING_SPEED_CPS", "3.5", _number(0, 1_000_000), "Characters that a bot types in a second; 0 types in no time."
    ),
    Variable(
        "MAX_MERGES",
        "3",
        _whole(0, 100),
        "How often a reply may start anew because a message came in, before it is delivered all the same.",
    ),
    Variable(
        "RESPONDER",
        "scripted",
        Reader("scripted, echo, openai or package.module:callable", _responder),
        "What a bot says.",
    ),
    Variable(
        "RESPONDER_TIMEOUT",
        "180",
        _number(1, 86400),
        "Seconds until a responder that has not returned is taken for hung, and its turn given to another worker.",
    ),
    Variable(
        "REDIS_MAX_ATTEMPTS",
        "3",
        _whole(1, 100),
        "Pushes before `Échec définitif` is logged; the turn stays and is pushed when Redis is back.",
    ),
    Variable(
        "RETENTION_DAYS",
        "30",
        _number(0, 36500, low_is_allowed=False),
        "Days, fractions allowed, after which finished turns and their events are deleted.",
    ),
    Variable(
        "IGNORE_OLDER_DAYS",
        "15",
        _number(0, 36500),
        "Days, fractions allowed: messages and matches whose created_at is older are kept and not answered; 0: never.",
    ),
    Variable(
        "LOG_LEVEL",
        "INFO",
        _one_of("DEBUG, INFO, WARNING, ERROR or CRITICAL", {level.lower(): level for level in _LEVELS}),
        "The least important lines that are logged.",
    ),
    Variable(
        "LOG_FORMAT",
        "text",
        _one_of("text or json", {"text": "text", "json": "json"}),
        "Lines for people, or one JSON object a line.",
    ),
    Variable("HOST", "127.0.0.1", Reader("a host name or an IP address", _host), "Where PORT and HEALTH_PORT listen."),
    Variable("PORT", "8080", _PORT, "The console's port; only the console binds it."),
    Variable(
        "HEALTH_PORT",
        "",
        _PORT,
        "Where scheduler and worker serve /health and /metrics; unset: they do not.",
    ),
    Variable(
        "CONSOLE_TOKEN",
        "",
        Reader("16 to 256 characters of ASCII, none of them a space", _token),
        "The secret that the console's page and every /metrics ask for; unset: they ask for none.",
    ),
    Variable(
        "REQUIRE_TLS",
        "false",
        _one_of(_TRUE_OR_FALSE, _TRUTH),
        "True: a URL that leads to another machine without TLS that is verified is refused.",
    ),
)
"""Every variable, in the order in which they are read and their faults told."""

_MIN_MAX: Final = (("INITIATION_DELAY_MIN", "INITIATION_DELAY_MAX"), ("THINKING_DELAY_MIN", "THINKING_DELAY_MAX"))


# --- The values ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The values of `VARIABLES`, validated; delays in seconds, retention in days."""

    database_url: str = field(repr=False)
    redis_url: str = field(repr=False)
    broker_url: str = field(repr=False)
    grouping_delay: float
    test_mode: bool
    initiation_delay_min: float
    initiation_delay_max: float
    initiation_probability: float
    thinking_delay_min: float
    thinking_delay_max: float
    typing_speed_cps: float
    max_merges: int
    responder: str
    responder_timeout: float
    redis_max_attempts: int
    retention_days: float
    ignore_older_days: float
    log_level: str
    log_format: str
    host: str
    port: int
    health_port: int | None
    console_token: str | None = field(repr=False)
    require_tls: bool

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> Self:
        """Read and validate every variable; an empty or blank one counts as unset.

        Connects to nothing, but imports the responder's module where RESPONDER names one.

        Raises:
          ConfigurationError: with every fault at once, one line each, never a value.
        """
        values: dict[str, Any] = {}
        names: dict[str, str] = {}
        faults: list[str] = []
        for variable in VARIABLES:
            name, text = _look_up(variable, environ, test_mode=values.get("test_mode"))
            names[variable.name] = name
            try:
                values[variable.name.lower()] = _read(variable, text)
            except _Refused as refusal:
                faults.append(f"{name}: {refusal}")
            except (ValueError, LookupError):
                faults.append(f"{name}: must be {variable.reader.accepts}")
        faults.extend(
            f"{low}: above {high} (a default counts where one is unset): lower it or raise {high}"
            for low, high in _MIN_MAX
            if _is_above(values.get(low.lower()), values.get(high.lower()))
        )
        if values.get("require_tls"):
            urls = (values.get(name) for name in ("database_url", "redis_url", "broker_url"))
            faults.extend(f"{names[name]}: {fault}" for name, fault in _without_tls(*urls))
        if faults:
            raise ConfigurationError(*faults)
        values["broker_url"] = values["broker_url"] or values["redis_url"]
        return cls(**values)


def _look_up(variable: Variable, environ: Mapping[str, str], *, test_mode: bool | None) -> tuple[str, str]:
    """Return the name under which the variable is set and its text, or its own name and its default.

    Where TEST_MODE is wrong (None), the defaults that hang on it are not known and left empty.
    """
    for name in (variable.name, variable.other_name):
        if text := environ.get(name, "").strip():
            return name, text
    if variable.default_in_test_mode and test_mode is not False:
        return variable.name, variable.default_in_test_mode if test_mode else ""
    return variable.name, variable.default


def _read(variable: Variable, text: str) -> object:
    if text:
        return variable.reader.read(text)
    if variable.required:
        raise _Refused(f"not set: it must be {variable.reader.accepts}")
    return None


def _is_above(low: float | None, high: float | None) -> bool:
    return low is not None and high is not None and low > high


POLICY: Final = (
    "GROUPING_DELAY",
    "INITIATION_DELAY_MIN",
    "INITIATION_DELAY_MAX",
    "INITIATION_PROBABILITY",
    "THINKING_DELAY_MIN",
    "THINKING_DELAY_MAX",
    "TYPING_SPEED_CPS",
    "MAX_MERGES",
    "IGNORE_OLDER_DAYS",
)
"""The variables that bridge.bots holds; the rest is no policy."""


def policy(settings: Settings, environ: Mapping[str, str]) -> dict[str, float]:
    """Return what the environment sets of the policy, by column of bridge.bots; TEST_MODE sets what it changes."""
    return {
        variable.name.lower(): getattr(settings, variable.name.lower())
        for variable in VARIABLES
        if variable.name in POLICY
        and (environ.get(variable.name, "").strip() or (settings.test_mode and variable.default_in_test_mode))
    }


def summary(settings: Settings) -> dict[str, str]:
    """Return what is not secret and set, by variable name: numbers as %g, booleans as true or false."""
    tunables = {each.name.upper(): getattr(settings, each.name) for each in fields(settings) if each.repr}
    return {name: _as_text(value) for name, value in tunables.items() if value is not None}


def _as_text(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


def secrets(settings: Settings) -> tuple[str, ...]:
    """Return the token and the passwords of all URLs, decoded and as written, longest first, for the log's filter."""
    found = {settings.console_token or "", *_dsn_passwords(settings.database_url)}
    for url in (settings.database_url, settings.redis_url, settings.broker_url):
        found.update(_url_passwords(url))
    return tuple(sorted(found - {""}, key=lambda secret: (-len(secret), secret)))


def plaintext(settings: Settings) -> tuple[str, ...]:
    """Return the variables whose connection leaves this machine and is not, or need not be, encrypted.

    Goes by the URLs alone and looks no name up: a private network counts as leaving, too.
    """
    found = []
    dsn = psycopg2.extensions.parse_dsn(settings.database_url)
    # libpq takes no sslrootcert=system without verifying.
    mode = dsn.get("sslmode", "verify-full" if dsn.get("sslrootcert") == "system" else "prefer")
    if mode not in _ENCRYPTED_MODES and not all(map(_is_here, _dsn_hosts(dsn))):
        found.append("DATABASE_URL")
    for name, url in _redis_urls(settings.redis_url, settings.broker_url):
        parts = urlsplit(url)
        if parts.scheme == "redis" and not _is_here(unquote(parts.hostname or "")):
            found.append(name)
    return tuple(found)


def verifies(redis_url: str) -> bool:
    """Tell whether the Redis of this URL has to prove by TLS who it is."""
    # Asks redis-py, which knows many ways to write a parameter; False there also where certificates go unverified.
    return bool(getattr(redis.ConnectionPool.from_url(redis_url).make_connection(), "check_hostname", False))


def is_open(settings: Settings) -> bool:
    """Tell whether what listens on HOST shows itself to other machines without asking for a token."""
    return settings.console_token is None and not _is_here(settings.host)


def _without_tls(database_url: str | None, redis_url: str | None, broker_url: str | None) -> Iterator[tuple[str, str]]:
    """Yield the variables that REQUIRE_TLS refuses, and what to write there. None for a URL that is not known."""
    leads = "leads to another machine without TLS that is verified, which REQUIRE_TLS refuses:"
    if database_url is not None:
        dsn = psycopg2.extensions.parse_dsn(database_url)
        # Where a service of pg_service.conf leads is not known; what it says of sslmode yields to the URL.
        here = "service" not in dsn and all(map(_is_here, _dsn_hosts(dsn)))
        if dsn.get("sslmode") != "verify-full" and not here:
            yield "DATABASE_URL", f"{leads} add sslmode=verify-full and sslrootcert=/path/to/its/authorities.pem"
    for name, url in _redis_urls(redis_url, broker_url):
        if not verifies(url) and not _is_here(unquote(urlsplit(url).hostname or "")):
            yield name, f"{leads} write rediss://, without ssl_cert_reqs and ssl_check_hostname"


def _redis_urls(redis_url: str | None, broker_url: str | None) -> Iterator[tuple[str, str]]:
    """Yield what is known of BROKER_URL and REDIS_URL, and only the latter where they are the same."""
    if broker_url is not None and broker_url != redis_url:
        yield "BROKER_URL", broker_url
    if redis_url is not None:
        yield "REDIS_URL", redis_url


def _dsn_hosts(dsn: Mapping[str, str]) -> Iterator[str]:
    """Yield where libpq connects to: of each pair the hostaddr, where there is one."""
    hosts, addresses = (dsn.get(key, "").split(",") for key in ("host", "hostaddr"))
    for host, address in zip_longest(hosts, addresses, fillvalue=""):
        yield address or host


def _is_here(host: str) -> bool:
    if not host or host.startswith("/") or host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _url_passwords(url: str) -> Iterator[str]:
    parts = urlsplit(url)
    yield parts.password or ""
    yield unquote(parts.password or "")
    for pair in parts.query.split("&"):
        key, _, value = pair.partition("=")
        if key.endswith("password"):  # password, sslpassword, ssl_password
            # redis-py reads a + as a space, libpq does not.
            yield from (value, unquote(value), unquote_plus(value))


def _dsn_passwords(dsn: str) -> Iterator[str]:
    parts = psycopg2.extensions.parse_dsn(dsn)
    for key in ("password", "sslpassword"):
        password = parts.get(key, "")
        yield password
        yield password.replace("\\", "\\\\").replace("'", "\\'")
