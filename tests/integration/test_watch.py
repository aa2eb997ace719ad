"""What the playground's page is told of a conversation."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest

from bridge_service.brokers.redis_client import connect
from bridge_service.demo.log import Log
from bridge_service.demo.watch import Watch
from bridge_service.machine.database import Connection
from tests.support.app import App
from tests.support.databases import DEMO_FOLDER
from tests.support.policy import set_policy
from tests.support.store import store_on

if TYPE_CHECKING:
    from bridge_service.demo.servers import RedisServer
    from tests.support.roles import Urls


@pytest.mark.superuser  # the app's owner looks
@pytest.mark.parametrize("draft", ["", "Bonjour !"])
def test_what_a_newer_message_overtakes_is_struck(bridge_database: Urls, redis_server: RedisServer, draft: str) -> None:
    """The chat shows the draft crossed out; of a reply that was still composed, that it was overtaken."""
    set_policy(bridge_database, grouping_delay=0)
    client = connect(redis_server.url(), timeout=2)
    with (
        closing(App(bridge_database)) as app,
        store_on(bridge_database) as store,
        closing(Connection(bridge_database.admin, application="test")) as connection,
        closing(client),
    ):
        app.rows((DEMO_FOLDER / "typing_events.sql").read_text(encoding="utf-8"))
        watch = Watch(connection, client, Log(), 30, dict)
        match = app.old_match()
        app.write(match, "salut")
        [grouped] = store.group()
        store.push_due(10)
        token = uuid4()
        assert store.claim(grouped.turn_id, token, plain=False).name == "claimed"
        if draft:
            store.finish(grouped.turn_id, token, draft, pause=60)
        assert struck(watch.look()) == []
        app.write(match, "ça va ?")
        store.group()
        store.overtake([match])
        [found] = struck(watch.look())
        assert (found["match"], found["bot"], found["text"]) == (match, True, draft)
        assert struck(watch.look()) == []
        assert struck(watch.whole()) == [found]


def struck(state: dict[str, Any]) -> list[dict[str, Any]]:
    """Return what is crossed out."""
    return [each for each in state.get("messages", ()) if each.get("struck")]
