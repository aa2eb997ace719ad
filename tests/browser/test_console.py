"""The console in a real browser, as the demo serves it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, expect

from tests.browser.conftest import Demo, Tab, tab

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.slow, pytest.mark.superuser, pytest.mark.timeout(300)]

PAGES: Final = ("", "/bots", "/bots/default", "/dead", "/actions", "/conversations/{match}", "/conversations?id=x")


@pytest.fixture
def console(browser: Browser, demo: Demo) -> Iterator[Tab]:
    """Give the console."""
    with tab(browser, f"{demo.url}console") as console:
        yield console


def die(demo: Demo) -> int:
    """Make a turn that is dead."""
    turn = demo.ask(
        "INSERT INTO bridge.turns (kind, match_id, bot_id, state, opened_at, ended_at, attempts, last_error)"
        " VALUES ('reply', gen_random_uuid(), gen_random_uuid(), 'dead', now(), now(), 5, 'ValueError: x')"
        " RETURNING id",
    )
    return int(turn)


def test_it_is_live(console: Tab, browser: Browser, demo: Demo) -> None:
    """A new turn stands in the table without a press of a key, and the page is never loaded anew."""
    console.page.evaluate("window.same = true")
    newest = console.page.locator("[aria-labelledby=newest] tbody tr").first
    console.page.focus("[aria-labelledby=newest]")
    before = newest.locator("td").first.text_content() or ""
    with tab(browser, demo.url) as page:
        page.write("salut", person="Léa", bot="Camille")
    expect(newest.locator("td").first).not_to_have_text(before)
    expect(newest).to_contain_text("answered")
    assert console.page.evaluate("window.same")
    expect(console.page.locator("[aria-labelledby=newest]")).to_be_focused()
    expect(console.page.locator("[aria-labelledby=processes]")).to_contain_text("scheduler")
    expect(console.page.locator("figure")).to_have_count(6)


def test_redis_that_is_away_is_said_at_the_top(console: Tab, browser: Browser, demo: Demo) -> None:
    """The verdict changes by itself, says what to expect, and changes back."""
    with tab(browser, demo.url) as page:
        page.press("redis")
    expect(console.page.locator(".verdict")).to_contain_text("Redis: down. Turns wait in PostgreSQL")
    expect(console.page).to_have_title("Something is down · bridge")
    expect(console.page.locator(".verdict")).to_have_class(re.compile("good"))
    expect(console.page).to_have_title("All is well · bridge")


def test_a_dead_turn_is_dropped_and_written_down(console: Tab, demo: Demo) -> None:
    """The link leads to the dead turns, the button drops one, and the page of actions has it."""
    turn = die(demo)
    console.page.click("nav >> text=Dead turns")
    row = console.page.locator("tbody tr", has_text=str(turn))
    expect(row).to_contain_text("ValueError")
    row.locator("text=Drop").click()
    expect(console.page.locator("[role=status]")).to_have_text("Dropped.")
    expect(console.page.locator("text=No turn is dead.")).to_be_visible()
    assert demo.ask("SELECT reason FROM bridge.turns WHERE id = %s", turn) == "dropped"
    console.page.click("nav >> text=Actions")
    expect(console.page.locator("tbody tr").first).to_contain_text(re.compile(f"drop.*{turn}.*dropped", re.DOTALL))


def test_a_bots_value_is_set_and_taken_back(console: Tab, demo: Demo) -> None:
    """The form of the page sets what was changed, and an empty field asks the next row again."""
    for value in ("5", ""):
        console.page.goto(f"{demo.url}console/bots/default")
        console.page.fill("[name=max_merges]", value)
        console.page.press("[name=max_merges]", "Enter")
        expect(console.page.locator("[role=status]")).to_have_text("Set. It holds from the next step on.")
        expect(console.page.locator("[name=max_merges]")).to_have_value(value)
    assert demo.ask("SELECT max_merges FROM bridge.policy(NULL)") == 3


def test_a_conversation_is_found_by_its_message(console: Tab, demo: Demo) -> None:
    """The search box leads from a message's id to the story of its conversation."""
    message = demo.ask("SELECT message_id::text FROM bridge.events WHERE kind = 'message' ORDER BY id LIMIT 1")
    console.page.fill("[name=id]", message)
    console.page.press("[name=id]", "Enter")
    expect(console.page.locator(".story")).to_contain_text(f"message {message} captured")
    expect(console.page.locator(".story")).to_contain_text("claimed by a worker")


def test_it_works_without_a_script(browser: Browser, demo: Demo) -> None:
    """A browser without scripts shows the same, is told to load it anew, and can act."""
    turn = die(demo)
    context = browser.new_context(java_script_enabled=False, locale="fr-FR")
    page = context.new_page()
    page.goto(f"{demo.url}console")
    expect(page.locator(".verdict")).to_contain_text("À regarder")
    page.click("text=Pause")
    expect(page.locator("text=Reprendre")).to_be_visible()
    page.goto(f"{demo.url}console/dead?refresh=off")
    page.locator("tbody tr", has_text=str(turn)).locator("text=Abandonner").click()
    expect(page.locator("[role=status]")).to_have_text("Abandonné.")
    context.close()


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 390)])
def test_axe_finds_nothing(browser: Browser, demo: Demo, scheme: str, width: int) -> None:
    """Contrast, names, roles and focus hold on each page in light and dark, wide and narrow."""
    match = demo.ask("SELECT match_id::text FROM bridge.events ORDER BY id LIMIT 1")
    size = {"width": width, "height": 844}
    with tab(browser, f"{demo.url}console", color_scheme=scheme, viewport=size) as page:
        for path in PAGES:
            page.page.goto(f"{demo.url}console{path.format(match=match)}")
            found = Axe().run(page.page)
            assert found.violations_count == 0, f"{path}: {found.generate_report()}"
            assert page.page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), path
        page.errors = [error for error in page.errors if "404" not in error]  # the last page is one
