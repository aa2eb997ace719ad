"""What the environment may say, and that no fault ever repeats a value."""

import pickle
import string
import traceback

import pytest

from bridge_service.errors import EX_CONFIG, ConfigurationError
from bridge_service.settings import Settings, plaintext, secrets, summary
from bridge_service.settings.pages import VARIABLES, Variable

CANARY = "kanarienvogel"
REQUIRED = {"DATABASE_URL": "postgresql://bridge@localhost/app", "REDIS_URL": "redis://localhost:6379/0"}


def read(**environ: str) -> Settings:
    """Read the settings of an environment that sets `environ` beside the required variables."""
    return Settings.from_environ({**REQUIRED, **environ})


def faults(**environ: str) -> tuple[str, ...]:
    """Return the faults of an environment that sets `environ` beside the required variables."""
    with pytest.raises(ConfigurationError) as caught:
        read(**environ)
    return caught.value.faults


# --- Defaults ------------------------------------------------------------------------------------


def test_defaults() -> None:
    """With the required variables only, every setting has the default of the contract."""
    assert read() == Settings(
        database_url="postgresql://bridge@localhost/app",
        redis_url="redis://localhost:6379/0",
        broker_url="redis://localhost:6379/0",
        grouping_delay=15,
        test_mode=False,
        grouping_max=60,
        grouping_mode="fixed",
        initiation_delay_min=120,
        initiation_delay_max=300,
        initiation_probability=0.5,
        thinking_delay_min=2,
        thinking_delay_max=15,
        typing_speed_cps=3.5,
        max_merges=3,
        second_message="merge",
        reply_parts=1,
        part_pause_min=1.5,
        part_pause_max=3,
        bot_typing=True,
        takeover_pause=3600,
        quiet_hours=None,
        quiet_hours_weekend=None,
        quiet_spread=300,
        disclosure=None,
        follow_up_after=None,
        limit_replies_hour=None,
        timezone="Europe/Paris",
        responder="scripted",
        responder_timeout=180,
        max_composing=200,
        openai_model=None,
        openai_fallback_model=None,
        openai_temperature=None,
        openai_max_tokens=400,
        openai_history_tokens=4000,
        openai_price_input=0,
        openai_price_output=0,
        limit_calls_person_day=None,
        limit_tokens_bot_day=None,
        openai_base_url=None,
        openai_api_key=None,
        openai_timeout=60,
        redis_max_attempts=3,
        retention_days=30,
        ignore_older_days=15,
        log_level="INFO",
        log_format="text",
        host="127.0.0.1",
        port=8080,
        health_port=None,
        console_token=None,
        require_tls=False,
    )


def test_defaults_in_test_mode() -> None:
    """TEST_MODE changes the defaults of the three initiation variables and nothing else."""
    plain, testing = read(), read(TEST_MODE="true")
    changed = {name for name in Settings.__dataclass_fields__ if getattr(plain, name) != getattr(testing, name)}

    assert changed == {"test_mode", "initiation_delay_min", "initiation_delay_max", "initiation_probability"}
    assert (testing.initiation_delay_min, testing.initiation_delay_max, testing.initiation_probability) == (0, 60, 1)


def test_an_explicit_value_wins_over_test_mode() -> None:
    """What is set explicitly holds in TEST_MODE too."""
    settings = read(TEST_MODE="1", INITIATION_DELAY_MIN="1.5", INITIATION_DELAY_MAX="2", INITIATION_PROBABILITY="0.25")

    assert (settings.initiation_delay_min, settings.initiation_delay_max) == (1.5, 2)
    assert settings.initiation_probability == 0.25


@pytest.mark.parametrize("blank", ["", " ", "\t\n"])
def test_blank_counts_as_unset(blank: str) -> None:
    """An empty or blank variable is an unset one, whichever it is."""
    optional = {variable.name: blank for variable in VARIABLES if not variable.required}

    assert read(**optional, POSTGRES_CONNECTION_STRING=blank) == read()
    assert [fault.partition(":")[0] for fault in faults(DATABASE_URL=blank, REDIS_URL=blank)] == list(REQUIRED)


def test_every_variable_has_its_field() -> None:
    """The pages' variables and the fields are the same things in the same order."""
    assert [variable.name.lower() for variable in VARIABLES] == list(Settings.__dataclass_fields__)


def test_the_old_name_of_database_url() -> None:
    """POSTGRES_CONNECTION_STRING stands in for DATABASE_URL, which wins where both are set."""
    old = "postgresql://bridge@old/app"

    assert read(DATABASE_URL="", POSTGRES_CONNECTION_STRING=old).database_url == old
    assert read(POSTGRES_CONNECTION_STRING=old).database_url == REQUIRED["DATABASE_URL"]
    assert read(POSTGRES_CONNECTION_STRING="wrong").database_url == REQUIRED["DATABASE_URL"]
    (fault,) = faults(DATABASE_URL="", POSTGRES_CONNECTION_STRING="wrong")
    assert fault.startswith("POSTGRES_CONNECTION_STRING: ")


# --- Bounds --------------------------------------------------------------------------------------

BOUNDS = [
    ("GROUPING_DELAY", ["0", "0.25", "86400"], ["-0.1", "86400.1"]),
    ("INITIATION_DELAY_MIN", ["0", "300"], ["-1", "604801"]),
    ("INITIATION_DELAY_MAX", ["120", "604800"], ["-1", "604801"]),
    ("INITIATION_PROBABILITY", ["0", "0.5", "1", "1e-3"], ["-0.01", "1.01", "50%"]),
    ("THINKING_DELAY_MIN", ["0", "15"], ["-1", "86401"]),
    ("THINKING_DELAY_MAX", ["2", "86400"], ["-1", "86401"]),
    ("TYPING_SPEED_CPS", ["0", "1000000"], ["-1", "1000001"]),
    ("MAX_MERGES", ["0", "100"], ["-1", "101", "1.5"]),
    ("RESPONDER_TIMEOUT", ["1", "2.5", "86400"], ["0", "0.9", "86401", "nan"]),
    ("MAX_COMPOSING", ["1", "10000"], ["0", "10001", "1.5"]),
    ("OPENAI_TEMPERATURE", ["0", "0.7", "2"], ["-0.1", "2.1", "nan"]),
    ("OPENAI_MAX_TOKENS", ["1", "100000"], ["0", "100001", "1.5"]),
    ("OPENAI_HISTORY_TOKENS", ["0", "1000000"], ["-1", "1000001", "1.5"]),
    ("OPENAI_TIMEOUT", ["0.5", "60", "86400"], ["0", "-1", "86401"]),
    ("REDIS_MAX_ATTEMPTS", ["1", "100"], ["0", "101", "1.5"]),
    ("RETENTION_DAYS", ["0.001", "7", "36500"], ["0", "-1", "36501"]),
    ("IGNORE_OLDER_DAYS", ["0", "0.01", "15", "36500"], ["-1", "36501", "never"]),
    ("PORT", ["1", "65535"], ["0", "65536", "80.0"]),
    ("HEALTH_PORT", ["1", "65535"], ["0", "65536", "80.0"]),
]
NO_NUMBERS = ["x", "nan", "inf", "-inf", "1_0", "1,5", "0x10", "١٥", "15s", "1 5"]


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, good, _ in BOUNDS for value in good])
def test_within_bounds(name: str, value: str) -> None:
    """A number on or within its bounds is taken as it is."""
    assert getattr(read(**{name: value}), name.lower()) == float(value)


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, _, bad in BOUNDS for value in [*bad, *NO_NUMBERS]])
def test_out_of_bounds(name: str, value: str) -> None:
    """A number beyond its bounds, or what is no finite number, is one fault that tells the bounds."""
    (fault,) = faults(**{name: value})

    assert fault.startswith(f"{name}: must be a")
    assert "number" in fault


@pytest.mark.parametrize(
    "environ",
    [
        {"INITIATION_DELAY_MIN": "20", "INITIATION_DELAY_MAX": "10"},
        {"INITIATION_DELAY_MIN": "301"},
        {"INITIATION_DELAY_MAX": "119"},
        {"INITIATION_DELAY_MIN": "61", "TEST_MODE": "true"},
        {"THINKING_DELAY_MIN": "16"},
        {"THINKING_DELAY_MAX": "1"},
    ],
)
def test_a_minimum_above_its_maximum(environ: dict[str, str]) -> None:
    """A minimum above its maximum is one fault that names both, even if one of them is a default."""
    (fault,) = faults(**environ)

    pair = "INITIATION" if "INITIATION" in "".join(environ) else "THINKING"
    assert fault.startswith(f"{pair}_DELAY_MIN: ")
    assert f"{pair}_DELAY_MAX" in fault


def test_a_wrong_test_mode_is_the_only_fault() -> None:
    """While TEST_MODE is wrong, no fault rests on a default that it would have decided."""
    (fault,) = faults(TEST_MODE="maybe", INITIATION_DELAY_MAX="30")

    assert fault.startswith("TEST_MODE: ")


# --- Words ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"),
    [(text, True) for text in ("true", "TRUE", "1", "yes", "On", " true ")]
    + [(text, False) for text in ("false", "False", "0", "no", "OFF")],
)
def test_booleans(text: str, value: bool) -> None:  # noqa: FBT001 - the value under test
    """TEST_MODE takes the usual words, in any case."""
    assert read(TEST_MODE=text).test_mode is value


def test_log_words_in_any_case() -> None:
    """LOG_LEVEL and LOG_FORMAT are taken in any case and kept in one."""
    settings = read(LOG_LEVEL="warning", LOG_FORMAT="JSON")

    assert (settings.log_level, settings.log_format) == ("WARNING", "json")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("TEST_MODE", "2"),
        ("TEST_MODE", "oui"),
        ("LOG_LEVEL", "TRACE"),
        ("LOG_LEVEL", "20"),
        ("LOG_FORMAT", "xml"),
        ("HOST", "http://localhost"),
        ("HOST", "127.0.0.1:8080"),
        ("HOST", "local host"),
    ],
)
def test_words_that_are_refused(name: str, value: str) -> None:
    """A word that is not in the list is one fault naming its variable."""
    (fault,) = faults(**{name: value})

    assert fault.startswith(f"{name}: must be ")


@pytest.mark.parametrize("host", ["localhost", "0.0.0.0", "::", "fe80::1%eth0", "my_host.internal"])  # noqa: S104
def test_hosts(host: str) -> None:
    """HOST takes names and addresses of both families."""
    assert read(HOST=host).host == host


@pytest.mark.parametrize("token", [CANARY.ljust(16, "!"), string.punctuation, "x" * 256, " 0123456789abcdef\n"])
def test_tokens(token: str) -> None:
    """CONSOLE_TOKEN takes every character that a header carries as it is; a file's last line break is cut off."""
    assert read(CONSOLE_TOKEN=token).console_token == token.strip()


@pytest.mark.parametrize(
    "token",
    [
        CANARY,
        f"{CANARY}15",
        CANARY.ljust(257, "x"),
        f"{CANARY} {CANARY}",
        f"{CANARY}\t{CANARY}",
        f"{CANARY}\n{CANARY}",
        f"{CANARY}-é-{CANARY}",
        f"{CANARY}\u202e{CANARY}",
    ],
)
def test_tokens_that_are_refused(token: str) -> None:
    """One that is short, or that a client could not send as it is, is one fault that does not repeat it."""
    (fault,) = faults(CONSOLE_TOKEN=token)

    assert fault == "CONSOLE_TOKEN: must be 16 to 256 characters of ASCII, none of them a space"


# --- Responder -----------------------------------------------------------------------------------


@pytest.mark.parametrize("responder", ["scripted", "echo", "shop.bots:say", "no_such_module_here:reply"])
def test_responders(responder: str) -> None:
    """The built-in names and whatever has the form of a module's function are taken; no module is looked for."""
    assert read(RESPONDER=responder).responder == responder


@pytest.mark.parametrize(
    "responder",
    [
        "parrot",
        "Echo",
        "string",
        "string:",
        ":capwords",
        ".string:capwords",
        "string capwords",
        "string:capwords:again",
        "string:Template.substitute",
        "2bots:say",
        "string-like:capwords",
    ],
)
def test_what_is_no_responders_name(responder: str) -> None:
    """What has not the form of a responder's name is one fault that says the form."""
    assert faults(RESPONDER=responder) == ("RESPONDER: must be scripted, echo, openai or package.module:callable",)


# --- RESPONDER=openai ----------------------------------------------------------------------------

MODEL = {"RESPONDER": "openai", "OPENAI_MODEL": "llama3.2:3b"}


@pytest.mark.parametrize(
    "name", ["gpt-5-mini", "llama3.2:3b", "openai/gpt-5", "@cf/meta/llama-3", "/models/a.gguf", "a" * 200]
)
def test_a_models_name(name: str) -> None:
    """Names as the usual servers spell them are taken, for both models."""
    settings = read(**MODEL | {"OPENAI_MODEL": name, "OPENAI_FALLBACK_MODEL": name})

    assert settings.openai_model == settings.openai_fallback_model == name


@pytest.mark.parametrize("name", ["two words", '"gpt-5"', "{}", "modèle", "a" * 201, "-x", "a\nb"])
def test_what_is_no_models_name(name: str) -> None:
    """A name with spaces, quotes or the like is a slip."""
    assert faults(**MODEL | {"OPENAI_MODEL": name})[0].startswith("OPENAI_MODEL: must be a model's name")


def test_the_model_is_required_with_openai_alone() -> None:
    """What runs with RESPONDER=openai needs the model; a command that uses PostgreSQL alone does not ask for it."""
    assert faults(RESPONDER="openai")[0].startswith("OPENAI_MODEL: not set: it must be a model's name")
    assert faults(RESPONDER="openai", OPENAI_MODEL=" ")[0].startswith("OPENAI_MODEL: not set")
    assert read(**MODEL).openai_model == MODEL["OPENAI_MODEL"]
    only = {"DATABASE_URL": REQUIRED["DATABASE_URL"], "RESPONDER": "openai"}
    assert Settings.from_environ(only, needs=("database_url",)).openai_model is None


def test_a_request_ends_before_its_responder() -> None:
    """OPENAI_TIMEOUT lies below RESPONDER_TIMEOUT where the model is asked, by default as well."""
    assert read(RESPONDER_TIMEOUT="60").openai_timeout == 60
    (fault,) = faults(**MODEL, RESPONDER_TIMEOUT="60")
    assert fault.startswith("OPENAI_TIMEOUT: not below RESPONDER_TIMEOUT")
    assert read(**MODEL, RESPONDER_TIMEOUT="60", OPENAI_TIMEOUT="59").openai_timeout == 59


@pytest.mark.parametrize(
    "url",
    [
        "https://openrouter.ai/api/v1",
        "https://192.0.2.1:8443/v1",
        "http://localhost:11434/v1",
        "http://127.0.0.1:11434/v1",
        "http://127.8.0.1/v1",
        "http://[::1]:8080/v1",
        "http://10.1.2.3/v1",
        "http://172.31.0.1/v1",
        "http://192.168.1.9:8000",
        "http://[fd00::1]:8000/v1",
    ],
)
def test_where_a_model_may_be(url: str) -> None:
    """Anywhere with TLS; without it on this machine and in private networks."""
    assert read(OPENAI_BASE_URL=url).openai_base_url == url


@pytest.mark.parametrize(
    "url",
    [
        "http://api.openai.com/v1",
        "http://ollama:11434/v1",
        "http://8.8.8.8/v1",
        "http://172.32.0.1/v1",
        "http://169.254.169.254/v1",
        "http://0.0.0.0/v1",
        "http://[::ffff:8.8.8.8]/v1",
        "http://[2001:db8::1]/v1",
        "http://2130706433/v1",
        "http://localhost.example.com/v1",
        "http://127.0.0.1.example.com/v1",
    ],
)
def test_plaintext_through_a_public_network_is_refused(url: str) -> None:
    """What people write does not travel readable through a network that others share; where a name leads may change."""
    (fault,) = faults(OPENAI_BASE_URL=url)

    assert fault.startswith("OPENAI_BASE_URL: leads through a public network: write https://")


@pytest.mark.parametrize(
    "url",
    [
        f"https://user:{CANARY}@example.com/v1",
        f"https://{CANARY}@example.com/v1",
        f"https://example.com/v1?key={CANARY}",
        f"https://example.com/v1#{CANARY}",
        f"https://example.com:{CANARY}/v1",
        f"ftp://{CANARY}/v1",
        f"https:///{CANARY}",
        f"https://exa mple/{CANARY}",
        CANARY,
    ],
)
def test_what_is_no_address_of_a_model(url: str) -> None:
    """A URL with a key in it, or one that is none, is one fault that does not repeat it."""
    (fault,) = faults(OPENAI_BASE_URL=url)

    assert fault.startswith("OPENAI_BASE_URL: ")
    assert CANARY not in fault


@pytest.mark.parametrize("key", ["sk-proj-Ab_1.~+/=", "ollama", "id:secret"])
def test_the_key_is_a_secret(key: str) -> None:
    """The log's filter learns the key; repr and summary have neither key nor address."""
    settings = read(OPENAI_API_KEY=key, OPENAI_BASE_URL="https://models.example.com/v1")

    assert secrets(settings) == (key,)
    shown = repr(settings) + str(summary(settings))
    assert key not in shown
    assert "models.example.com" not in shown


@pytest.mark.parametrize("key", ["a b", "clé", "a\nb", '"sk-1"', "a" * 1001])
def test_what_is_no_key(key: str) -> None:
    """What no header can carry is one fault without the value."""
    (fault,) = faults(OPENAI_API_KEY=key)

    assert fault.startswith("OPENAI_API_KEY: must be a key")
    assert key not in fault


# --- Several faults ------------------------------------------------------------------------------


def test_all_faults_at_once() -> None:
    """Every wrong variable is named, once, in one error of one line each."""
    wrong = {variable.name: "{}" if variable.name != "DISCLOSURE" else "d" * 2001 for variable in VARIABLES}

    with pytest.raises(ConfigurationError) as caught:
        Settings.from_environ(wrong)

    assert [fault.partition(":")[0] for fault in caught.value.faults] == list(wrong)
    assert str(caught.value).splitlines() == list(caught.value.faults)


def test_nothing_set() -> None:
    """An empty environment is told what is required, and nothing else."""
    with pytest.raises(ConfigurationError) as caught:
        Settings.from_environ({})

    assert [fault.partition(": ")[0] for fault in caught.value.faults] == ["DATABASE_URL", "REDIS_URL"]
    assert all(": not set: " in fault for fault in caught.value.faults)


def test_each_command_needs_what_it_uses() -> None:
    """A required variable that the caller does not use may be unset, and is validated all the same where it is set."""
    without = Settings.from_environ({"DATABASE_URL": REQUIRED["DATABASE_URL"]}, needs=("database_url",))
    assert (without.redis_url, without.broker_url) == ("", "")
    assert (secrets(without), plaintext(without)) == ((), ())

    with pytest.raises(ConfigurationError) as caught:
        Settings.from_environ({"REDIS_URL": "http://elsewhere", "PORT": "0"}, needs=("database_url",))
    assert [fault.partition(": ")[0] for fault in caught.value.faults] == ["DATABASE_URL", "REDIS_URL", "PORT"]


@pytest.mark.parametrize("first", [{"GROUPING_DELAY": "x"}, {"DATABASE_URL": "x"}, {"LOG_LEVEL": "x"}])
def test_a_fault_hides_no_other(first: dict[str, str]) -> None:
    """A minimum above a default and a URL without TLS are told beside any other fault."""
    told = faults(**first, INITIATION_DELAY_MIN="301", REDIS_URL="redis://db.example.com", REQUIRE_TLS="true")

    assert {fault.partition(": ")[0] for fault in told} == {*first, "INITIATION_DELAY_MIN", "REDIS_URL"}


def test_the_error_survives_a_process_border() -> None:
    """A pickled ConfigurationError keeps its faults, and the exit code is that of sysexits.h."""
    error = ConfigurationError("PORT: must be a number", "HOST: must be a name")

    copy = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own bytes

    assert (copy.faults, str(copy)) == (error.faults, "PORT: must be a number\nHOST: must be a name")
    assert EX_CONFIG == 78


@pytest.mark.parametrize("variable", VARIABLES, ids=lambda variable: variable.name)
def test_no_fault_repeats_its_value(variable: Variable) -> None:
    """Whatever variable holds a secret by mistake, its fault does not say it."""
    value = f"{CANARY}!" * 150

    (fault,) = faults(**{variable.name: value})

    assert fault.startswith(f"{variable.name}: ")
    assert CANARY not in fault


# --- URLs ----------------------------------------------------------------------------------------

# {} is where the password stands; the first group is refused in each kind of URL.
MALFORMED_AUTHORITIES = [
    "://user:{}%@host/0",
    "://user:{}%zz@host/0",
    "://user:{}%4@host/0",
    "://user:{}%00@host/0",
    "://user:{}%FF@host/0",
    "://user:{}@part@host/0",
    "://user:{}#part@host/0",
    "://user:{}/part@host/0",
    "://user:12/{}@host/0",
    "://user:{}?part@host/0",
    "://user:{}[part@host/0",
    "://user:{}]part@host/0",
    "://user:{} part@host/0",
    "://user:{}\u00a0part@host/0",
    "://user:{}\tpart@host/0",
    "://user:{}\npart@host/0",
    "://user:{}\u202epart@host/0",
    "://user:{}@host:port/0",
    "://user:{}@host:0/0",
    "://user:{}@host:65536/0",
    "://user:{}@host:5432:5432/0",
    "://user:{}@host:-1/0",
    "://user:{}@[::1/0",
    "://user:{}@ho\\st/0",
    "://user:{}@/0",
    "://user:{}",
    "://user:{}@",
    "://{}%40host/0",
    "://host/0?{}",
    ":/user:{}@host/0",
    ":user:{}@host/0",
    "+driver://user:{}@host/0",
    "://user:{}\uff0f@host/0",  # urllib refuses a fullwidth solidus by its normal form
]
MALFORMED = [
    *(("DATABASE_URL", f"postgresql{rest}") for rest in MALFORMED_AUTHORITIES),
    *(("DATABASE_URL", f"postgres{rest}") for rest in MALFORMED_AUTHORITIES),
    *(("REDIS_URL", f"redis{rest}") for rest in MALFORMED_AUTHORITIES),
    *(("REDIS_URL", f"rediss{rest}") for rest in MALFORMED_AUTHORITIES),
    *(("BROKER_URL", f"redis{rest}") for rest in MALFORMED_AUTHORITIES),
    *(("BROKER_URL", f"amqp{rest}") for rest in MALFORMED_AUTHORITIES),
    ("DATABASE_URL", "{}"),
    ("DATABASE_URL", "postgresql://user:p@host/app?{}=1"),
    ("DATABASE_URL", "mysql://user:{}@host/app"),
    ("DATABASE_URL", '"postgresql://user:{}@host/app"'),
    ("DATABASE_URL", "POSTGRESQL://user:{}@host/app"),
    ("DATABASE_URL", "postgresql://user:{}@host/app?pgbouncer=true"),
    ("DATABASE_URL", "postgresql://user:{}@host/app?sslmode=verify"),
    ("DATABASE_URL", "postgresql:///app?password={}"),
    ("DATABASE_URL", "postgresql://user:{}@one:1,two:zwei/app"),
    ("DATABASE_URL", "host=host user=user password={} part"),
    ("DATABASE_URL", "host=host user=user password='{}"),
    ("DATABASE_URL", "host=host port=five password={}"),
    ("DATABASE_URL", "host={}@host user=user"),
    ("DATABASE_URL", "user=user password={}"),
    ("DATABASE_URL", "host=host password={} color=red"),
    ("REDIS_URL", "{}"),
    ("REDIS_URL", "redis://user:p@host/0?{}=1"),
    ("REDIS_URL", "unix://user:{}@/run/redis.sock"),
    ("REDIS_URL", "http://user:{}@host"),
    ("REDIS_URL", "REDIS://user:{}@host"),
    ("REDIS_URL", "'redis://user:{}@host'"),
    ("REDIS_URL", "redis://user:{}@host/zero"),
    ("REDIS_URL", "redis://user:{}@host/0/1"),
    ("REDIS_URL", "redis://user:{}@host/0?socket_timeout=long"),
    ("REDIS_URL", "redis://user:{}@host/0?colour=red"),
    ("REDIS_URL", "rediss://user:{}@host/0?ssl_cert_reqs=perhaps"),
    ("BROKER_URL", "kafka://user:{}@host"),
    ("BROKER_URL", "unix://user:{}@/run/redis.sock"),
    ("BROKER_URL", "redis://user:{}@host/zero"),
]


@pytest.mark.parametrize(("name", "template"), MALFORMED)
def test_a_malformed_url_is_never_repeated(name: str, template: str) -> None:
    """A URL that does not parse is one fault of its variable, and nothing of the password reaches any text."""
    with pytest.raises(ConfigurationError) as caught:
        read(**{name: template.format(CANARY)})

    error = caught.value
    texts = (str(error), repr(error), *traceback.format_exception(error))
    assert [fault.partition(": ")[0] for fault in error.faults] == [name]
    assert all(CANARY not in text for text in texts)
    assert (error.__cause__, error.__context__) == (None, None)
    assert all(len(fault.splitlines()) == 1 for fault in error.faults)


@pytest.mark.parametrize(
    ("name", "url", "remedy"),
    [
        ("DATABASE_URL", "postgresql://user:p@ss@host/app", "write %40, %2F, %3F or %23"),
        ("DATABASE_URL", "postgresql://user:50%@host/app", "write % as %25"),
        ("DATABASE_URL", "postgresql://user:p@host/app?pgbouncer=true", "only parameters that libpq knows"),
        ("DATABASE_URL", "postgresql://user:p@host/app?sslmode=full", "verify-full"),
        ("DATABASE_URL", "dbname=app", "?host=/the/directory of the unix socket"),
        ("REDIS_URL", "redis://user:p@[::1/0", "write an IPv6 address in [ ]"),
        ("REDIS_URL", "redis://user:p@host:six", "a whole number from 1 to 65535"),
        ("REDIS_URL", "unix:///run/redis.sock", "write redis://127.0.0.1:6379/0"),
        ("REDIS_URL", "redis://host/cache", "the database's number"),
        ("BROKER_URL", "rabbit://host", "redis:// or rediss://"),
    ],
)
def test_a_fault_of_a_url_says_what_to_do(name: str, url: str, remedy: str) -> None:
    """The line that names the variable names the remedy too."""
    (fault,) = faults(**{name: url})

    assert remedy in fault


WELL_FORMED = [
    ("DATABASE_URL", "postgresql://user:{}@host/app", CANARY),
    ("DATABASE_URL", "postgres://user:{}@host:5432/app?sslmode=verify-full&sslrootcert=system", CANARY),
    ("DATABASE_URL", "postgresql://user:{}%40%2F%3F%23%25:@[::1]:5432/app", f"{CANARY}@/?#%:"),
    ("DATABASE_URL", "postgresql://user:{}@one:5432,two/app", CANARY),
    ("DATABASE_URL", "postgresql://user:{}@%2Frun%2Fpostgresql/app", CANARY),
    ("DATABASE_URL", "postgresql://user:{}@/app?host=/run/postgresql", CANARY),
    ("DATABASE_URL", "postgresql://host/app?user=user&password={}%2B", f"{CANARY}+"),
    ("DATABASE_URL", "host=/run/postgresql dbname=app password='{} \\'part'", f"{CANARY} 'part"),
    ("DATABASE_URL", "host=host password={} sslmode=require", CANARY),
    ("REDIS_URL", "redis://:{}@host", CANARY),
    ("REDIS_URL", "rediss://default:{}@host:6380/", CANARY),
    ("REDIS_URL", "rediss://default:{}%40@host:6380/3?ssl_cert_reqs=none&socket_timeout=5", f"{CANARY}@"),
    ("REDIS_URL", "redis://[::1]:6379/0?password={}+part", f"{CANARY} part"),
    ("BROKER_URL", "redis://:{}@host", CANARY),
]


@pytest.mark.parametrize(("name", "template", "password"), WELL_FORMED)
def test_a_well_formed_url_is_kept_and_its_password_known(name: str, template: str, password: str) -> None:
    """A URL that parses is kept as it is, stays out of repr and summary, and the log's filter learns its password."""
    url = template.format(CANARY)

    settings = read(**{name: url})

    assert getattr(settings, name.lower()) == url
    assert CANARY not in repr(settings) + str(settings) + str(summary(settings))
    assert password in secrets(settings)


def test_rabbitmq_is_refused_in_words() -> None:
    """An amqp:// broker, which this version does not speak, is one fault that says what to do."""
    (fault,) = faults(BROKER_URL=f"amqps://user:{CANARY}@host:5671/%2F")

    assert fault.startswith("BROKER_URL: RabbitMQ is not part of this version")
    assert CANARY not in fault


# --- What is shown and what is hidden --------------------------------------------------------------


def test_secrets_decoded_and_as_written() -> None:
    """Each password is given decoded and as written, once, the longest first, and nothing for none."""
    settings = read(
        DATABASE_URL="postgresql://user:p%40ss@host/app", REDIS_URL="redis://:s%2Fecret@host", BROKER_URL=""
    )

    assert secrets(settings) == ("s%2Fecret", "s/ecret", "p%40ss", "p@ss")
    assert secrets(read()) == ()


def test_the_token_is_a_secret() -> None:
    """The log's filter learns the token, and neither repr nor summary has it."""
    token = f"{CANARY}-{string.punctuation}"

    settings = read(CONSOLE_TOKEN=token)

    assert secrets(settings) == (token,)
    assert CANARY not in repr(settings) + str(settings) + str(summary(settings))


def test_secrets_of_a_key_value_dsn_as_written() -> None:
    """A password that a key=value DSN escapes is given in both forms."""
    settings = read(DATABASE_URL=r"host=host password='it\'s \\ here'")

    assert secrets(settings) == (r"it\'s \\ here", r"it's \ here")


def test_summary() -> None:
    """The summary holds every tunable that is set: numbers as %g, booleans in lower case, no URL."""
    assert " ".join(f"{name}={text}" for name, text in summary(read(GROUPING_DELAY="0.50")).items()) == (
        "GROUPING_DELAY=0.5 TEST_MODE=false GROUPING_MAX=60 GROUPING_MODE=fixed INITIATION_DELAY_MIN=120"
        " INITIATION_DELAY_MAX=300 INITIATION_PROBABILITY=0.5 THINKING_DELAY_MIN=2 THINKING_DELAY_MAX=15"
        " TYPING_SPEED_CPS=3.5 MAX_MERGES=3"
        " SECOND_MESSAGE=merge REPLY_PARTS=1 PART_PAUSE_MIN=1.5 PART_PAUSE_MAX=3 BOT_TYPING=true"
        " TAKEOVER_PAUSE=3600 QUIET_SPREAD=300 TIMEZONE=Europe/Paris"
        " RESPONDER=scripted RESPONDER_TIMEOUT=180 MAX_COMPOSING=200"
        " OPENAI_MAX_TOKENS=400 OPENAI_HISTORY_TOKENS=4000 OPENAI_PRICE_INPUT=0 OPENAI_PRICE_OUTPUT=0 OPENAI_TIMEOUT=60"
        " REDIS_MAX_ATTEMPTS=3 RETENTION_DAYS=30 IGNORE_OLDER_DAYS=15"
        " LOG_LEVEL=INFO LOG_FORMAT=text HOST=127.0.0.1 PORT=8080 REQUIRE_TLS=false"
    )
    assert (
        summary(read(HEALTH_PORT="9090", TEST_MODE="on")).items()
        >= {"HEALTH_PORT": "9090", "TEST_MODE": "true"}.items()
    )


def test_settings_cannot_be_changed() -> None:
    """Settings are frozen."""
    with pytest.raises(AttributeError):
        read().port = 1  # type: ignore[misc]
