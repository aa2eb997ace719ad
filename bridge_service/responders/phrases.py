r"""What the scripted responder understands, and its words for it, in French and English: data only.

Patterns meet text in small letters without accents (`ca va`, not `Ça va`); `^` and `$` are the ends of one message.
Phrases may hold {name}, the person's first name with a space before it, or nothing; {bot}, the bot's; and {toi}, {ton},
{ta}, which become "vous" and "votre" for who is to be addressed so. They agree with no gender, since nobody knows the
bot's, and state no fact that the bot cannot know.
"""

import re
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Words:
    """One language's: `says` are variants of the same answer, `asks` are questions to give back."""

    says: tuple[str, ...]
    asks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Intent:
    """Something that a person may want, and what is answered.

    Attributes:
      pattern: where it is found in a text.
      french: the French words.
      english: the English words.
      service: it is asked of a shop or a support desk.
      closes: nothing is asked back, and no greeting goes before.
      alone: too serious to be one sentence among others.
    """

    pattern: re.Pattern[str]
    french: Words
    english: Words
    service: bool = False
    closes: bool = False
    alone: bool = False

    def words(self, *, english: bool) -> Words:
        """The words of the language that is spoken."""
        return self.english if english else self.french


def _any(*alternatives: str) -> re.Pattern[str]:
    return re.compile("|".join(alternatives), re.MULTILINE)


INTENTS = (
    Intent(
        _any(
            r"\b(?:suicid\w+|(?:envie d'|envie de |veux |vais )(?:me tuer|mourir|en finir)\b(?! de))\b",
            r"\b(?:kill myself|want to die|end my life)\b",
        ),
        Words(
            (
                "Je prends ces mots au sérieux. En parler à un proche ou aux secours, maintenant, c'est important.",
                "Ces mots comptent, et un programme ne suffit pas : un proche ou les secours, tout de suite.",
            )
        ),
        Words(
            (
                "I take these words seriously. Please talk to someone close or to the emergency services now.",
                "These words matter, and a program is not enough: please reach someone close or the emergency line.",
            )
        ),
        closes=True,
        alone=True,
    ),
    Intent(  # how are you?
        _any(
            r"\bca va *(?:$|[?!,]|(?:et )?(?:toi|vous)\b)",
            r"\bca va bien *\?|\b(?:tu vas|vous allez) bien\b|\bla forme *\?|\bquoi de neuf\b",
            r"\bcomment (?:vas[- ]tu|tu vas|allez[- ]vous|vous allez)\b",
            r"\bbien\b[^\n?]{0,12}\bet (?:toi|vous)\b",
            r"\bhow (?:are|r) (?:you|u|things)\b|\bhow(?: i|')?s it going\b|\bhow have you been\b|\bwhat'?s up\b",
            r"\b(?:good|fine|great|well)\b[^\n?]{0,12}\b(?:and|about) you\b",
        ),
        Words(
            ("Ça va bien, merci.", "Tout va bien de mon côté, merci.", "Plutôt en forme, merci."),
            ("Et {toi}, la journée se passe bien ?", "Et {toi}, quoi de beau en ce moment ?"),
        ),
        Words(
            ("I'm doing well, thanks.", "All is well on my side, thank you.", "Pretty good, thanks."),
            ("And you, how is your day going?", "And you, what's new?"),
        ),
    ),
    Intent(  # I am fine
        _any(
            r"\b(?:je vais|ca va|tout va) (?:tres )?(?:bien|mieux|super|nickel)\b(?! *\?)",
            r"^(?:tres )?bien(?= *(?:$|[,.!]|merci))",
            r"\b(?:i'?m|i am|doing) (?:very |pretty )?(?:good|fine|great|well|ok)\b",
        ),
        Words(("Ça fait plaisir à lire.", "Voilà une bonne nouvelle.")),
        Words(("That's nice to read.", "Glad to hear it.")),
    ),
    Intent(  # I am not so fine
        _any(
            r"\bca (?:ne )?va pas\b|\bpas (?:trop|tres) (?:bien|la forme)\b|\b(?:fatiguee?|crevee?|triste|deprimee?)\b",
            r"\b(?:tired|sad|exhausted|not (?:so|very|too) (?:good|well))\b",
        ),
        Words(("Courage, il y a des jours comme ça.", "Ça arrive, doucement alors.")),
        Words(("Hang in there, some days are like that.", "It happens, take it slowly then.")),
    ),
    Intent(  # what are you doing?
        _any(
            r"\b(?:tu fais|vous faites|fais[- ]tu|faites[- ]vous) quoi\b(?! dans la vie)|\bque (?:fais|faites)\b",
            r"\bqu'est[- ]ce que (?:tu fais|vous faites)\b(?! dans la vie)|\bde prevu\b",
            r"\bwhat (?:are|r) (?:you|u) (?:doing|up to)\b|\bplans? (?:for )?(?:tonight|this|today|tomorrow)\b",
        ),
        Words(
            (
                "Rien de bien arrêté, sans doute un moment tranquille.",
                "Pas grand-chose de prévu, et ça me va très bien.",
            ),
            ("Et {toi}, quelque chose de prévu ?", "Et de {ton} côté, c'est quoi le programme ?"),
        ),
        Words(
            ("Nothing fixed, probably a quiet moment.", "Not much planned, and I like it that way."),
            ("And you, anything planned?", "What's the plan on your side?"),
        ),
    ),
    Intent(  # hikes
        _any(
            r"\b(?:rando\w*|montagnes?|sentiers?|sommets?|balad\w+|promen\w+|marcher|une marche|refuges?|forets?)\b",
            r"\b(?:trek\w*|hik\w+|mountains?|trails?|walks?|walking|summits?|forests?)\b",
        ),
        Words(
            ("Un sentier au calme, ça me parle toujours.", "Une belle balade, c'est difficile à refuser."),
            ("Plutôt forêt ou sommets, de {ton} côté ?", "Un coin préféré pour marcher ?"),
        ),
        Words(
            ("A quiet trail always sounds good to me.", "A good walk is hard to turn down."),
            ("Forests or summits, for you?", "A favourite place to walk?"),
        ),
    ),
    Intent(  # weather
        _any(
            r"\b(?:meteo|pluie|soleil|neige|orages?|quel temps|il (?:pleut|fait (?:beau|froid|chaud)))\b",
            r"\b(?:weather|rain\w*|sunny|snow\w*|storms?)\b",
        ),
        Words(
            (
                "Pour la météo, je ne promets rien : le ciel décide.",
                "Le temps change vite, un bulletin du jour reste plus sûr que moi.",
            )
        ),
        Words(
            (
                "As for the weather, I promise nothing: the sky decides.",
                "Weather changes fast, today's forecast is a better guide than I am.",
            )
        ),
    ),
    Intent(  # shall we?
        _any(
            r"\bon (?:se (?:voit|retrouve|rencontre|capte)|sort|y va)\b|\b(?:tu veux|ca te dit|tu viens|partante?)\b",
            r"\b(?:un verre|un cafe|rendez[- ]vous|rdv|resto)\b",
            r"\b(?:wanna|do you want to|shall we|let's|would you like|join me|meet up|a (?:drink|coffee|date))\b",
        ),
        Words(
            ("L'idée me plaît, voyons ça tranquillement.", "Pourquoi pas, après avoir fait un peu connaissance ici."),
            ("Une envie en particulier ?", "Une idée d'endroit ?"),
        ),
        Words(
            ("I like the idea, let's take it slowly.", "Why not, once we have chatted here a little."),
            ("What do you have in mind?", "Any place you are thinking of?"),
        ),
    ),
    Intent(  # who are you?
        _any(
            r"\bt'appelles(?:[- ]tu)? comment\b|\bcomment (?:tu )?t'appelles\b|\bcomment vous (?:vous )?appelez\b",
            r"\b(?:ton|votre) (?:pre)?nom\b|\b(?:tu es|t'es|vous etes) qui\b|\bqui (?:es[- ]tu|etes[- ]vous)\b",
            r"\byour name\b|\bwho (?:are|r) (?:you|u)\b",
        ),
        Words(("Moi, c'est {bot}.", "Ici {bot}.")),
        Words(("I'm {bot}.", "This is {bot}.")),
    ),
    Intent(  # my name is
        _any(r"\b(?:je m'appelle|mon (?:pre)?nom est|moi,? c'est|my name is|call me)\b"),
        Words(("C'est un plaisir de faire connaissance.", "Quel joli prénom.")),
        Words(("It's nice to meet you.", "What a lovely name.")),
    ),
    Intent(  # are you a bot?
        _any(
            r"\b(?:tu es|t'es|es[- ]tu|vous etes|etes[- ]vous|(?:are|r) (?:you|u)|you'?re)\b[^\n]{0,20}"
            r"\b(?:bot|robot|chatbot|ia|(?<!')ai|humaine?|human|vraie personne|automate|real(?= *(?:$|[?!]|person)))\b",
        ),
        Words(("Réponse honnête : je suis un bot.", "Autant le dire franchement, c'est un bot qui écrit.")),
        Words(("Honest answer: I'm a bot.", "To be frank, it's a bot writing.")),
    ),
    Intent(  # price
        _any(
            r"\b(?:prix|tarifs?|combien (?:ca )?cout\w+|c'est combien|promo\w*)\b",
            r"\b(?:prices?|costs?|how much|discounts?)\b",
        ),
        Words(
            ("Pour le prix, la page de l'article fait foi.", "Un prix, je préfère ne pas le donner de tête."),
            ("De quel article s'agit-il ?",),
        ),
        Words(
            ("For the price, the item's page is the one to trust.", "I'd rather not quote a price from memory."),
            ("Which item is it?",),
        ),
        service=True,
    ),
    Intent(  # order, delivery
        _any(
            r"\b(?:commandes?|commander|colis|livraisons?|livreur|suivi|expedi\w+)\b",
            r"\b(?:(?<!in )orders?|ordered|parcels?|deliver\w*|shipping|shipped|tracking)\b",
        ),
        Words(
            ("Pour une commande, le suivi en dit plus que moi.", "Pour une commande, mieux vaut vérifier que deviner."),
            ("Quel est le numéro de commande ?",),
        ),
        Words(
            ("For an order, the tracking knows more than I do.", "With an order, better to check than to guess."),
            ("What is the order number?",),
        ),
        service=True,
    ),
    Intent(  # refund
        _any(r"\b(?:rembours\w+|renvoyer|refund\w*|money back|return (?:it|this|my|an?))\b"),
        Words(
            ("Un remboursement se regarde au cas par cas.", "Pour un remboursement, tout part du numéro de commande."),
            ("Quel est le numéro de commande ?",),
        ),
        Words(
            ("A refund is looked at case by case.", "For a refund, everything starts from the order number."),
            ("What is the order number?",),
        ),
        service=True,
    ),
    Intent(  # password, login
        _any(
            r"\b(?:mots? de passe|mdp|me connecter|connexion|identifiants?)\b",
            r"\b(?:passwords?|log ?in|sign in|locked out)\b",
        ),
        Words(
            (
                "Un mot de passe ne se donne à personne, même pas ici.",
                "Un mot de passe perdu, ça arrive à tout le monde.",
            ),
            ("Quel message s'affiche ?",),
        ),
        Words(
            ("Please never share a password, not even here.", "A lost password happens to everyone."),
            ("Which message do you see?",),
        ),
        service=True,
    ),
    Intent(  # bug
        _any(
            r"\b(?:bugs?|bogues?|erreurs?|panne|(?:ca|appli?|application|site) plante)\b",
            r"\b(?:marche|fonctionne) (?:pas|plus)\b",
            r"\b(?:crash\w*|errors?|broken|(?:does|do|is)(?: not|n'?t) work\w*|not working)\b",
        ),
        Words(
            ("Pas agréable, ce genre de souci.", "Prenons ce souci pas à pas."),
            ("Que voit-on à l'écran juste avant ?",),
        ),
        Words(
            ("That's annoying, I understand.", "Let's take this problem step by step."),
            ("What is on the screen just before it?",),
        ),
        service=True,
    ),
    Intent(  # help
        _any(r"\b(?:aide[rz]?|coup de main|assistance|support|help)\b"),
        Words(("Bien sûr, regardons ça.", "Avec plaisir, je suis là pour ça."), ("Que se passe-t-il, en deux mots ?",)),
        Words(("Of course, let's see.", "With pleasure, I'm here for that."), ("What is happening, in a few words?",)),
    ),
    Intent(  # thanks
        _any(r"(?<!bien )(?<!va )(?<!non )\bmerci\b|\b(?:thanks|thank you|thx)\b"),
        Words(("Avec plaisir.", "De rien, vraiment.")),
        Words(("You're welcome.", "My pleasure.")),
    ),
    Intent(  # goodbye
        _any(
            r"\bau revoir\b|(?<!y )\ba (?:plus(?= *(?:$|[!.,]|tard))|(?:bientot|demain|tout a l'heure)\b)",
            r"\bbonne (?:nuit|soiree|journee|fin de \w+)\b(?! *\?)|\b(?:ciao|tchao|bye|goodbye)\b",
            r"\b(?:good ?night|see (?:you|ya)|take care)\b",
        ),
        Words(("À bientôt !", "À la prochaine !", "À très vite !")),
        Words(("See you soon!", "Until next time!", "Take care!")),
        closes=True,
    ),
)

GREETING = Intent(  # said in full at the first contact; afterwards these words, if nothing else was wanted
    _any(r"\b(?:salut|coucou|bonjour|bonsoir|hello|hi|hey|good (?:morning|afternoon|evening))\b"),
    Words(("Toujours là.", "Je suis là."), ("Comment se passe {ta} journée ?", "Quoi de beau aujourd'hui ?")),
    Words(("Still here.", "I'm here."), ("How is your day going?", "What's new today?")),
)

OTHERWISE = (  # for a group without any intent: the first whose pattern is found, and the last always is
    GREETING,
    Intent(
        _any(r"\?"),
        Words(
            ("Bonne question, j'y réfléchis encore.", "Je n'ai pas de réponse toute faite à ça."),
            ("Un avis, de {ton} côté ?", "Et {toi}, une idée ?"),
        ),
        Words(
            ("Good question, I'm still thinking about it.", "I have no ready answer to that."),
            ("What's your take?", "And you, any idea?"),
        ),
    ),
    Intent(
        _any(r"\w"),
        Words(
            ("Ça me donne envie d'en savoir plus.", "Je vois, c'est intéressant.", "Je lis ça avec attention."),
            ("Il y a une histoire derrière ?", "Et la suite ?"),
        ),
        Words(
            ("That makes me want to know more.", "I see, that's interesting.", "I'm reading this with care."),
            ("Is there a story behind it?", "And then?"),
        ),
    ),
    Intent(
        _any(""),
        Words(
            ("Voilà qui me fait sourire 🙂", "Un message sans mots, ça a son charme."), ("Quoi de beau aujourd'hui ?",)
        ),
        Words(("That made me smile 🙂", "A message without words has its charm."), ("What's new today?",)),
    ),
)

OPENER = Intent(  # an initiation
    _any(""),
    Words(
        (
            "Salut{name} ! Plutôt sentier en forêt ou grand sommet, le week-end ?",
            "Salut{name} ! Si on commençait simplement : quel endroit donne envie d'y retourner ?",
        )
    ),
    Words(
        (
            "Hi{name}! Forest trail or high summit, on a weekend?",
            "Hi{name}! Let's start simply: which place would you love to go back to?",
        )
    ),
    closes=True,
)

# Words that tell the two languages apart, as they look when they are made plain; those that both have tell nothing.
FRENCH_WORDS = (
    "je tu il elle nous vous le la les un une des du de et est es suis ca va quoi comment pourquoi que qui pas mon ton "
    "ma ta mes tes votre salut bonjour bonsoir coucou merci oui non bien avec pour dans ce soir demain tres j qu fais"
)
ENGLISH_WORDS = (
    "i you he she we they the is are am was do does did what how why where when who my your hello hi hey thanks thank "
    "yes good with for this tonight tomorrow not and but very to of it don im like would want can please need bye"
)
