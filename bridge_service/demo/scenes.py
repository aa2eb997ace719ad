"""The guide's scenes: what each shows, how it is played, and what has to come of it."""

import time
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Final

from bridge_service.demo.app import Chat, Said
from bridge_service.demo.figures import Figures, mark, measure
from bridge_service.demo.log import LogLine, first_missing
from bridge_service.demo.stage import Stage

OUTAGE_SECONDS: Final = 10.0
RAPID_SECONDS: Final = 0.4
LINES_SECONDS: Final = 3.0
"""How long a line may take from the process to here."""

LAST_LINES_SECONDS: Final = 0.15
"""How long they mostly take: only so that the verdict stands after them."""

TYPED_SECONDS: Final = 0.3
"""How long a bot has typed when it is interrupted."""

POLL_SECONDS: Final = 0.1


class WentWrong(Exception):
    """Raised when a scene cannot go on; says why."""


@dataclass(frozen=True, slots=True)
class Scene:
    """One scene: its name, what it shows in one sentence, and its play."""

    name: str
    shows: str
    play: Callable[["Act"], None]


@dataclass(frozen=True, slots=True)
class Result:
    """How a scene came out.

    Attributes:
      faults: what went wrong, one line each; empty if it came out right.
      note: what is worth telling besides.
      sent, replies: messages of people and of bots.
      figures: of the scene, as `figures.measure` takes them.
      outage: whether a server was away, so that times are no measure.
    """

    name: str
    faults: tuple[str, ...]
    note: str
    sent: int
    replies: int
    figures: Figures
    outage: bool


class Act:
    """A scene being played: what its play does, and what it expects."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.faults: list[str] = []
        self.note = ""
        self.sent = 0
        self.outage = False
        self._chats: dict[str, Chat] = {}
        self._old: dict[str, int] = {}
        self._mark = mark(stage.connection, stage.log.mark())

    # What is done

    def chat(self, person: str, bot: str) -> Chat:
        """Take up a conversation of two who have matched."""
        chat = self.stage.app.chat(person, bot)
        self._old[chat.match_id] = len(self.stage.app.said(chat))
        self._chats[chat.match_id] = chat
        return chat

    def match(self, person: str, bot: str) -> Chat:
        """Match two."""
        chat = self.stage.app.match(person, bot)
        self._chats[chat.match_id] = chat
        return chat

    def write(self, chat: Chat, content: str) -> None:
        """Write as the person."""
        self.stage.app.write(chat, content)
        self.sent += 1

    def wait_until_typing(self, chat: Chat) -> None:
        """Wait until the bot is in the middle of its answer to what was written in this scene."""
        typing = f"✍️ Saisie en cours (match {chat.match_id}"
        if not self.stage.log.wait(_says(typing), self._mark.line, self.stage.patience):
            raise WentWrong(f"{chat.bot} never typed")
        self.stage.pause(TYPED_SECONDS)

    def kill_redis(self) -> float:
        """Kill Redis; return the moment."""
        self.outage = True
        self.stage.redis.kill()
        self.stage.screen.say("Redis is killed, and what it held is gone.", "bold red")
        return time.monotonic()

    def start_redis(self) -> float:
        """Start Redis, empty; return the moment."""
        self.stage.redis.start()
        self.stage.screen.say("Redis is back, empty.", "bold green")
        return time.monotonic()

    def settle(self) -> None:
        """Wait until nothing is owed any more in the scene's conversations."""
        deadline = time.monotonic() + self.stage.patience
        while unfinished := self._unfinished():
            if time.monotonic() > deadline:
                raise WentWrong(f"after {self.stage.patience:.0f} s there is still {', '.join(unfinished)}")
            self.stage.pause(POLL_SECONDS)

    # What is expected

    def expect_lines(self, *wanted: str, process: str = "scheduler") -> None:
        """Expect lines of a process that begin with these words, in this order."""

        def missing(lines: Sequence[LogLine]) -> str | None:
            return first_missing([line for line in lines if line.process == process], wanted)

        if not self.stage.log.wait(lambda lines: missing(lines) is None, self._mark.line, LINES_SECONDS):
            lines = self.stage.log.since(self._mark.line)
            self.faults.append(f"no line of the {process}, or not in its place: {missing(lines)}")

    def expect_replies(self, chat: Chat, number: int) -> None:
        """Expect so many messages of the bot in this scene."""
        found = sum(said.from_bot for said in self._new(chat))
        if found != number:
            self.faults.append(f"{chat.bot} wrote {found} times to {chat.person}, not {number}")

    def result(self, name: str) -> Result:
        """Add what must hold of every conversation, and sum up."""
        self.faults += audit_all(self.stage, self._chats.values())
        lines = self.stage.log.since(self._mark.line)
        return Result(
            name,
            tuple(self.faults),
            self.note,
            self.sent,
            sum(said.from_bot for chat in self._chats.values() for said in self._new(chat)),
            measure(self.stage.connection, self._mark, lines, self.stage.settings),
            self.outage,
        )

    def _new(self, chat: Chat) -> list[Said]:
        return self.stage.app.said(chat)[self._old.get(chat.match_id, 0) :]

    def _unfinished(self) -> list[str]:
        rows = self.stage.connection.execute(
            "SELECT coalesce(t.state, 'not grouped'), count(*)"
            " FROM bridge.events e LEFT JOIN bridge.turns t ON t.id = e.turn_id"
            " WHERE e.match_id = ANY (%s::uuid[]) AND (t.id IS NULL OR t.due_at IS NOT NULL) GROUP BY 1",
            (list(self._chats),),
        )
        return [f"{count} {state}" for state, count in rows]


def audit(said: Sequence[Said]) -> list[str]:
    """Check one conversation by the app's rows alone: the last word is the bot's, and it never answers unasked."""
    faults = []
    if said and not said[-1].from_bot:
        faults.append("the last message has no answer")
    opened = bool(said) and said[0].from_bot
    if min(accumulate((-1 if one.from_bot else 1 for one in said[opened:]), initial=0)) < 0:
        faults.append("there are more answers than messages")
    return faults


def audit_all(stage: Stage, chats: Collection[Chat]) -> list[str]:
    """Check conversations by the app's rows, and by the bridge's: each message and its answer belong to one turn."""
    faults = [f"{chat.person} and {chat.bot}: {fault}" for chat in chats for fault in audit(stage.app.said(chat))]
    [[unanswered, unasked]] = stage.connection.execute(
        "SELECT count(*) FILTER (WHERE NOT p.is_bot AND r.id IS NULL),"
        " count(*) FILTER (WHERE p.is_bot AND own.id IS NULL)"
        " FROM messages m JOIN profiles p ON p.id = m.sender_id"
        " LEFT JOIN bridge.events e ON e.message_id = m.id"
        " LEFT JOIN bridge.turns t ON t.id = e.turn_id AND t.state = 'answered'"
        " LEFT JOIN messages r ON r.id = t.reply_message_id AND r.match_id = m.match_id"
        " LEFT JOIN bridge.turns own ON own.reply_message_id = m.id AND own.state = 'answered'"
        " WHERE m.match_id = ANY (%s::uuid[])",
        ([chat.match_id for chat in chats],),
    )
    if unanswered:
        faults.append(f"messages without an answer: {unanswered}")
    if unasked:
        faults.append(f"answers that belong to no message: {unasked}")
    return faults


def perform(scenes: Iterable[Scene], stage: Stage) -> list[Result]:
    """Play scenes, one after the other, and show how each came out.

    Raises:
      BridgeError: the stage broke down.
    """
    results = []
    for number, scene in enumerate(scenes, 1):
        stage.screen.scene(number, scene.name, scene.shows)
        act = Act(stage)
        try:
            scene.play(act)
        except WentWrong as error:
            act.faults.append(str(error))
        stage.pause(LAST_LINES_SECONDS)
        stage.app.catch_up()
        result = act.result(scene.name)
        stage.screen.verdict(result.name, result.faults, result.note)
        results.append(result)
    return results


def _says(beginning: str) -> Callable[[Sequence[LogLine]], bool]:
    return lambda lines: any(line.text.startswith(beginning) for line in lines)


# --- The plays -----------------------------------------------------------------------------------


def _one_message(act: Act) -> None:
    chat = act.chat("Léa", "Camille")
    act.write(chat, "test")
    act.settle()
    act.expect_lines(
        "📨 Notification reçue (pid=",
        "Payload: {",
        f"Match ID: {chat.match_id}",
        f"⏰ Nouveau message, démarrage timer {act.stage.settings.grouping_delay:g}s",
        "📦 Grouping: 1 messages",
        "✅ Message poussé dans queue",
    )
    act.expect_replies(chat, 1)


def _burst(act: Act) -> None:
    chat = act.chat("Hugo", "Camille")
    for text in ("salut", "ça va ?", "tu fais quoi ce soir ?"):
        act.write(chat, text)
        act.stage.pause(min(RAPID_SECONDS, act.stage.settings.grouping_delay / 5))
    act.settle()
    act.expect_lines(
        "⏰ Nouveau message, démarrage timer",
        "🔄 Grouping: +1 message (2 total)",
        "🔄 Grouping: +1 message (3 total)",
        "📦 Grouping: 3 messages",
        "✅ Message poussé dans queue",
    )
    act.expect_lines(f"💬 Réponse envoyée (match {chat.match_id}, messages: 3,", process="worker")
    act.expect_replies(chat, 1)


def _while_typing(act: Act) -> None:
    chat = act.chat("Karim", "Camille")
    act.write(chat, "coucou Camille, tu aimes la musique ?")
    act.wait_until_typing(chat)
    act.write(chat, "et tu pars où en vacances ?")
    act.settle()
    act.expect_lines("📦 Grouping: 1 messages", "⏰ Nouveau message", "📦 Grouping: ")
    act.expect_lines(
        f"🔀 Réponse dépassée par de nouveaux messages (match {chat.match_id}",
        f"💬 Réponse envoyée (match {chat.match_id}, messages: 2,",
        process="worker",
    )
    act.expect_replies(chat, 1)


def _new_match(act: Act) -> None:
    chat = act.match("Inès", "Paul")
    act.settle()
    act.expect_lines(
        "🔍 Nouveau match détecté", f"💬 Initiation pour match {chat.match_id}", "✅ Message poussé dans queue"
    )
    act.expect_replies(chat, 1)


def _without_redis(act: Act) -> None:
    lea, hugo = act.chat("Léa", "Camille"), act.chat("Hugo", "Camille")
    act.write(lea, "au fait, tu aimes voyager ?")
    act.wait_until_typing(lea)
    killed = act.kill_redis()
    act.stage.pause(1)
    act.write(hugo, "je sors du cinéma")
    act.write(lea, "moi j'adore le Japon")
    act.stage.pause(RAPID_SECONDS)
    act.write(hugo, "tu as vu un bon film ?")
    # Long enough for a push to fall due, whatever the delays.
    outage = max(OUTAGE_SECONDS, act.stage.settings.grouping_delay + OUTAGE_SECONDS / 2)
    act.stage.pause(killed + outage - time.monotonic())
    back = act.start_redis()
    act.settle()
    act.note = f"{outage:g} s without Redis, all answered {time.monotonic() - back:.0f} s after it was back"
    act.expect_lines("⚠️ Tentative 1/", "🔄 Reconnexion Redis...", "✅ Reconnexion Redis réussie")


SCENES: Final = (
    Scene("One message", 'One "test", as in the guide: noticed, grouped, pushed and answered once.', _one_message),
    Scene("A burst", "Three rapid messages are one group and get one reply.", _burst),
    Scene(
        "While the bot types",
        "A message arrives while Camille types: she drops her draft and answers both at once.",
        _while_typing,
    ),
    Scene("A new match", "After a match Paul writes first, once.", _new_match),
    Scene(
        "Redis away",
        "Redis is killed in mid-conversation and comes back empty: nothing is lost, nothing doubled.",
        _without_redis,
    ),
)
