"""How the demo stages the scenes: the texts, the lines that the processes have to write, and the outage of Redis."""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from bridge_service.demo.log import LogLine, first_missing
from bridge_service.demo.stage import Stage
from bridge_service.scenes.judge import Look, Result, Stuck
from bridge_service.scenes.script import Script, Write
from bridge_service.scenes.tact import LeftOut, Tact

OUTAGE_SECONDS: Final = 10.0
RAPID_SECONDS: Final = 0.4
LINES_SECONDS: Final = 3.0
"""How long a line may take from the process to the demo."""

LAST_LINES_SECONDS: Final = 0.15
"""How long a line takes mostly: the verdict is shown after it."""

TYPED_SECONDS: Final = 0.3
"""How long a bot has typed when it is interrupted."""

_GROUPS: Final = ("📦 Grouping:", "💬 Initiation pour match")


@dataclass(frozen=True, slots=True)
class Scene:
    """One scene: its name, what it shows in one sentence, and its play."""

    name: str
    shows: str
    play: Callable[["Act"], None]


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a scene came out.

    Attributes:
      faults: what went wrong, one line each; empty if it came out right.
      note: what is worth telling besides.
      sent: messages of people.
      groups: groups and openers that the scheduler closed.
      result: what the judge says; None if the scene did not get so far.
    """

    name: str
    faults: tuple[str, ...]
    note: str
    sent: int
    groups: int
    result: Result | None


class Act:
    """A scene being played: what its play does, and what it expects."""

    def __init__(self, stage: Stage, script: Script) -> None:
        self.stage = stage
        self.script = script
        self.faults: list[str] = []
        self.note = ""
        self._sent = 0
        self._result: Result | None = None
        self._mark = stage.log.mark()

    # What is done

    def says(self, person: str, bot: str, content: str, *, after: float = 0.0) -> Write:
        """Return what writes a message in the conversation of a person and a bot, `after` so many seconds."""
        chat = self.stage.app.chat(person, bot)

        def write() -> str:
            self.stage.pause(after)
            self._sent += 1
            return self.stage.app.write(chat, content)

        return write

    def takes_over(self, person: str, bot: str, content: str) -> Write:
        """Return what writes as a human in the bot's name."""
        chat = self.stage.app.chat(person, bot)
        return lambda: self.stage.app.write(chat, content, as_bot=True)

    def types(self, person: str, bot: str, *, on: bool) -> Callable[[], None]:
        """Return what shows whether a person types."""
        return partial(self.stage.app.types, self.stage.app.chat(person, bot), on=on)

    def tact(self, bot: str) -> Tact:
        """Return the scenes in which this bot gives way."""
        [[bot_id]] = self.stage.connection.execute("SELECT id::text FROM profiles WHERE first_name = %s", (bot,))
        return Tact(self.script, self.script.judge, bot_id)

    def judged(self, result: Result) -> None:
        """Keep what the judge says."""
        self._result = result
        self.faults += result.faults

    def kill_redis(self) -> float:
        """Kill Redis; return the moment."""
        self.stage.redis.kill()
        self.stage.screen.say("Redis is killed, and what it held is gone.", "bold red")
        return time.monotonic()

    def start_redis(self) -> float:
        """Start Redis, empty; return the moment."""
        self.stage.redis.start()
        self.stage.screen.say("Redis is back, empty.", "bold green")
        return time.monotonic()

    # What is expected

    def expect_lines(self, *wanted: str) -> None:
        """Expect lines of the scheduler that begin with these words, in this order."""

        def missing(lines: Sequence[LogLine]) -> str | None:
            return first_missing([line for line in lines if line.process == "scheduler"], wanted)

        if not self.stage.log.wait(lambda lines: missing(lines) is None, self._mark, LINES_SECONDS):
            lines = self.stage.log.since(self._mark)
            self.faults.append(f"no line of the scheduler, or not in its place: {missing(lines)}")

    def expect_replies(self, number: int) -> None:
        """Expect so many replies and openers in this scene."""
        found = self._result.replies if self._result else 0
        if found != number:
            self.faults.append(f"the bot wrote {found} times, not {number}")

    def outcome(self, name: str) -> Outcome:
        """Sum up."""
        lines = self.stage.log.since(self._mark)
        groups = sum(line.text.startswith(_GROUPS) for line in lines if line.process == "scheduler")
        return Outcome(name, tuple(self.faults), self.note, self._sent, groups, self._result)


def perform(scenes: Iterable[Scene], stage: Stage, script: Script) -> list[Outcome]:
    """Play scenes, one after the other, and show how each came out.

    Raises:
      BridgeError: the stage broke down.
    """
    outcomes = []
    for number, scene in enumerate(scenes, 1):
        stage.screen.scene(number, scene.name, scene.shows)
        act = Act(stage, script)
        try:
            scene.play(act)
        except Stuck as error:
            act.faults.append(str(error))
        except LeftOut as error:
            act.note = f"left out: {error}"
        stage.pause(LAST_LINES_SECONDS)
        stage.app.catch_up()
        outcome = act.outcome(scene.name)
        stage.screen.verdict(outcome.name, outcome.faults, outcome.note)
        outcomes.append(outcome)
    return outcomes


# --- The plays -----------------------------------------------------------------------------------


def _one_message(act: Act) -> None:
    chat = act.stage.app.chat("Léa", "Camille")
    act.judged(act.script.messages([act.says("Léa", "Camille", "test")]))
    act.expect_lines(
        "📨 Notification reçue (pid=",
        "Payload: {",
        f"Match ID: {chat.match_id}",
        f"⏰ Nouveau message, démarrage timer {act.stage.settings.grouping_delay:g}s",
        "📦 Grouping: 1 messages",
        "✅ Message poussé dans queue",
    )
    act.expect_replies(1)


def _burst(act: Act) -> None:
    chat = act.stage.app.chat("Hugo", "Camille")
    pause = min(RAPID_SECONDS, act.stage.settings.grouping_delay / 5)
    texts = ("salut", "ça va ?", "tu fais quoi ce soir ?")
    act.judged(act.script.burst([act.says("Hugo", "Camille", text, after=pause) for text in texts]))
    act.expect_lines(
        "⏰ Nouveau message, démarrage timer",
        "🔄 Grouping: +1 message (2 total)",
        "🔄 Grouping: +1 message (3 total)",
        "📦 Grouping: 3 messages",
        "✅ Message poussé dans queue",
    )
    act.expect_lines(f"💬 Réponse envoyée (match {chat.match_id}, messages: 3,")
    act.expect_replies(1)


def _while_typing(act: Act) -> None:
    chat = act.stage.app.chat("Karim", "Camille")
    act.judged(
        act.script.second_thought(
            act.says("Karim", "Camille", "coucou Camille, tu aimes la musique ?"),
            act.says("Karim", "Camille", "et tu pars où en vacances ?", after=TYPED_SECONDS),
        )
    )
    act.expect_lines("📦 Grouping: 1 messages", "⏰ Nouveau message", "📦 Grouping: ")
    act.expect_lines(
        f"🔀 Réponse dépassée par de nouveaux messages (match {chat.match_id}",
        f"💬 Réponse envoyée (match {chat.match_id}, messages: 2,",
    )
    act.expect_replies(1)


def _new_match(act: Act) -> None:
    match = act.stage.app.match("Inès", "Paul").match_id

    def planned(look: Look) -> float | None:
        turn = look.turn(match)
        return turn["due_at"] if turn and turn["state"] == "open" else None  # later `due_at` has another meaning

    act.judged(act.script.opener(match, planned))
    act.expect_lines("🔍 Nouveau match détecté", f"💬 Initiation pour match {match}", "✅ Message poussé dans queue")
    act.expect_replies(1)


def _parts(act: Act) -> None:
    act.judged(
        act.tact("Camille").interrupted(
            act.says("Léa", "Camille", "bonsoir, comment vas-tu ? tu fais quoi demain ?"),
            act.says("Léa", "Camille", "attends, j'ai une question sur la musique", after=TYPED_SECONDS),
        )
    )
    act.expect_replies(2)


def _takeover(act: Act) -> None:
    act.judged(
        act.tact("Camille").takeover(
            act.stage.app.chat("Hugo", "Camille").match_id,
            act.says("Hugo", "Camille", "j'ai un souci avec ma commande"),
            act.takes_over("Hugo", "Camille", "Bonjour, ici l'équipe : je m'en occupe."),
            act.says("Hugo", "Camille", "merci beaucoup"),
        )
    )
    act.expect_replies(1)


def _night(act: Act) -> None:
    said = partial(act.stage.screen.say, "It is night for Camille: the message is held. Now the night is over.", "dim")
    act.judged(act.tact("Camille").night(act.says("Karim", "Camille", "tu dors ?"), said))
    act.expect_replies(1)


def _typing_person(act: Act) -> None:
    act.judged(
        act.tact("Camille").typing(
            act.says("Inès", "Camille", "salut Camille"),
            act.says("Inès", "Camille", "voilà ma question : tu aimes voyager ?"),
            act.types("Inès", "Camille", on=True),
            act.types("Inès", "Camille", on=False),
        )
    )
    act.expect_lines("📦 Grouping: 2 messages")
    act.expect_replies(1)


def _without_redis(act: Act) -> None:
    sent = act.script.write([act.says("Léa", "Camille", "au fait, tu aimes voyager ?")])
    act.script.until_typing(sent)
    killed = act.kill_redis()
    sent += act.script.write(
        [
            act.says("Hugo", "Camille", "je sors du cinéma", after=1.0),
            act.says("Léa", "Camille", "moi j'adore le Japon"),
            act.says("Hugo", "Camille", "tu as vu un bon film ?", after=RAPID_SECONDS),
        ]
    )
    # Long enough for a push to fall due, whatever the delays.
    outage = max(OUTAGE_SECONDS, act.stage.settings.grouping_delay + OUTAGE_SECONDS / 2)
    act.stage.pause(killed + outage - time.monotonic())
    back = act.start_redis()
    act.judged(act.script.answered(sent, healthy=False))
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
        "Three messages",
        "Camille answers in three messages; a newer one comes in between, and the rest is withheld.",
        _parts,
    ),
    Scene("A human", "A human writes in Camille's name: she is silent for a while, then answers what came.", _takeover),
    Scene("At night", "A message comes in Camille's quiet hours: it is held, and answered after them.", _night),
    Scene("Who types", "Inès goes on typing, so the group stays open: one reply to both messages.", _typing_person),
    Scene(
        "Redis away",
        "Redis is killed in mid-conversation and comes back empty: nothing is lost, nothing doubled.",
        _without_redis,
    ),
)
