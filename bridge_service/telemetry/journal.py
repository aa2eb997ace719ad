"""The line of each signal in French, through `logging`.

Operators and scripts search for the lines marked "contract": no letter of them changes, and no other line contains
their words.
"""

import json
import logging
import time
from collections.abc import Callable, Mapping
from typing import Final

from bridge_service.telemetry import signals as events
from bridge_service.telemetry.signals import Event
from bridge_service.telemetry.throttle import Throttle

_PAYLOAD_CHARACTERS: Final = 200
_LINES_A_SECOND: Final = 100

_FIRST_OF_GROUP: Final = "⏰ Nouveau message, démarrage timer %(delay_seconds)gs"
_NEXT_OF_GROUP: Final = "🔄 Grouping: +1 message (%(position)d total)"

LINES: Final[Mapping[type[Event], str]] = {
    # Contract.
    events.ProcessStarted: "⚙️ %(summary)s",
    events.PostgresConnected: "✅ Connecté à PostgreSQL",
    events.RedisConnected: "✅ Connecté à Redis",
    events.ListenStarting: "👂 Démarrage écoute 'bot_events' et 'new_match'...",
    events.ListenActive: "✅ Écoute active",
    events.NotificationReceived: (
        "📨 Notification reçue (pid=%(pid)d, channel=%(channel)s)\n   Payload: %(payload)s\n   Match ID: %(match_id)s"
    ),
    events.MessageGrouped: _NEXT_OF_GROUP,
    events.GroupClosed: "📦 Grouping: %(messages)d messages",
    events.TurnPushed: "✅ Message poussé dans queue",
    events.MatchDetected: "🔍 Nouveau match détecté",
    events.InitiationDue: "💬 Initiation pour match %(match_id)s",
    events.RedisAttemptFailed: "⚠️ Tentative %(attempt)d/%(attempts)d - Connexion Redis perdue: %(error)s",
    events.RetryIn: "⏳ Retry dans %(seconds)gs...",
    events.RedisReconnecting: "🔄 Reconnexion Redis...",
    events.RedisReconnected: "✅ Reconnexion Redis réussie",
    events.RedisGivenUp: "❌ Échec définitif après %(attempts)d tentatives",
    events.FatalError: "❌ Erreur fatale: %(error)s",
    # Ours.
    events.PlaintextUrl: "🔓 %(variable)s: connexion non chiffrée vers une autre machine (voir docs/SECURITY.md)",
    events.PagesOpen: (
        "🚪 %(variable)s: pages et chiffres ouverts à qui atteint HOST, sans CONSOLE_TOKEN (voir docs/SECURITY.md)"
    ),
    events.CheckFailed: "🩺 Contrôle %(check)s: %(detail)s → %(remedy)s",
    events.WaitingForPostgres: "⏳ En attente de PostgreSQL: %(error)s",
    events.WaitingForRedis: "⏳ En attente de Redis: %(error)s",
    events.SchemaAbsent: "⏳ Schéma bridge absent: lancez python -m bridge_service migrate",
    events.PostgresLost: "⚠️ Connexion PostgreSQL perdue: %(error)s",
    events.PostgresRefused: "⛔ PostgreSQL refuse: %(error)s (voir python -m bridge_service check)",
    events.RedisLost: "⚠️ Connexion Redis perdue, en attente: %(error)s",
    events.WatchdogBarked: "🐕 Boucle %(loop)s immobile depuis %(seconds).0fs, arrêt du processus",
    events.ParentLost: "👻 Processus parent disparu, arrêt de ce worker",
    events.Draining: "🛑 Arrêt demandé, fin des travaux en cours (%(seconds)gs au plus)",
    events.Stopped: "🛑 Arrêt terminé",
    events.ListenSilent: "⚠️ Écoute muette, lecture à intervalles à la place: %(reason)s",
    events.NotificationRejected: "🚫 Annonce ignorée (channel=%(channel)s): %(reason)s",
    events.EventSetAside: "🚫 Événements mis de côté: %(count)d (match %(match_id)s): %(error)s",
    events.PushesRepeated: "🔁 Envois répétés: %(count)d",
    events.TurnClaimed: "🧠 %(kind)s en préparation (match %(match_id)s, messages: %(messages)d)",
    events.TurnTyping: "✍️ Saisie en cours (match %(match_id)s, %(seconds).1fs)",
    events.ReplyDelivered: (
        "💬 %(kind)s envoyée (match %(match_id)s, messages: %(covered)d, retard: %(lateness_seconds).1fs)"
    ),
    events.TurnCancelled: "🧹 %(kind)s annulée (match %(match_id)s): %(reason)s",
    events.TurnSuperseded: "🔀 Réponse dépassée par de nouveaux messages (match %(match_id)s, fusions: %(merges)d)",
    events.TurnHeld: "⛽ Limite du jour atteinte (%(cause)s), reprise à %(until)s (match %(match_id)s)",
    events.CallSettled: "🪙 Appel du modèle, tour %(turn_id)d (%(outcome)s): %(tokens_in)d + %(tokens_out)d jetons",
    events.ResponderAway: "💤 Répondeur absent, reprise dans %(retry_seconds)gs (match %(match_id)s): %(error_type)s",
    events.TurnFailed: "⚠️ Tour %(turn_id)d en erreur (match %(match_id)s, essai %(attempts)d): %(error_type)s",
    events.TurnDead: "💀 Tour %(turn_id)d abandonné (match %(match_id)s): %(error_type)s",
    events.DuplicatePrevented: "♻️ Étape déjà faite, rien à faire (tour %(turn_id)d, %(stage)s)",
    events.BadBrokerMessage: "🚫 Envoi illisible dans la queue, ignoré: %(reason)s",
    events.TurnsRecovered: "🩹 Tours repris: %(count)d (%(reason)s)",
    events.Pruned: "🧽 Nettoyage: tours %(turns)d",
    events.LinesHeldBack: "🔇 Lignes omises: %(count)d (%(of)s)",
}
"""The line of each signal, as a `%` format of its fields; a line break begins a new line of the log."""

_MORE: Final = " (+%(held_back)d depuis la ligne précédente)"

ONE_A_SECOND: Final[frozenset[type[Event]]] = frozenset(
    {
        events.WaitingForPostgres,
        events.WaitingForRedis,
        events.SchemaAbsent,
        events.PostgresLost,
        events.PostgresRefused,
        events.RedisLost,
        events.NotificationRejected,
        events.BadBrokerMessage,
        events.ResponderAway,
        events.TurnFailed,
    }
)
"""Signals that an outage or a stranger can repeat without end."""

_KINDS: Final = {"reply": "Réponse", "initiation": "Ouverture"}


class Journal:
    """A subscriber that logs each signal's line; the record's `bridge_event` carries the signal for other formats.

    It logs at most `_LINES_A_SECOND` lines of one signal, and then one line that counts the rest. A signal of
    `ONE_A_SECOND` has one line a second, which counts those left out before it. Safe to call from any thread.

    Parameters:
      logger: where the lines go.
      clock: returns seconds, never goes back.
    """

    def __init__(self, logger: logging.Logger, clock: Callable[[], float] = time.monotonic) -> None:
        self._logger = logger
        self._clock = clock
        self._throttle: Throttle[type[Event], Event] = Throttle(clock)
        self._flushed_at = clock()

    def __call__(self, event: Event) -> None:
        """Log the signal, or count it."""
        if not self._logger.isEnabledFor(event.level):
            return
        if isinstance(event, events.FatalError | events.Stopped):
            self.flush(everything=True)
        kind = type(event)
        held_back = self._throttle.admit(kind, event, limit=1 if kind in ONE_A_SECOND else _LINES_A_SECOND)
        if held_back is not None:
            if kind in ONE_A_SECOND:
                self._log(event, held_back)
            else:
                self._count(event, held_back)
                self._log(event)
        if self._clock() - self._flushed_at >= 1:
            self.flush()

    def flush(self, *, everything: bool = False) -> None:
        """Log the counts of what was left out. Every process calls this once a second.

        Parameters:
          everything: include the second that has not passed yet.
        """
        self._flushed_at = self._clock()
        for kind, latest, count in self._throttle.release(everything=everything):
            if kind in ONE_A_SECOND:
                # The latest signal is logged now, so it does not count as left out.
                self._log(latest, count - 1)
            else:
                self._count(latest, count)

    def _count(self, event: Event, held_back: int) -> None:
        if held_back:
            self._log(events.LinesHeldBack(of=event.name, count=held_back), level=event.level)

    def _log(self, event: Event, held_back: int = 0, *, level: int | None = None) -> None:
        line = _FIRST_OF_GROUP if _is_first_of_group(event) else LINES[type(event)]
        words = _words(event)
        if held_back:
            line += _MORE
            words["held_back"] = held_back
        # Line and words stay apart: the formatter cleans the foreign words, and never the line.
        self._logger.log(
            event.level if level is None else level,
            line,
            *([words] if words else []),  # logging would count an empty mapping as an argument
            extra={"bridge_event": event, "held_back": held_back},
        )


def _is_first_of_group(event: Event) -> bool:
    return isinstance(event, events.MessageGrouped) and event.position == 1


def _words(event: Event) -> dict[str, object]:
    words = event.fields()
    match event:
        case events.ProcessStarted(summary=summary):
            words["summary"] = " ".join(f"{name}={value}" for name, value in summary.items())
        case events.NotificationReceived(payload=payload):
            text = json.dumps(payload, ensure_ascii=False, separators=(",", ":"))
            words["payload"] = text[:_PAYLOAD_CHARACTERS]
    if "kind" in words:
        words["kind"] = _KINDS.get(str(words["kind"]), words["kind"])
    return words
