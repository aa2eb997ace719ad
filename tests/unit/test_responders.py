"""What is accepted of a responder, and what the two built-in ones say."""

import asyncio
import sys
import unicodedata
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, Final
from unittest.mock import MagicMock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge_service import responders
from bridge_service.errors import ConfigurationError, ResponderUnavailable
from bridge_service.responders import (
    REPLY_LIMIT,
    NamedResponder,
    Responder,
    clean_reply,
    echo,
    is_async,
    joined,
    load_responder,
    scripted,
    split,
)
from bridge_service.responders.scripted import TOPICS
from bridge_service.turns import Action, Kind, Line, Reply, Task
from bridge_service.worker.numbers import WorkerMetrics

CANARY = "kanarienvogel"

any_text = st.text(st.characters(exclude_categories=()))  # lone surrogates and NUL, too
history_lines = st.lists(st.builds(Line, st.none(), st.booleans(), any_text, st.none()), max_size=4)


def task(*messages: str, history: tuple[Line, ...] = (), turn_id: int = 1, kind: Kind = Kind.REPLY) -> Task:
    """Make a task that covers `messages`."""
    return Task(
        turn_id=turn_id,
        kind=kind,
        match_id="0b0e7c52-7c2e-4a0c-9d43-3a4ac3b9e8a1",
        bot_id="5f4f4e0f-52f7-44f5-8f9e-a4c0ab2bfb0d",
        bot_name="Camille",
        person_name="Paul",
        messages=tuple(person(text) for text in messages),
        history=history,
        attempts=0,
        merges=0,
    )


def person(text: str) -> Line:
    """Make a line that the person wrote."""
    return Line(message_id=None, from_bot=False, content=text, sent_at=None)


def bot(text: str) -> Line:
    """Make a line that the bot wrote."""
    return Line(message_id=None, from_bot=True, content=text, sent_at=None)


# --- Finding one ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "responder"), [("echo", echo.reply), ("scripted", scripted.reply)])
def test_built_in_responders_have_names(name: str, responder: object) -> None:
    """`echo` and `scripted` need no module path."""
    assert load_responder(name) is responder


@pytest.fixture
def own_modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Give a folder whose modules can be imported, and forget them afterwards."""
    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


def test_a_responder_of_ones_own(own_modules: Path) -> None:
    """`package.module:callable` finds a function of any module on the path."""
    (own_modules / "shop").mkdir()
    (own_modules / "shop" / "bots.py").write_text("def say(task): return task.messages[0].content.upper()")

    assert load_responder("shop.bots:say")(task("oui")) == "OUI"


@pytest.mark.parametrize(
    ("name", "module", "fault"),
    [
        (CANARY, "", "no such responder"),
        ("", "", "no such responder"),
        (f"https://{CANARY}@example.org/v1", "", "was not found"),
        (f"{CANARY}.bots:say", "", "was not found"),
        ("broken_bots:say", f"import {CANARY}_library", f"needs {CANARY}_library"),
        ("broken_bots:say", f"raise RuntimeError('{CANARY}')", "raises RuntimeError"),
        ("broken_bots:say", f"import sys; sys.exit('{CANARY}')", "raises SystemExit"),
        ("broken_bots:say", f"def __getattr__(name): raise ValueError('{CANARY}')", "raises ValueError"),
        ("broken_bots:say", f"def say(: {CANARY}", "raises SyntaxError"),
        (f"broken_bots:{CANARY}", "", "no function"),
        ("broken_bots:say", f"say = '{CANARY}'", "no function"),
    ],
)
def test_a_responder_that_is_not_there(own_modules: Path, name: str, module: str, fault: str) -> None:
    """What cannot be loaded is one line that names the variable and the fault, without the value or foreign words."""
    (own_modules / "broken_bots.py").write_text(module)

    with pytest.raises(ConfigurationError) as caught:
        load_responder(name)

    (line,) = caught.value.faults
    assert line.startswith("RESPONDER: ")
    assert fault in line
    assert "\n" not in line
    assert CANARY not in line.replace(f"{CANARY}_library", "")


def test_what_a_responder_imports() -> None:
    """A responder finds what it is told, and the error of a service that is away, in one place."""
    assert (responders.Task, responders.Line) == (Task, Line)
    assert responders.ResponderUnavailable is ResponderUnavailable
    assert set(responders.__all__) == {"Line", "Reply", "ResponderUnavailable", "Task"}


class Caller:
    """A responder that is an object; the method is async."""

    async def __call__(self, asked: Task) -> str:
        """Answer."""
        return await self.reply(asked)

    async def reply(self, asked: Task) -> str:
        """Answer."""
        return asked.messages[0].content


@pytest.mark.parametrize("responder", [Caller(), Caller().reply, partial(Caller().reply)])
def test_a_responder_may_be_async(responder: Responder) -> None:
    """An async function, a method or partial of one, or an object that is called like one; it stays so when timed."""
    measure = WorkerMetrics("127.0.0.1", None, live=list, ready=list, token=None)
    measure._metrics = metrics = MagicMock()
    timed = measure.timed(responder)
    assert (is_async(responder), is_async(timed)) == (True, True)
    answer: Any = timed(task("oui"))
    metrics.responder_took.assert_not_called()
    assert asyncio.run(answer) == "oui"
    metrics.responder_took.assert_called_once()


@pytest.mark.parametrize("responder", [echo.reply, partial(echo.reply), Caller, str])
def test_any_other_responder_is_plain(responder: Responder) -> None:
    """A thread asks it."""
    assert not is_async(responder)


def test_a_responder_is_imported_when_it_is_told_to(own_modules: Path) -> None:
    """Naming a responder imports nothing; loading it does."""
    (own_modules / "late_bots.py").write_text("def say(task): return 'oui'")
    named = NamedResponder("late_bots:say")

    assert "late_bots" not in sys.modules
    named.load()
    assert named(task("salut")) == "oui"


# --- Accepting its reply -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("  deux\n\nlignes ", "  deux\n\nlignes "),
        ("a\0b", "ab"),
        ("a\ud800b\udfffc\udbff", "a\ufffdb\ufffdc\ufffd"),
        ("\ud83d\ude00", "\U0001f600"),
        ("\ufeffa", "\ufeffa"),
        ("a" * (REPLY_LIMIT + 1), "a" * REPLY_LIMIT),
    ],
)
def test_a_reply_is_made_storable(text: str, cleaned: str) -> None:
    """NUL, lone surrogates and excess go; whitespace and all else stay."""
    assert clean_reply(text) == Reply((cleaned,))


@pytest.mark.parametrize(
    "text",
    ["", " \n\t", "\0", "\0 \0", " " * REPLY_LIMIT + CANARY, None, 42, CANARY.encode(), [CANARY], Reply((CANARY, " "))],
)
def test_a_useless_reply_is_refused(text: object) -> None:
    """A blank text or something else than a text is a ValueError that does not quote it."""
    with pytest.raises(ValueError, match="the responder returned") as caught:
        clean_reply(text)

    assert CANARY not in str(caught.value)


@pytest.mark.parametrize(
    ("reply", "fault"),
    [
        (Reply(()), "has no parts: use silence"),
        (Reply((CANARY,), "silence"), "is silence and has parts"),
        (Reply((CANARY,), CANARY), "none of say, silence, leave"),  # type: ignore[arg-type]
        (Reply((CANARY,), None), "none of say, silence, leave"),  # type: ignore[arg-type]
        (Reply(CANARY), "not a sequence of texts"),
        (Reply({CANARY}), "not a sequence of texts"),  # type: ignore[arg-type]
        (Reply((CANARY, 17)), "a part of the reply is int"),  # type: ignore[arg-type]
    ],
)
def test_a_reply_that_contradicts_itself_is_refused(reply: Reply, fault: str) -> None:
    """The error says what is wrong, and quotes nothing."""
    with pytest.raises(ValueError, match=fault) as caught:
        clean_reply(reply)

    assert CANARY not in str(caught.value)


@pytest.mark.parametrize("action", ["silence", "leave"])
def test_a_reply_may_say_nothing(action: Action) -> None:
    """Silence has no parts, and a bot may leave without a word."""
    assert clean_reply(Reply([], action)) == Reply((), action)


def test_several_parts_are_one_message() -> None:
    """What exceeds the number of messages joins the last one after a blank line."""
    assert clean_reply(Reply(["a\0", "b", "c"], "leave")) == Reply(("a\n\nb\n\nc",), "leave")
    assert joined(["a", "b", "c"], 2) == ("a", "b\n\nc")
    assert joined(["a", "b"], 3) == ("a", "b")
    assert joined([]) == ()
    assert clean_reply(Reply(["a", "b", "c"]), 2) == Reply(("a", "b\n\nc"))


def test_all_parts_together_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """As one message would be: what exceeds the bound is cut off, and a part of which nothing is left is left out."""
    monkeypatch.setattr("bridge_service.responders.REPLY_LIMIT", 5)
    assert joined(["abc", "def", "g"], 3) == ("abc", "de")


LONG: Final = "Je pars demain matin avec M. Dupont, etc. et les autres. Et toi, tu viens ? « Oui ! » Dis-moi tout..."


@pytest.mark.parametrize("most", [1, 2, 3, 10])
def test_a_long_text_is_split_at_the_ends_of_sentences(most: int) -> None:
    """Only above 200 characters, only if a reply may have several messages, and without losing a word."""
    text = f"{LONG} {LONG} {LONG}"
    parts = clean_reply(text, most).parts
    assert len(parts) == min(most, 2)
    assert " ".join(parts) == text
    assert all(part.endswith((".", "?", "»")) for part in parts)
    assert clean_reply(Reply([text]), most).parts == parts
    assert clean_reply(text[:200].strip(), most).parts == (text[:200].strip(),)


@pytest.mark.parametrize("text", ["x" * 500, "mot " * 100 + ".", "1. un 2. deux " * 20 + "M. Dupont " * 5])
def test_a_text_of_one_sentence_is_one_message(text: str) -> None:
    """No word is cut, and neither an initial nor a number of a list ends a sentence."""
    assert clean_reply(text, 10) == Reply((text,))


@given(st.text(alphabet="aB1 .!?…»\n\u00a0", max_size=1200), st.integers(1, 10))
def test_split_loses_nothing(text: str, most: int) -> None:
    """Whatever the text: at most so many parts, none blank, and nothing but white space is left out."""
    parts = split(text, most)
    assert len(parts) <= most
    assert "".join("".join(parts).split()) == "".join(text.split())
    assert len(parts) == 1 or all(part.strip() for part in parts)


def test_echo_is_never_split() -> None:
    """Its reply proves its group, so it is one message however long."""
    text = f"{LONG} {LONG} {LONG}"
    assert clean_reply(echo.reply(task(text)), 10) == Reply((text,))


@given(any_text)
def test_a_clean_reply_fits_postgresql(text: str) -> None:
    """Whatever is accepted encodes to UTF-8, holds no NUL, is readable, and is clean already."""
    try:
        reply = clean_reply(text)
    except ValueError:
        assert not text.replace("\0", "").strip()
    else:
        (cleaned,) = reply.parts
        assert b"\0" not in cleaned.encode()
        assert cleaned.strip()
        assert clean_reply(reply) == reply


# --- Echo ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("messages", "text"),
    [
        (("salut", "ça va ?", "tu fais quoi ce soir ?"), "salut\nça va ?\ntu fais quoi ce soir ?"),
        (("  deux\nlignes  ", ""), "  deux\nlignes  \n"),
        (("", "", "a"), "\n\na"),
        (("a" * 50_000,), "a" * 50_000),
        (("",), "…"),
        (("", " \t"), "…"),
    ],
)
def test_echo_repeats_exactly(messages: tuple[str, ...], text: str) -> None:
    """The contents, in order, one per line, unaltered on their way to the app; `…` only if there is nothing to read."""
    assert clean_reply(echo.reply(task(*messages, history=(person("avant"), bot("oui"))))) == Reply((text,))


def test_echo_opens_with_bonjour() -> None:
    """An initiation says `bonjour`."""
    assert echo.reply(task(kind=Kind.INITIATION)) == "bonjour"
    assert echo.reply(task(kind=Kind.FOLLOW_UP)) == "bonjour"


# --- Scripted ------------------------------------------------------------------------------------


def said(asked: Task) -> str:
    """Return what the script says in one message."""
    text = scripted.reply(asked)
    assert isinstance(text, str)
    return text


def topics(text: str) -> set[str]:
    """Return the topics of the script that `text` answers, in either language."""
    return {
        name
        for name, (_, (french, english, *_)) in TOPICS.items()
        if any(phrase.format(name=" Paul", bot="Camille") in text for phrase in (*french, *english))
    }


@pytest.mark.parametrize("turn_id", range(10))
def test_a_burst_gets_one_coherent_reply(turn_id: int) -> None:
    """Three messages get a greeting by name, an answer to each question in order, and one question back."""
    text = said(task("salut", "ça va ?", "tu fais quoi ce soir ?", turn_id=turn_id))
    how, plans = (TOPICS[name][1][0] for name in ("how", "plans"))

    assert text.startswith("Salut Paul ! ")
    first = next(text.index(phrase) for phrase in how if phrase in text)
    second = next(text.index(phrase) for phrase in plans if phrase in text)
    assert first < second
    assert text.count("?") == 1
    assert text.endswith("?")


@pytest.mark.parametrize(
    ("messages", "history", "start"),
    [
        (("salut",), (), "Salut Paul !"),
        (("Bonsoir, ça va ?",), (), "Bonsoir Paul !"),
        (("hey", "how are you?"), (), "Hey Paul!"),
        (("Good morning, any plans for today?",), (), "Good morning Paul!"),
        (("hello",), (), "Hello Paul!"),
        (("hello",), (person("tu aimes la montagne ?"),), "Salut Paul !"),
        (("ok",), (person("do you like the mountains?"),), "Hello Paul!"),
        (("ok",), (), "Salut Paul !"),
        (("привет",), (), "Salut Paul !"),
        (("où est ma commande ?",), (), "Salut Paul !"),
    ],
)
def test_it_speaks_the_persons_language(messages: tuple[str, ...], history: tuple[Line, ...], start: str) -> None:
    """The group's words choose French or English, then the person's earlier words; French if neither tells."""
    assert said(task(*messages, history=history)).startswith(start)


@pytest.mark.parametrize("message", ["salut", "salut, ça va ?", "hello, how are you?", "coucou, il pleut ?"])
@pytest.mark.parametrize("opener", ["Salut Paul ! Plutôt forêt ?", "Bonjour.", "Hi Paul!"])
def test_it_greets_once(message: str, opener: str) -> None:
    """A bot that has greeted does not greet again, even if the person does."""
    text = said(task(message, history=(bot(opener), person("oui"))))

    assert not any(word in text.lower().split() for word in ("salut", "coucou", "bonjour", "hello", "hi", "hey"))


@pytest.mark.parametrize(
    ("message", "topic"),
    [
        ("comment vas-tu", "how"),
        ("vous allez bien ?", "how"),
        ("how's it going", "how"),
        ("je suis fatiguée", "low"),
        ("i am so tired", "low"),
        ("qu'est-ce que tu fais", "plans"),
        ("what are you up to", "plans"),
        ("une rando en montagne", "tastes"),
        ("tu aimes la musique ?", "tastes"),
        ("a walk on a trail", "tastes"),
        ("c'est quoi ton prénom", "name"),
        ("what's your name", "name"),
        ("tu es un robot", "bot"),
        ("are you real?", "bot"),
        ("mot de passe perdu", "help"),
        ("ça ne marche pas", "help"),
        ("mon colis", "help"),
        ("it doesn't work", "help"),
        ("a refund", "help"),
        ("merci", "thanks"),
        ("thank you", "thanks"),
        ("à bientôt", "goodbye"),
        ("see you", "goodbye"),
        ("bonjour", "greeting"),
        ("vraiment ?", "question"),
        ("il n'y a plus de place", "words"),
        ("je vais mourir de rire", "words"),
        ("🦊", "silence"),
    ],
)
def test_it_understands(message: str, topic: str) -> None:
    """Each thing that people say is exactly one topic, in both languages; a look-alike word is none."""
    assert topics(said(task(message, history=(bot("Bonjour. Hello."),)))) == {topic}


@pytest.mark.parametrize("messages", [("salut", "ça va ?", "j'ai envie de mourir"), ("hello", "I want to die")])
def test_it_takes_distress_seriously(messages: tuple[str, ...]) -> None:
    """A person who speaks of dying is answered to that alone, without a greeting or a question."""
    text = said(task(*messages))

    assert topics(text) == {"distress"}
    assert text in TOPICS["distress"][1][0] + TOPICS["distress"][1][1]


def test_it_lets_people_go() -> None:
    """After a goodbye nothing is asked."""
    assert "?" not in said(task("merci, bonne soirée", history=(bot("Salut !"),)))


def test_it_does_not_repeat_itself() -> None:
    """The same message again and again never gets the same reply twice running, nor the same question twice at all."""
    history: tuple[Line, ...] = ()
    for turn_id in range(20):
        text = said(task("ça va ?", history=history, turn_id=turn_id))
        history += (person("ça va ?"), bot(text))

    replies = [line.content for line in history if line.from_bot]
    assert all(one != other for one, other in pairwise(replies))
    assert sum(reply.endswith("?") for reply in replies) == 1


def test_it_follows_up_in_the_language_of_the_conversation() -> None:
    """One line, as one of its variants, which is not the bot's line before, and asks for no forgiveness."""
    history = (person("hello, how are you?"), bot("Pretty good, thanks."))
    following = task(kind=Kind.FOLLOW_UP, history=history)
    lines = {said(replace(following, turn_id=turn_id)) for turn_id in range(20)}

    assert lines == {phrase.format(name=" Paul") for phrase in TOPICS["follow_up"][1][1]}
    assert not any(word in line for line in lines for word in ("sorry", "busy", "forgot"))


def test_it_opens_a_conversation() -> None:
    """An opener greets by name; each variant comes up; a name that is none, or missing, is left out."""
    opening = task(kind=Kind.INITIATION)
    openers = {said(replace(opening, turn_id=turn_id)) for turn_id in range(20)}

    assert openers == {phrase.format(name=" Paul") for phrase in TOPICS["opener"][1][0]}
    for name in ("", "  ", "<b>Paul</b>", "{bot}", "https://example.org", "a" * 31, "Paul\nPierre"):
        assert said(replace(opening, person_name=name)).startswith("Salut ! ")
    for name in ("Jean-Paul", "Zoé", "Zoe\u0301", "O'Neil", "Олег"):
        assert said(replace(opening, person_name=f" {name} Martin")).startswith(
            f"Salut {unicodedata.normalize('NFC', name)} ! "
        )


def test_it_has_a_name_even_without_one() -> None:
    """Asked for its name, a bot that has none says no nonsense."""
    assert "un bot bavard." in said(replace(task("tu es qui ?"), bot_name=""))


@given(st.lists(any_text, max_size=4), history_lines, st.sampled_from(Kind), any_text, st.integers())
def test_any_text_gets_a_reply(messages: list[str], history: list[Line], kind: Kind, name: str, turn_id: int) -> None:
    """Whatever was written, the reply is storable as it is, no repetition of the last line, and always the same."""
    asked = replace(
        task(*messages, history=tuple(history), turn_id=turn_id, kind=kind), bot_name=name, person_name=name
    )
    text = said(asked)

    assert clean_reply(text) == Reply((text,))
    assert text == said(asked)
    assert text != said(replace(asked, history=(*history, bot(text))))


WORDS = [
    "salut",
    "hello",
    "ça va ?",
    "tu",
    "vous",
    "et toi",
    "how are you",
    "merci",
    "bye",
    "{name}",
    "rando",
    "<b>",
    "%s",
]


@given(st.lists(st.lists(st.sampled_from(WORDS), max_size=6).map(" ".join), min_size=1, max_size=6), st.integers())
def test_a_conversation_stays_short_and_fresh(messages: list[str], turn_id: int) -> None:
    """In a conversation of common words no reply repeats the one before, and none is long or has a blank to fill."""
    history: tuple[Line, ...] = ()
    for message in messages:
        text = said(task(message, history=history, turn_id=turn_id))
        assert text not in [line.content for line in history[-1:]]
        assert len(text) < 400
        assert not set("{}<>%") & set(text)
        history += (person(message), bot(text))


@pytest.mark.parametrize(
    "text", ["ca va " * 20_000, "tu es " * 20_000, "good " * 20_000, "\u0300" * 100_000, "ﷺ" * 50_000]
)
def test_a_huge_message_is_no_burden(text: str) -> None:
    """Texts that are made to keep patterns busy are answered in no time."""
    assert said(task(text, history=(person(text), bot(text))))


def test_only_the_latest_of_a_huge_message_is_read() -> None:
    """What stands more than 20,000 characters before the end is not looked at."""
    assert "thanks" not in topics(said(task("merci", "x" * 20_000)))


def test_everything_can_be_said_in_two_ways() -> None:
    """Each answer has two variants or more in each language, distinct everywhere: what keeps replies from repeating."""
    said = [sentences for _, (french, english, *_) in TOPICS.values() for sentences in (french, english)]
    phrases = [phrase for sentences in said for phrase in sentences]

    assert all(len(sentences) > 1 for sentences in said)
    assert len(phrases) == len(set(phrases))
    assert all(len(questions) == 2 for _, (_, _, *asks) in TOPICS.values() for questions in asks)


@pytest.mark.parametrize(("most", "parts"), [(2, 2), (3, 3), (10, 4)])
def test_the_script_says_each_sentence_apart_where_it_may(most: int, parts: int) -> None:
    """With REPLY_PARTS above 1 a sentence is a message, up to that many, and together they say the same."""
    asked = task("salut", "ça va ?", "tu fais quoi ce soir ?")
    reply = scripted.reply(replace(asked, most_parts=most))
    assert isinstance(reply, Reply)
    assert (len(reply.parts), " ".join(reply.parts)) == (parts, said(asked))
    assert clean_reply(scripted.reply(replace(task("ça va ?", history=(bot("Salut"),)), most_parts=most)), most).parts
