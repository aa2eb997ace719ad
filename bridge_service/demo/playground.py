"""The playground's side of the stage: it serves the page, writes as the people do, and breaks things."""

import asyncio
import json
import secrets
import socket
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from types import TracebackType
from typing import Any, Final, Self, TypeVar

from bridge_service.brokers.redis_client import connect
from bridge_service.demo.app import App, Chat
from bridge_service.demo.breaks import Breaks
from bridge_service.demo.stage import Stage
from bridge_service.demo.watch import State, Watch
from bridge_service.errors import BridgeError, DatabaseBusy, DatabaseUnavailable
from bridge_service.machine.database import Connection, Database
from bridge_service.scenes.tact import HOURS_AROUND_NOW
from bridge_service.settings import overrides
from bridge_service.web.console import Console
from bridge_service.web.feed import Feed
from bridge_service.web.local import Local
from bridge_service.web.playground import Play, Refused, routes
from bridge_service.web.server import listen, make_server

HOST: Final = "127.0.0.1"
LOOK_SECONDS: Final = 0.2
ASK_SECONDS: Final = 0.5
RAPID_SECONDS: Final = 0.4
FIFTY_SECONDS: Final = 0.03
BURSTS_AT_ONCE: Final = 4
TEXT_CHARACTERS: Final = 2000

SETTINGS: Final = {
    "grouping_delay": ("grouping_delay",),
    "thinking": ("thinking_delay_max", "thinking_delay_min"),
    "typing_speed_cps": ("typing_speed_cps",),
    "second_message": ("second_message",),
    "grouping_mode": ("grouping_mode",),
    "reply_parts": ("reply_parts",),
    "takeover_pause": ("takeover_pause",),
}
"""What the page sets for all bots: each control's columns of bridge.bots. One that the policy lacks has no control."""

THREE: Final = ("salut", "ça va ?", "tu fais quoi ce soir ?")
FIFTY: Final = tuple(f"message {number}" for number in range(1, 51))

_Scene = TypeVar("_Scene")


class Playground:
    """Serves the page while its block runs.

    Parameters:
      stage: open and ready.
    """

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._boot = secrets.token_hex(8)
        self._scene: str | None = ""
        self._skipped = False
        self._stack = ExitStack()
        self._breaks = Breaks(stage)
        self._ending = threading.Event()
        self._bursts: list[threading.Thread] = []
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        """Start serving, on another port if PORT is taken, and say where."""
        with ExitStack() as stack:
            self._serve(stack)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    def tour(self, scenes: Iterable[tuple[str, _Scene]]) -> Iterator[_Scene]:
        """Hand out scenes, given with their names, until the visitor skips the rest."""
        for name, scene in scenes:
            if self._skipped:
                return
            self._scene = name
            yield scene

    def open(self) -> None:
        """Let the visitor write and break things: the tour is over."""
        self._scene = None
        self._say_where()

    def _serve(self, stack: ExitStack) -> None:
        stage = self._stage
        own = stage.connect()
        stack.callback(own.close)
        self._app = App(own, own, stage.screen)
        watching = stage.connect()
        stack.callback(watching.close)
        client = connect(stage.redis.url(), timeout=ASK_SECONDS)
        stack.callback(client.close)
        watch = Watch(watching, client, stage.log, stage.settings.retention_days, self._moment)
        feed = Feed(partial(asyncio.to_thread, watch.whole), partial(asyncio.to_thread, watch.look), LOOK_SECONDS)
        database = Database(lambda: Connection(stage.settings.database_url, application="bridge console"))
        stack.callback(database.close)
        self._database = database

        listening = stack.enter_context(_listen(stage.settings.port))
        port = listening.getsockname()[1]
        token = secrets.token_urlsafe(24)
        names = own.execute("SELECT first_name, is_bot, id::text FROM profiles ORDER BY id")
        self._names: dict[str, bool] = {str(name): bool(is_bot) for name, is_bot, _ in names}
        self._ids: dict[str, str] = {str(name): str(profile) for name, _, profile in names}
        play = Play(
            boot=self._boot,
            people=[name for name, is_bot in self._names.items() if not is_bot],
            bots=[name for name, is_bot in self._names.items() if is_bot],
            breaks=self._breaks.names,
            settings=[name for name, columns in SETTINGS.items() if columns[0] in self._policy()],
            act=self._act,
        )
        console = Console(
            database, client, None, csrf=token, root="/console", pages=routes(play, feed, token), within=Local
        )
        server = make_server(console.app)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, name="playground", daemon=True)
        thread.start()

        def stop() -> None:
            feed.stop()
            console.stop()
            server.should_exit = True
            self._ending.set()
            self._breaks.stop()
            for each in (*self._bursts, thread):
                each.join()

        stack.callback(stop)
        if port != stage.settings.port:
            stage.screen.say(f"Port {stage.settings.port} is taken, so the playground is on another.", "yellow")
        self._port = port
        self._say_where()

    def _say_where(self) -> None:
        self._stage.screen.say(f"Playground: http://localhost:{self._port}", "bold green")

    def _moment(self) -> State:
        return {"boot": self._boot, "scene": self._scene, "broken": self._breaks.broken}

    # What the page asks for

    def _act(self, asked: Mapping[str, str]) -> Mapping[str, str]:
        action = asked.get("action", "")
        if action == "skip":
            self._skipped = True
            return {}
        if self._scene is not None:
            raise Refused("tour")
        deeds: Mapping[str, Callable[[Mapping[str, str]], Mapping[str, str] | None]] = {
            "match": self._match,
            "break": self._break,
            "set": self._set,
            "write": self._say,
            "types": self._type,
            "resume": self._resume,
            "three": self._burst,
            "fifty": self._burst,
            "night": self._sleep,
            "day": self._sleep,
        }
        if action not in deeds:
            raise Refused("unreadable")
        try:
            return deeds[action](asked) or {}
        except (DatabaseUnavailable, DatabaseBusy):
            raise Refused("unsaved") from None

    def _break(self, asked: Mapping[str, str]) -> None:
        what = asked.get("what", "")
        if what not in self._breaks.names:
            raise Refused("unreadable")
        if not self._breaks.begin(what):
            raise Refused("broken")

    def _set(self, asked: Mapping[str, str]) -> None:
        columns = SETTINGS.get(asked.get("what", ""), ())
        try:
            values = overrides.read([f"{column}={asked.get('value', '')}" for column in columns])
        except ValueError:
            raise Refused("value") from None
        self._rule(None, values)

    def _rule(self, bot: str | None, values: Mapping[str, object]) -> None:
        asked = self._ask("SELECT bridge.set_bot(%s, %s)", bot, json.dumps(values)) if values else {}
        if asked.get("outcome") != "set":
            raise Refused("value")

    def _sleep(self, asked: Mapping[str, str]) -> None:
        """Let it be night for a bot, by the clock of PostgreSQL, or day again."""
        if self._names.get(asked.get("bot", "")) is not True:
            raise Refused("unreadable")
        bot = self._ids[asked["bot"]]
        [[hours]] = self._database.call(HOURS_AROUND_NOW, self._policy(bot)["timezone"])
        hours = hours if asked["action"] == "night" else "none"
        self._rule(bot, {"quiet_hours": hours, "quiet_hours_weekend": hours})

    def _resume(self, asked: Mapping[str, str]) -> None:
        self._database.call("SELECT bridge.resume(%s)", self._chat(asked).match_id)

    def _policy(self, bot: str | None = None) -> dict[str, Any]:
        return {name: told["value"] for name, told in self._ask("SELECT bridge.bots_show(%s)", bot).items()}

    def _ask(self, statement: str, *parameters: object) -> dict[str, Any]:
        """Call through the pool: after a restart of PostgreSQL it connects anew."""
        [[answer]] = self._database.call(statement, *parameters)
        return dict(answer)

    def _match(self, asked: Mapping[str, str]) -> Mapping[str, str]:
        person, bot = asked.get("person", ""), asked.get("bot", "")
        if self._names.get(person) is not False or self._names.get(bot) is not True:
            raise Refused("unreadable")
        with self._lock:
            return {"match": self._app.match(person, bot).match_id}

    def _chat(self, asked: Mapping[str, str]) -> Chat:
        with self._lock:
            found = [chat for chat in self._app.chats() if chat.match_id == asked.get("match")]
        if not found:
            raise Refused("unmatched")
        return found[0]

    @staticmethod
    def _text(asked: Mapping[str, str]) -> str:
        text = asked.get("text", "").replace("\0", "").strip()
        if not text or len(text) > TEXT_CHARACTERS:
            raise Refused("text")
        return text

    def _say(self, asked: Mapping[str, str]) -> None:
        text, chat, as_bot = self._text(asked), self._chat(asked), asked.get("human") == "true"
        with self._lock:
            self._app.write(chat, text, show=False, as_bot=as_bot)
            if not as_bot:
                self._app.types(chat, on=False)

    def _type(self, asked: Mapping[str, str]) -> None:
        chat = self._chat(asked)
        with self._lock:
            self._app.types(chat)

    def _burst(self, asked: Mapping[str, str]) -> None:
        chat = self._chat(asked)
        texts, pause = (THREE, RAPID_SECONDS) if asked["action"] == "three" else (FIFTY, FIFTY_SECONDS)
        # Within the window, or the burst would be two groups.
        pause = min(pause, self._policy()["grouping_delay"] / (3 * len(texts)))
        thread = threading.Thread(target=self._write, args=(texts, chat, pause), name="burst", daemon=True)
        with self._lock:
            self._bursts = [each for each in self._bursts if each.is_alive()]
            if len(self._bursts) >= BURSTS_AT_ONCE:
                raise Refused("busy")
            self._bursts.append(thread)
            thread.start()

    def _write(self, texts: Sequence[str], chat: Chat, pause: float) -> None:
        for place, text in enumerate(texts):
            if place and self._ending.wait(pause):
                return
            with self._lock:
                self._app.write(chat, text, show=False)


def _listen(port: int) -> socket.socket:
    """Listen on a port, or on another one if it is taken.

    Raises:
      BridgeError: this machine lets no port be listened on.
    """
    for each in (port, 0):
        try:
            return listen(HOST, each)
        except OSError as error:
            reason = error.strerror
    raise BridgeError(f"PORT: the playground cannot listen on {HOST} ({reason})")
