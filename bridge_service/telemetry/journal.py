"""The line of each signal in French, through `logging`.

Operators and scripts search for the lines marked "contract": no letter of them changes, and no other line contains
their words.
"""

import json
import logging
import time
from collections.abc import Callable, Mapping
from typing import Final

from bridge_service.telemetry import signals
from bridge_service.telemetry.signals import Signal
from bridge_service.telemetry.throttle import Throttle

_PAYLOAD_CHARACTERS: Final = 200
_LINES_A_SECOND: Final = 100

_FIRST_OF_GROUP: Final = "⏰ Nouveau message, démarrage timer %(delay_seconds)gs"
_NEXT_OF_GROUP: Final = "🔄 Grouping: +1 message (%(position)d total)"

LINES: Final[Mapping[type[Signal], str]] = {
    # Contract.
    signals.ProcessStarted: "⚙️ %(summary)s",
    signals.PostgresConnected: "✅ Connecté à PostgreSQL",
    signals.RedisConnected: "✅ Connecté à Redis",
    signals.ListenStarting: "👂 Démarrage écoute 'bot_events' et 'new_match'...",
    signals.ListenActive: "✅ Écoute active",
    signals.NotificationReceived: (
        "📨 Notification reçue (pid=%(pid)d, channel=%(channel)s)\n   Payload: %(payload)s\n   Match ID: %(match_id)s"
    ),
    signals.MessageGrouped: _NEXT_OF_GROUP,
    signals.GroupClosed: "📦 Grouping: %(messages)d messages",
    signals.TurnPushed: "✅ Message poussé dans queue",
    signals.MatchDetected: "🔍 Nouveau match détecté",
    signals.InitiationDue: "💬 Initiation pour match %(match_id)s",
    signals.RedisAttemptFailed: "⚠️ Tentative %(attempt)d/%(attempts)d - Connexion Redis perdue: %(error)s",
    signals.RetryIn: "⏳ Retry dans %(seconds)gs...",
    signals.RedisReconnecting: "🔄 Reconnexion Redis...",
    signals.RedisReconnected: "✅ Reconnexion Redis réussie",
    signals.RedisGivenUp: "❌ Échec définitif après %(attempts)d tentatives",
    signals.FatalError: "❌ Erreur fatale: %(error)s",
    # Ours.
    signals.PlaintextUrl: "🔓 %(variable)s: connexion non chiffrée vers une autre machine (voir docs/SECURITY.md)",
    signals.PagesOpen: (
        "🚪 %(variable)s: pages et chiffres ouverts à qui atteint HOST, sans CONSOLE_TOKEN (voir docs/SECURITY.md)"
    ),
    signals.CheckFailed: "🩺 Contrôle %(check)s: %(detail)s → %(remedy)s",
    signals.WaitingForPostgres: "⏳ En attente de PostgreSQL: %(error)s",
    signals.WaitingForRedis: "⏳ En attente de Redis: %(error)s",
    signals.SchemaAbsent: "⏳ Schéma bridge absent: lancez python -m bridge_service migrate",
    signals.PostgresLost: "⚠️ Connexion PostgreSQL perdue: %(error)s",
    signals.PostgresRefused: "⛔ PostgreSQL refuse: %(error)s (voir python -m bridge_service check)",
    signals.RedisLost: "⚠️ Connexion Redis perdue, en attente: %(error)s",
    signals.WatchdogBarked: "🐕 Boucle %(loop)s immobile depuis %(seconds).0fs, arrêt du processus",
    signals.ParentLost: "👻 Processus parent disparu, arrêt de ce worker",
    signals.Draining: "🛑 Arrêt demandé, fin des travaux en cours (%(seconds)gs au plus)",
    signals.Stopped: "🛑 Arrêt terminé",
    signals.ListenSilent: "⚠️ Écoute muette, lecture à intervalles à la place: %(reason)s",
    signals.NotificationRejected: "🚫 Annonce ignorée (channel=%(channel)s): %(reason)s",
    signals.EventSetAside: "🚫 Événements mis de côté: %(count)d (match %(match_id)s): %(error)s",
    signals.PushesRepeated: "🔁 Envois répétés: %(count)d",
    signals.TurnClaimed: "🧠 %(kind)s en préparation (match %(match_id)s, messages: %(messages)d)",
    signals.TurnTyping: "✍️ Saisie en cours (match %(match_id)s, %(seconds).1fs)",
    signals.ReplyDelivered: (
        "💬 %(kind)s envoyée (match %(match_id)s, messages: %(covered)d, retard: %(lateness_seconds).1fs)"
    ),
    signals.ReplyInterrupted: (
        "✂️ Réponse interrompue (match %(match_id)s, dites: %(said)d, retenues: %(withheld)d): %(reason)s"
    ),
    signals.TurnSilent: "🤐 %(kind)s: silence choisi (match %(match_id)s, messages: %(covered)d)",
    signals.TurnCancelled: "🧹 %(kind)s annulée (match %(match_id)s): %(reason)s",
    signals.TurnSuperseded: "🔀 Réponse dépassée par de nouveaux messages (match %(match_id)s, fusions: %(merges)d)",
    signals.TurnHeld: "⛽ Limite du jour atteinte (%(cause)s), reprise à %(until)s (match %(match_id)s)",
    signals.TurnPaused: "⏸️ Bot en pause, reprise à %(until)s (match %(match_id)s)",
    signals.TurnQuiet: "🌙 Heures calmes, reprise à %(until)s (match %(match_id)s)",
    signals.RepliesLimited: "⛽ Trop de réponses en une heure, reprise à %(until)s (match %(match_id)s)",
    signals.Distress: "🆘 Détresse dans un message (match %(match_id)s, événement %(event_id)d)",
    signals.CallSettled: "🪙 Appel du modèle, tour %(turn_id)d (%(outcome)s): %(tokens_in)d + %(tokens_out)d jetons",
    signals.ResponderAway: "💤 Répondeur absent, reprise dans %(retry_seconds)gs (match %(match_id)s): %(error_type)s",
    signals.TurnFailed: "⚠️ Tour %(turn_id)d en erreur (match %(match_id)s, essai %(attempts)d): %(error_type)s",
    signals.TurnDead: "💀 Tour %(turn_id)d abandonné (match %(match_id)s): %(error_type)s",
    signals.DuplicatePrevented: "♻️ Étape déjà faite, rien à faire (tour %(turn_id)d, %(stage)s)",
    signals.BadBrokerMessage: "🚫 Envoi illisible dans la queue, ignoré: %(reason)s",
    signals.TurnsRecovered: "🩹 Tours repris: %(count)d (%(reason)s)",
    signals.Pruned: "🧽 Nettoyage: tours %(turns)d",
    signals.LinesHeldBack: "🔇 Lignes omises: %(count)d (%(of)s)",
}
"""The line of each signal, as a `%` format of its fields; a line break begins a new line of the log."""

_MORE: Final = " (+%(held_back)d depuis la ligne précédente)"

ONE_A_SECOND: Final[frozenset[type[Signal]]] = frozenset(
    {
        signals.WaitingForPostgres,
        signals.WaitingForRedis,
        signals.SchemaAbsent,
        signals.PostgresLost,
        signals.PostgresRefused,
        signals.RedisLost,
        signals.NotificationRejected,
        signals.BadBrokerMessage,
        signals.ResponderAway,
        signals.TurnFailed,
    }
)
"""Signals that an outage or a stranger can repeat without end."""

_KINDS: Final = {"reply": "Réponse", "initiation": "Ouverture", "follow_up": "Relance"}


class Journal:
    """A subscriber that logs each signal's line; the record's `bridge_signal` carries the signal for other formats.

    It logs at most `_LINES_A_SECOND` lines of one signal, and then one line that counts the rest. A signal of
    `ONE_A_SECOND` has one line a second, which counts those left out before it. Safe to call from any thread.

    Parameters:
      logger: where the lines go.
      clock: returns seconds, never goes back.
    """

    def __init__(self, logger: logging.Logger, clock: Callable[[], float] = time.monotonic) -> None:
        self._logger = logger
        self._clock = clock
        self._throttle: Throttle[type[Signal], Signal] = Throttle(clock)
        self._flushed_at = clock()

    def __call__(self, signal: Signal) -> None:
        """Log the signal, or count it."""
        if not self._logger.isEnabledFor(signal.level):
            return
        if isinstance(signal, signals.FatalError | signals.Stopped):
            self.flush(everything=True)
        kind = type(signal)
        held_back = self._throttle.admit(kind, signal, limit=1 if kind in ONE_A_SECOND else _LINES_A_SECOND)
        if held_back is not None:
            if kind in ONE_A_SECOND:
                self._log(signal, held_back)
            else:
                self._count(signal, held_back)
                self._log(signal)
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

    def _count(self, signal: Signal, held_back: int) -> None:
        if held_back:
            self._log(signals.LinesHeldBack(of=signal.name, count=held_back), level=signal.level)

    def _log(self, signal: Signal, held_back: int = 0, *, level: int | None = None) -> None:
        line = _FIRST_OF_GROUP if _is_first_of_group(signal) else LINES[type(signal)]
        words = _words(signal)
        if held_back:
            line += _MORE
            words["held_back"] = held_back
        # Line and words stay apart: the formatter cleans the foreign words, and never the line.
        self._logger.log(
            signal.level if level is None else level,
            line,
            *([words] if words else []),  # logging would count an empty mapping as an argument
            extra={"bridge_signal": signal, "held_back": held_back},
        )


def _is_first_of_group(signal: Signal) -> bool:
    return isinstance(signal, signals.MessageGrouped) and signal.position == 1


def _words(signal: Signal) -> dict[str, object]:
    words = signal.fields()
    match signal:
        case signals.ProcessStarted(summary=summary):
            words["summary"] = " ".join(f"{name}={value}" for name, value in summary.items())
        case signals.NotificationReceived(payload=payload):
            text = json.dumps(payload, ensure_ascii=False, separators=(",", ":"))
            words["payload"] = text[:_PAYLOAD_CHARACTERS]
    if "kind" in words:
        words["kind"] = _KINDS.get(str(words["kind"]), words["kind"])
    return words
