"""A real PostgreSQL and a real Redis as child processes, for the demo, the tests and the chaos runs.

Both listen on 127.0.0.1 only, on one TCP port that outlives every restart, and both end with the process that started
them, however that process ends. They trust every local user and are meant for data that may be lost.
"""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import signal
import socket
import stat
import subprocess
import tempfile
import time
from abc import ABC, abstractmethod
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import psutil
import psycopg2
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from bridge_service.demo.binaries import postgresql_binaries, redis_binary
from bridge_service.errors import BridgeError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

START_SECONDS = 15.0
STOP_SECONDS = 15.0
POLL_SECONDS = 0.02
PROBE_SECONDS = 2

# Below the range from which Linux and macOS give out the ports of outgoing connections: while the server is down, a
# client that keeps reconnecting would sooner or later be given the server's own port and take it.
FIRST_PORT, LAST_PORT = 20000, 32000

# PostgreSQL refuses to run as root, and its user must have a name.
UNPRIVILEGED_USER = "nobody"


class ServerFailed(BridgeError):
    """The server did not start; the message ends with the last line of its log."""


class _Server(ABC):
    """One child process on one port of 127.0.0.1.

    `start()` on a running server and `stop()` or `kill()` on a stopped one do nothing. `settings` may be changed
    between two starts. Not thread-safe.
    """

    _stop_signal: ClassVar[signal.Signals]

    def __init__(self, directory: Path, settings: Mapping[str, str] | None = None) -> None:
        self.directory = directory.resolve()
        self.settings = dict(settings or {})
        self.port = _free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self._guard: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start the server and return once it accepts connections.

        Raises:
          ServersMissing: no binary was found.
          ServerFailed: it ended, or did not accept connections within START_SECONDS.
        """
        if self._process is not None and self._process.poll() is None:
            return
        self._forget()  # the server may have ended by itself
        self.directory.mkdir(parents=True, exist_ok=True)
        process = self._launch()
        self._process = process
        self._guard = guard(process.pid, self._stop_signal)
        deadline = time.monotonic() + START_SECONDS
        while not self._accepts_connections():
            if process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise ServerFailed(f"{type(self).__name__} did not start: {_last_line(self._log_path)}")
            time.sleep(POLL_SECONDS)

    def stop(self) -> None:
        """End the server in good order, and by force if that takes longer than STOP_SECONDS."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(self._stop_signal)
            try:
                self._process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self.kill()
        self._forget()

    def kill(self) -> None:
        """End the server and all its children at once with SIGKILL: nothing is flushed, no client is told."""
        if self._process is not None and self._process.poll() is None:
            parent = psutil.Process(self._process.pid)
            parent.suspend()  # so that no child is born between the listing and the killing
            children = parent.children(recursive=True)
            for process in (parent, *children):
                _kill(process)
            self._process.wait()
            # An orphan that still lives would keep the shared memory, and PostgreSQL would refuse to start again.
            _wait_until(lambda: all(map(_is_gone, children)), STOP_SECONDS)
        self._forget()

    def restart(self) -> None:
        """Stop in good order and start again on the same port."""
        self.stop()
        self.start()

    @abstractmethod
    def url(self) -> str:
        """Return the address for a client."""

    @abstractmethod
    def _launch(self) -> subprocess.Popen[bytes]:
        """Start the process and return without waiting for it."""

    @abstractmethod
    def _accepts_connections(self) -> bool:
        """Return whether one connection succeeds."""

    @property
    def _log_path(self) -> Path:
        return self.directory / "server.log"

    def _spawn(self, *command: str | Path, user: str | None = None) -> subprocess.Popen[bytes]:
        with self._log_path.open("ab") as log:
            return subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.directory,
                start_new_session=True,  # a Ctrl-C at the terminal must not end the server before its clients
                **_identity(user),
            )

    def _forget(self) -> None:
        if self._guard is not None:
            self._guard.kill()
            self._guard.communicate()
        self._process = self._guard = None


class PostgresServer(_Server):
    """PostgreSQL with the superuser `postgres`, UTF8, locale C and trust authentication.

    Parameters:
      directory: holds the data and the log; made if it is not there, and used again if it is.
      settings: lines of postgresql.conf that replace or join the defaults below, by name. By default every commit is
        durable.

    As root the server runs as user `nobody`, which must be able to enter the directory. Folders on the way there that
    lie in the system's temporary folder are opened for passing through; other folders stay as they are.
    """

    _stop_signal = signal.SIGINT  # PostgreSQL's "fast shutdown"

    def url(self, dbname: str = "postgres", user: str = "postgres") -> str:
        """Return the address of one database for one role."""
        return f"postgresql://{user}@127.0.0.1:{self.port}/{dbname}"

    @property
    def _user(self) -> str | None:
        return UNPRIVILEGED_USER if os.geteuid() == 0 else None

    @cached_property
    def _binaries(self) -> Path:
        """The folder of PostgreSQL's binaries, or of a copy where the server's user may not enter (a venv in /root)."""
        binaries = postgresql_binaries()
        try:
            self._spawn(binaries / "postgres", "--version", user=self._user).wait()
        except PermissionError:
            return self._copied(binaries)
        return binaries

    def _launch(self) -> subprocess.Popen[bytes]:
        if self._user is not None:
            _let_pass(self.directory)
        data = self.directory / "data"
        if not data.exists():
            self._initialise(data)
        (data / "postgresql.conf").write_text(self._configuration(), encoding="utf-8")
        return self._spawn(self._binaries / "postgres", "-D", data, user=self._user)

    def _accepts_connections(self) -> bool:
        try:
            psycopg2.connect(self.url(), connect_timeout=PROBE_SECONDS).close()
        except psycopg2.OperationalError:
            return False
        return True

    def _initialise(self, data: Path) -> None:
        # Under another name until it is complete: initdb may be killed before its end.
        unfinished = data.with_suffix(".unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(mode=0o700)
        self._give(unfinished)
        options = ("--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync")
        if self._spawn(self._binaries / "initdb", *options, "-D", unfinished, user=self._user).wait() != 0:
            raise ServerFailed(f"initdb failed: {_last_line(self._log_path)}")
        unfinished.rename(data)

    def _configuration(self) -> str:
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "unix_socket_directories": "",
            "max_connections": "200",
            "lc_messages": "C",  # otherwise the messages follow the locale of the process that started it
            **self.settings,
        }
        return "".join(f"{name} = {_quoted(value)}\n" for name, value in settings.items())

    def _copied(self, binaries: Path) -> Path:
        installation = binaries.parent
        package = installation.parent
        copy = self.directory / "postgresql"
        shutil.rmtree(copy, ignore_errors=True)
        # A wheel keeps its libraries beside the package, and the binaries look for them there.
        for source in (installation, package.with_name(f"{package.name}.libs")):
            if source.exists():
                target = copy / source.relative_to(package.parent)
                shutil.copytree(source, target, symlinks=True, ignore=shutil.ignore_patterns("include", "*.a"))
        for path in (copy, *copy.rglob("*")):
            self._give(path)
        return copy / binaries.relative_to(package.parent)

    def _give(self, path: Path) -> None:
        if self._user is not None:
            account = pwd.getpwnam(self._user)
            os.chown(path, account.pw_uid, account.pw_gid, follow_symlinks=False)


class RedisServer(_Server):
    """Redis, or Valkey, which speaks the same protocol.

    Parameters:
      directory: holds the log and, with `appendonly`, the data; made if it is not there.
      appendonly: keep the data over stop, kill and start (synced every second); else each start is empty.
      settings: lines of redis.conf that replace or join the defaults, by name.
    """

    _stop_signal = signal.SIGTERM

    def __init__(self, directory: Path, *, appendonly: bool = False, settings: Mapping[str, str] | None = None) -> None:
        super().__init__(directory, settings)
        self.appendonly = appendonly

    def url(self, database: int = 0) -> str:
        """Return the address of one of the numbered databases."""
        return f"redis://127.0.0.1:{self.port}/{database}"

    def _launch(self) -> subprocess.Popen[bytes]:
        settings = {
            "bind": "127.0.0.1",
            "port": str(self.port),
            "dir": str(self.directory),
            "save": "",
            "appendonly": "yes" if self.appendonly else "no",
            **self.settings,
        }
        options = [word for name, value in settings.items() for word in (f"--{name}", value)]
        return self._spawn(redis_binary(), *options)

    def _accepts_connections(self) -> bool:
        client = redis.Redis(port=self.port, socket_timeout=PROBE_SECONDS, retry=Retry(NoBackoff(), 0))
        try:
            client.ping()
        except redis.RedisError:
            return False
        finally:
            client.close()
        return True


def _quoted(value: str) -> str:
    """Write a value the way postgresql.conf reads it."""
    escaped = value.replace("\\", "\\\\").replace("'", "''")
    return f"'{escaped}'"


def _free_port() -> int:
    while True:
        port = FIRST_PORT + secrets.randbelow(LAST_PORT - FIRST_PORT)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port


def guard(pid: int, signal_number: signal.Signals) -> subprocess.Popen[bytes]:
    """Start a process that signals `pid` once this process is gone, which closes the guard's standard input.

    PR_SET_PDEATHSIG would do, but on Linux only, and it fires when the *thread* that started the server ends.
    """
    script = 'read -r _; kill -s "$1" "$2"'
    return subprocess.Popen(
        ("/bin/sh", "-c", script, "guard", signal_number.name.removeprefix("SIG"), str(pid)),
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def _identity(user: str | None) -> dict[str, Any]:
    """Return the arguments of Popen that give up root for `user`."""
    if user is None:
        return {}
    return {"user": user, "group": pwd.getpwnam(user).pw_gid, "extra_groups": []}


def _let_pass(directory: Path) -> None:
    """Let other users pass through `directory` and the folders above it, if those are only temporary ones.

    Raises:
      ServerFailed: a folder outside the temporary folder is closed; opening it is not ours to decide.
    """
    temporary = Path(tempfile.gettempdir()).resolve()
    for folder in (directory, *directory.parents):
        mode = stat.S_IMODE(folder.stat().st_mode)
        if mode & stat.S_IXOTH:
            continue
        if folder != directory and temporary not in folder.parents:
            raise ServerFailed(
                f"As root, PostgreSQL runs as `{UNPRIVILEGED_USER}`, which may not enter {folder}; "
                f"use a directory in {temporary}."
            )
        folder.chmod(mode | stat.S_IXOTH)


def _kill(process: psutil.Process) -> None:
    with suppress(psutil.NoSuchProcess):
        process.kill()


def _is_gone(process: psutil.Process) -> bool:
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def _wait_until(holds: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not holds() and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)


def _last_line(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "its log is empty")
