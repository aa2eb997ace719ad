"""A small conversationalist in French and English, without network: for demonstrations, and until a real one is chosen.

It finds the intents of `phrases.py` in the group, says one sentence for each in the order in which they were written,
and asks one thing back. It greets once, prefers what it has not said yet, quotes nothing that it was told and promises
nothing. The same task always gets the same reply.
"""

import random
import re
import unicodedata
from collections.abc import Mapping, Sequence

from bridge_service.responders.phrases import (
    ENGLISH_WORDS,
    FRENCH_WORDS,
    GREETING,
    INTENTS,
    OPENER,
    OTHERWISE,
    Intent,
)
from bridge_service.turns import Kind, Task

_READ_CHARACTERS = 20_000  # of a group or a line: the latest; a few sentences answer no more than that
_READ_LINES = 10  # of the history, for the language and the tone
_ANSWERED_INTENTS = 4

_FRENCH_WORDS = frozenset(FRENCH_WORDS.split())
_ENGLISH_WORDS = frozenset(ENGLISH_WORDS.split())
_TU = re.compile(r"\b(?:tu|toi|te|ton|ta|tes|t')\b")
_VOUS = re.compile(r"\b(?:vous|votre|vos|madame|monsieur)\b")
_ACCENTS = re.compile("[\u0300-\u036f]+")
_NAME = re.compile(r"[^\W\d_](?:[^\W\d_]|['\u2019-]){0,29}")
_FRENCH_GREETINGS = frozenset({"salut", "coucou", "bonjour", "bonsoir"})


def reply(task: Task) -> str:
    """One reply to the whole group, or a first word: never blank, never the bot's previous line word for word."""
    said = [line.content for line in task.history if line.from_bot]
    heard = "\n".join(_plain(line.content) for line in task.history[-_READ_LINES:] if not line.from_bot)
    text = _plain("\n".join(line.content for line in task.messages))
    intents = [OPENER] if task.kind is Kind.INITIATION else _intents(text)
    english = _is_english(text, heard)
    formal = _is_formal(f"{heard}\n{text}", intents)
    forms = _forms(task, english=english, formal=formal)
    rng = random.Random(task.turn_id)  # noqa: S311 - variety, not secrecy
    closes = any(intent.closes for intent in intents)

    sentences = []
    if not closes and _owes_greeting(text, said):
        sentences.append(_greeting(text, english=english, formal=formal).format_map(forms))
    for intent in intents:
        if not (intent is GREETING and sentences):
            sentences.append(rng.choice(_unsaid(_filled(intent.words(english=english).says, forms), said)))
    if not closes:
        asks = [ask for intent in reversed(intents) for ask in intent.words(english=english).asks]
        sentences += [ask for ask in _filled(asks, forms) if not _is_in(ask, said)][:1]
    return " ".join(sentences)


def _plain(text: str) -> str:
    """The latest of a text in small letters, without accents and with straight apostrophes."""
    return _ACCENTS.sub("", unicodedata.normalize("NFKD", text[-_READ_CHARACTERS:])).casefold().replace("\u2019", "'")


def _intents(text: str) -> list[Intent]:
    """What a group wants, in the order in which it was written; never empty."""
    found = [(match.start(), intent) for intent in INTENTS if (match := intent.pattern.search(text))]
    intents = [intent for _, intent in sorted(found, key=lambda pair: pair[0])]
    alone = [intent for intent in intents if intent.alone]
    return alone or intents[:_ANSWERED_INTENTS] or [next(other for other in OTHERWISE if other.pattern.search(text))]


def _is_english(text: str, heard: str) -> bool:
    """Judge by the group; where it says little, by what the person wrote before; French if that says nothing either."""
    lean = _english_lean(text)
    return (lean if abs(lean) > 1 else lean + _english_lean(heard)) > 0


def _english_lean(text: str) -> int:
    words = re.findall("[a-z]+", text)
    return sum((word in _ENGLISH_WORDS) - (word in _FRENCH_WORDS) for word in words)


def _is_formal(text: str, intents: Sequence[Intent]) -> bool:
    """Say "vous" to who says it, and to who asks for service without saying "tu"."""
    tu, vous = len(_TU.findall(text)), len(_VOUS.findall(text))
    return vous > tu or (tu == 0 and any(intent.service for intent in intents))


def _forms(task: Task, *, english: bool, formal: bool) -> dict[str, str]:
    toi, ton, ta = ("vous", "votre", "votre") if formal else ("toi", "ton", "ta")
    name = _first_word(task.person_name)
    nobody = "someone who likes to chat" if english else "quelqu'un qui aime discuter"
    return {"name": name and f" {name}", "bot": _first_word(task.bot_name) or nobody, "toi": toi, "ton": ton, "ta": ta}


def _first_word(name: str) -> str:
    """The first name in a name, or '' if what stands there is hardly one: people may call themselves anything."""
    word = name.strip().partition(" ")[0]
    return word if _NAME.fullmatch(unicodedata.normalize("NFC", word)) else ""


def _owes_greeting(text: str, said: Sequence[str]) -> bool:
    """Greet once: at the bot's first line, or when the person does and the bot never did."""
    greeted = any(GREETING.pattern.search(_plain(line)) for line in said)
    return not greeted and (not said or GREETING.pattern.search(text) is not None)


def _greeting(text: str, *, english: bool, formal: bool) -> str:
    """Greet with the person's own word where it suits the language."""
    match = GREETING.pattern.search(text)
    word = match.group() if match else ""
    if english:
        return f"{'Hello' if word in _FRENCH_GREETINGS else word.capitalize() or 'Hi'}{{name}}!"
    if word not in _FRENCH_GREETINGS:
        word = "bonjour" if formal else "salut"
    return f"{word.capitalize()}{{name}} !"


def _filled(lines: Sequence[str], forms: Mapping[str, str]) -> list[str]:
    return [line.format_map(forms) for line in lines]


def _is_in(sentence: str, said: Sequence[str]) -> bool:
    return any(sentence in line for line in said)


def _unsaid(variants: list[str], said: Sequence[str]) -> list[str]:
    """The variants that the bot has never used; failing that, not in its last line; failing that, all.

    Since there are two variants of everything, no reply is the line before it again.
    """
    fresh = [variant for variant in variants if not _is_in(variant, said)]
    return fresh or [variant for variant in variants if not _is_in(variant, said[-1:])] or variants
