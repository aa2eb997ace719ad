"""Replies are delivered by the scheduler, whatever the workers do."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.support.waiting import eventually

if TYPE_CHECKING:
    from tests.support.app import App
    from tests.support.service import Service


def test_a_reply_whose_time_has_come_does_not_wait_for_a_worker_that_hangs(service: Service, app: App) -> None:
    """The only thread of the only worker hangs in a responder's call; a reply that was composed before is delivered."""
    service.environment.update({"THINKING_DELAY_MIN": "2", "THINKING_DELAY_MAX": "2", "GROUPING_DELAY": "0"})
    service.environment["RESPONDER"] = "tests.support.responders:hanging"
    scheduler = service.start_scheduler()
    service.start_worker(threads=1)
    state = "SELECT state FROM bridge.turns WHERE match_id = %s"
    calm, hung = app.old_match(), app.old_match()
    app.write(calm, "salut")
    eventually(lambda: app.rows(state, calm) == [("typing",)])
    app.write(hung, "silence")
    eventually(lambda: app.rows(state, hung) == [("composing",)])
    app.wait_for_replies(calm, "salut")
    assert app.rows(state, hung) == [("composing",)]
    service.wait_for_line("Réponse envoyée", process=scheduler)
