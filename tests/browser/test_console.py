"""The console in a real browser, as the demo serves it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, expect

from tests.browser.conftest import Demo, Tab, picture, tab

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture
def console(browser: Browser, demo: Demo) -> Iterator[Tab]:
    """Give the console."""
    with tab(browser, f"{demo.url}console") as console:
        yield console


def test_it_is_live(console: Tab, browser: Browser, demo: Demo) -> None:
    """A new turn stands in the table without a press of a key, and the page is never loaded anew."""
    console.page.evaluate("window.same = true")
    rows = console.page.locator("[aria-labelledby=newest] tbody tr")
    console.page.focus("[aria-labelledby=newest]")
    before = rows.count()
    with tab(browser, demo.url) as page:
        page.write("salut", person="Léa", bot="Camille")
    expect(rows).to_have_count(before + 1)
    expect(rows.first).to_contain_text("answered")
    assert console.page.evaluate("window.same")
    expect(console.page.locator("[aria-labelledby=newest]")).to_be_focused()
    expect(console.page.locator("[aria-labelledby=processes]")).to_contain_text("scheduler")


def test_redis_that_is_away_is_said_at_the_top(console: Tab, browser: Browser, demo: Demo) -> None:
    """The verdict changes by itself, says what to expect, and changes back."""
    with tab(browser, demo.url) as page:
        page.press("redis")
    expect(console.page.locator(".verdict")).to_have_class(re.compile("bad"))
    expect(console.page.locator(".verdict")).to_contain_text("Redis: down. Turns wait in PostgreSQL")
    expect(console.page).to_have_title("Something is down · bridge")
    picture(console, "console")
    expect(console.page.locator(".verdict")).to_have_class(re.compile("good"))
    expect(console.page).to_have_title("All is well · bridge")


def test_it_works_without_a_script(browser: Browser, demo: Demo) -> None:
    """A browser without scripts shows the same, and is told to load it anew."""
    context = browser.new_context(java_script_enabled=False, locale="fr-FR")
    page = context.new_page()
    page.goto(f"{demo.url}console")
    expect(page.locator(".verdict")).to_contain_text("Tout va bien")
    page.click("text=Pause")
    expect(page.locator("text=Reprendre")).to_be_visible()
    context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_axe_finds_nothing(browser: Browser, demo: Demo, scheme: str, width: int) -> None:
    """Contrast, names, roles and focus hold in light and dark, wide and narrow."""
    size = {"width": width, "height": 844}
    with tab(browser, f"{demo.url}console", color_scheme=scheme, viewport=size) as page:
        found = Axe().run(page.page)
        assert found.violations_count == 0, found.generate_report()
        assert page.page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
