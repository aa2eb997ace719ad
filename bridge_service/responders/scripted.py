"""A small conversationalist in French and English, without network: for demonstrations, until a model is chosen.

It finds the topics of `_SCRIPT` in the group, says a sentence for each, in the order of the group, and asks one thing.
It greets once, prefers what it has not said yet, quotes nothing that it was told, promises nothing and states no fact
that a bot cannot know. The same task always gets the same reply.
"""

import random
import re
import unicodedata
from typing import Final

from bridge_service.turns import Kind, Reply, Task

_READ_CHARACTERS: Final = 20_000  # of a group or a line: the latest; a few sentences answer no more than that

# A topic has a name, patterns for plain small letters, French sentences, English ones, and a question in each language.
_SCRIPT: Final = r"""
distress ~ \b(?:suicid\w+|(?:envie d'|envie de |veux |vais )(?:me tuer|mourir|en finir)\b(?! de))
~ \b(?:kill myself|want to die|end my life)\b
Ces mots comptent : en parler à un proche ou aux secours, maintenant. / Un bot ne suffit pas : un proche, les secours.
I take this seriously: please reach someone close, or the emergency line. / A bot is not enough: please call someone.
how ~ \bca va *(?:$|[?!,]|et (?:toi|vous))|\bca va bien *\?|\b(?:tu vas|vous allez) bien|\bquoi de neuf\b
~ \bcomment (?:vas|allez|tu vas|vous allez)|\bhow (?:are|r) (?:you|u)\b|\bhow'?s it going\b|\bwhat'?s up\b
Ça va bien, merci. / Tout va bien de mon côté, merci. / Plutôt en forme, merci.
I'm doing well, thanks. / All is well on my side, thank you. / Pretty good, thanks.
Et cette journée, elle se passe bien ? / And your day, is it going well?
plans ~ \b(?:tu fais|vous faites|fais[- ]tu) quoi\b|\bqu'est[- ]ce que (?:tu fais|vous faites)|\bde prevu\b
~ \bwhat (?:are|r) (?:you|u) (?:doing|up to)\b|\bplans? (?:for )?(?:tonight|today|tomorrow)\b
Rien de bien arrêté, sans doute un moment tranquille. / Pas grand-chose de prévu, et ça me va très bien.
Nothing fixed, probably a quiet moment. / Not much planned, and I like it that way.
Et ce soir, quelque chose de prévu ? / And tonight, anything planned?
tastes ~ \b(?:rando|montagne|balad|foret|musique|voyag|vacances|film|cine|concert)\w*
~ \b(?:hike|hiking|mountain|music|travel|holiday|movie|trail|walk)\w*
C'est un beau sujet de conversation. / Voilà de quoi discuter un moment.
That's a lovely thing to talk about. / I could talk about that for a while.
Un coup de cœur récent à raconter ? / Any recent favourite to share?
low ~ \bca (?:ne )?va pas\b|\b(?:fatiguee?|triste|deprimee?|tired|sad|exhausted)\b
Courage, il y a des jours comme ça. / Ça arrive, doucement alors.
Hang in there, some days are like that. / It happens, take it slowly then.
name ~ \b(?:ton|votre) (?:pre)?nom\b|\bt'appelles\b|\b(?:tu es qui|qui es[- ]tu)\b|\byour name\b|\bwho are you\b
Moi, c'est {bot}. / Je suis {bot}.
I'm {bot}. / This is {bot}.
bot ~ \b(?:tu es|t'es|es[- ]tu|vous etes|are (?:you|u))\b[^\n]{0,20}\b(?:(?:ro|chat)?bot|ia|ai|humaine?|human|real)\b
Réponse honnête : je suis un bot. / Autant le dire franchement, c'est un bot qui écrit.
Honest answer: I'm a bot. / To be frank, it's a bot writing.
help ~ \b(?:aide[rz]?|coup de main|mot de passe|bugs?|erreurs?|marche (?:pas|plus)|commandes?|colis|rembours\w+|prix)\b
~ \b(?:help|passwords?|locked out|errors?|my order|parcels?|refund\w*|prices?)\b|(?:not|n't) work
Bien sûr, regardons ça. / Prenons ce souci pas à pas.
Of course, let's see. / Let's take this step by step.
Que se passe-t-il, en deux mots ? / What is happening, in a few words?
thanks ~ (?<!bien )(?<!va )\bmerci\b|\b(?:thanks|thank you|thx)\b
Avec plaisir. / De rien, vraiment.
You're welcome. / My pleasure.
goodbye ~ \bau revoir\b|\ba (?:bientot|demain)\b|\bbonne (?:nuit|soiree|journee)\b(?! *\?)|\bbye\b|\bsee you\b
À bientôt ! / À la prochaine ! / À très vite !
See you soon! / Until next time! / Take care!
greeting ~ \b(?:salut|coucou|bonjour|bonsoir|hello|hi|hey|good (?:morning|evening))\b
Toujours là. / Je suis là.
Still here. / I'm here.
Quoi de beau aujourd'hui ? / What's new today?
question ~ \?
Bonne question, j'y réfléchis encore. / Je n'ai pas de réponse toute faite à ça.
Good question, I'm still thinking about it. / I have no ready answer to that.
Un avis là-dessus ? / What's your take?
words ~ \w
Ça me donne envie d'en savoir plus. / Je vois, c'est intéressant.
That makes me want to know more. / I see, that's interesting.
Il y a une histoire derrière ? / Is there a story behind it?
silence ~
Voilà qui me fait sourire 🙂 / Un message sans mots, ça a son charme.
That made me smile 🙂 / A message without words has its charm.
opener ~ (?!)
Salut{name} ! Plutôt sentier en forêt ou grand sommet ? / Salut{name} ! Quel endroit donne envie d'y retourner ?
Hi{name}! Forest trail or high summit? / Hi{name}! Which place would you love to go back to?
follow_up ~ (?!)
Une pensée en passant{name} : quoi de beau de ton côté ? / Coucou{name} ! Une bonne nouvelle à raconter ?
Just a thought{name}: what's new on your side? / Hi{name}! Any good news to share?
"""
FALLBACKS: Final = ("greeting", "question", "words", "silence")  # without any other topic: the first that is found
_CLOSING: Final = {"distress", "goodbye", "opener", "follow_up"}  # no greeting goes before, and nothing is asked
_SPEAKS_FIRST: Final = {Kind.INITIATION: ["opener"], Kind.FOLLOW_UP: ["follow_up"]}
_FRENCH: Final = re.compile(r"\b(?:je|tu|vous|les?|une?|des|du|et|est|ca|quoi|que|pas|mon|merci|salut|coucou|bon\w+)\b")
_ENGLISH: Final = re.compile(r"\b(?:i|you|the|is|are|do|what|how|who|my|your|hello|hi|hey|thanks?|good|to|bye|can)\b")


def _topic(block: str) -> tuple[re.Pattern[str], list[list[str]]]:
    lines = block.splitlines()
    patterns = [line.partition("~ ")[2] for line in lines if "~" in line]
    return re.compile("|".join(patterns), re.MULTILINE), [line.split(" / ") for line in lines if "~" not in line]


TOPICS: Final = {block.partition(" ")[0]: _topic(block) for block in re.split(r"\n(?=\w+ ~)", _SCRIPT.strip())}
HELLO: Final = TOPICS["greeting"][0]


def reply(task: Task) -> str | Reply:
    """One reply, an opener or a follow-up: never blank, never the bot's previous line; a part for a sentence."""
    said = [line.content for line in task.history if line.from_bot]
    heard = "\n".join(_plain(line.content) for line in task.history[-10:] if not line.from_bot)
    text = _plain("\n".join(line.content for line in task.messages))
    names = _SPEAKS_FIRST.get(task.kind) or _found(text)
    english = (_lean(text) if abs(_lean(text)) > 1 else _lean(f"{heard}\n{text}")) > 0
    person, bot = first_name(task.person_name), first_name(task.bot_name)
    blanks = {"name": person and f" {person}", "bot": bot or ("a friendly bot" if english else "un bot bavard")}
    rng = random.Random(task.turn_id)  # noqa: S311 - variety, not secrecy
    sentences, talks = [], _CLOSING.isdisjoint(names)
    if talks and (not said or HELLO.search(text)) and not any(HELLO.search(_plain(line)) for line in said):
        sentences.append(_greeting(text, blanks["name"], english=english))
    for name in names:
        if name != "greeting" or not sentences:
            variants = [each.format_map(blanks) for each in TOPICS[name][1][english]]
            # In order: never said, not in the last line, any. With two variants no reply is the line before it again.
            choices = ([each for each in variants if not _told(each, lines)] for lines in (said, said[-1:], []))
            sentences.append(rng.choice(next(filter(None, choices))))
    asks = [TOPICS[name][1][2][english] for name in reversed(names) if len(TOPICS[name][1]) > 2]  # noqa: PLR2004
    sentences += [ask for ask in asks if talks and not _told(ask, said)][:1]
    apart, rest = sentences[: task.most_parts - 1], sentences[task.most_parts - 1 :]
    return Reply((*apart, " ".join(rest)) if rest else apart) if apart else " ".join(sentences)


def _plain(text: str) -> str:
    """The latest of a text in small letters, without accents and with straight apostrophes."""
    plain = unicodedata.normalize("NFKD", text[-_READ_CHARACTERS:])
    return re.sub("[\u0300-\u036f]+", "", plain).casefold().replace("\u2019", "'")


def _found(text: str) -> list[str]:
    """The topics of a group, in its order; never empty."""
    found = [(match.start(), name) for name, (pattern, _) in TOPICS.items() if (match := pattern.search(text))]
    names = [name for _, name in sorted(found) if name not in FALLBACKS]
    return ["distress"] if "distress" in names else names[:4] or [found[0][1]]


def _lean(text: str) -> int:
    """Above 0 if a text is more English than French."""
    return len(_ENGLISH.findall(text)) - len(_FRENCH.findall(text))


def _greeting(text: str, name: str, *, english: bool) -> str:
    """Greet with the person's own word where it suits the language."""
    match = HELLO.search(text)
    word = match.group() if match and bool(_FRENCH.match(match.group())) is not english else ""
    return f"{word.capitalize() or 'Hello'}{name}!" if english else f"{word.capitalize() or 'Salut'}{name} !"


def _told(sentence: str, said: list[str]) -> bool:
    return any(sentence in line for line in said)


def first_name(name: str) -> str:
    """The first name in a name; '' if none stands there: people may call themselves anything."""
    word = unicodedata.normalize("NFC", name.strip().partition(" ")[0])
    return word if re.fullmatch(r"[^\W\d_](?:[^\W\d_]|['\u2019-]){0,29}", word) else ""
