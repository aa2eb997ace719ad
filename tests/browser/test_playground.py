"""The playground in a real browser: what a stranger sees and does in the first minutes."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Final
from uuid import uuid4

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, expect

from tests.browser.conftest import TOUR_MS, Demo, Tab, picture, running, tab

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.slow, pytest.mark.superuser, pytest.mark.timeout(300)]

CANARY: Final = "canary-3f9a"


@pytest.fixture
def page(browser: Browser, demo: Demo) -> Iterator[Tab]:
    """Give a page of the demo."""
    with tab(browser, demo.url) as page:
        yield page


def test_a_message_is_answered_before_the_visitors_eyes(page: Tab) -> None:
    """The message stands in the chat, the group fills, the bot is seen writing, the reply comes, and all is counted."""
    sent = page.number("sent")
    card = page.page.locator(".turn").first
    with page.slowly():
        page.write("salut, tu aimes la musique ?", person="Léa", bot="Camille")
        expect(page.page.locator(".bubble.mine").last).to_contain_text("salut, tu aimes la musique ?")
        expect(card.locator(".track .here")).to_contain_text("open")
        expect(page.page.locator("#typing")).to_have_text("Camille is writing…")
        expect(card.locator(".track .here")).to_contain_text("typing")
    expect(card.locator(".track .end")).to_contain_text("answered")
    expect(page.page.locator(".bubble.theirs").last.locator("time")).to_have_text(re.compile(r"\d+:\d\d:\d\d"))
    expect(page.page.locator("#typing")).to_have_text("")
    expect(page.page.locator("#log")).to_contain_text("📦 Grouping: 1 messages")
    page.rest(sent + 1)


def test_a_text_stands_in_the_chat_and_nowhere_else(page: Tab, demo: Demo) -> None:
    """A text of a person is shown as text in the chat, and neither elsewhere on a page nor in the terminal."""
    sent = page.number("sent")
    attack = f"<img src=x onerror=alert(1)>{CANARY}"
    page.write(attack, person="Hugo", bot="Camille")
    expect(page.page.locator(".bubble.mine").last).to_contain_text(attack)
    page.rest(sent + 1)
    picture_of_chat = page.page.locator("#chat").evaluate(
        "chat => { const html = chat.outerHTML; chat.remove(); return html }"
    )
    assert CANARY in picture_of_chat
    assert CANARY not in page.page.content()
    assert CANARY not in demo.said
    match = demo.ask("SELECT match_id::text FROM messages WHERE content = %s", attack)
    console = [
        f"console{path}" for path in ("", "/bots", "/bots/default", "/dead", "/actions", f"/conversations/{match}")
    ]
    for path in (*console, "metrics", "health/ready"):
        # Through the address that the page itself uses: another Host is refused.
        answer = page.page.request.get(demo.url + path)
        assert answer.ok
        assert CANARY not in answer.text()
    for path in ("", "/bots", "/dead", "/actions"):
        assert CANARY not in demo.frame(f"console{path}/live")
    state = json.loads(demo.frame("live"))
    assert CANARY in json.dumps(state.pop("messages"))
    assert CANARY not in json.dumps(state)


def test_three_and_fifty_rapid_messages_are_one_answer_each(page: Tab) -> None:
    """A burst is one group and gets one reply, whatever its length."""
    sent = page.number("sent")
    page.page.select_option("#person", "Karim")
    for name, count in (("three", 3), ("fifty", 50)):
        replies = page.page.locator(".bubble.theirs:not(.struck)").count()
        page.press(name)
        sent += count
        page.rest(sent)
        expect(page.page.locator(".turn").first).to_contain_text(f"{count} messages")
        expect(page.page.locator(".bubble.theirs:not(.struck)")).to_have_count(replies + 1)


def test_a_draft_that_a_newer_message_overtakes_is_crossed_out(page: Tab) -> None:
    """The visitor sees what the bot was about to say, crossed out, and one reply to both messages."""
    sent = page.number("sent")
    with page.slowly():
        page.write("coucou Camille, tu aimes la musique ?", person="Karim", bot="Camille")
        expect(page.page.locator("#typing")).not_to_have_text("")
        page.write("et tu pars où en vacances ?")
    struck = page.page.locator(".bubble.struck")
    expect(struck.first.locator("s")).to_be_visible()
    expect(struck.first).to_contain_text("overtaken by a newer message")
    page.rest(sent + 2)


def test_a_newer_message_withholds_the_rest_of_a_reply(page: Tab) -> None:
    """The messages of a reply come one by one; what a newer message withholds stands there crossed out."""
    sent = page.number("sent")
    page.page.select_option("#person", "Inès")
    replies = page.page.locator(".bubble.theirs:not(.struck)").count()
    page.set("reply_parts", "3")
    with page.slowly():
        page.write("bonsoir, comment vas-tu ? tu fais quoi demain ?", bot="Camille")
        expect(page.page.locator(".bubble.theirs:not(.struck)")).to_have_count(replies + 1)
        page.write("attends")
        expect(page.page.locator(".bubble.struck").last).to_contain_text("Withheld: a newer message came")
    page.rest(sent + 2)
    page.set("reply_parts", "")


def test_the_visitor_writes_as_the_bots_human(page: Tab) -> None:
    """The bot falls silent, the page says until when, and it answers once the visitor resumes."""
    sent = page.number("sent")
    page.page.select_option("#person", "Hugo")
    page.page.check("#human")
    page.write("Bonjour, ici l'équipe.", bot="Camille")
    expect(page.page.locator(".bubble.theirs").last).to_contain_text("written by a human")
    expect(page.page.locator("#paused")).to_have_text(re.compile("Camille is silent here until "))
    page.page.uncheck("#human")
    page.write("merci")
    expect(page.page.locator(".turn").first).to_contain_text("held until the end of the pause")
    page.press("resume")
    expect(page.page.locator("#paused")).to_be_hidden()
    page.rest(sent + 1)


def test_a_message_at_night_waits_for_the_day(page: Tab) -> None:
    """The page shows the bot's hours while it sleeps, and the message is answered when it is day again."""
    sent = page.number("sent")
    page.page.select_option("#person", "Karim")
    page.page.select_option("#bot", "Camille")
    page.press("night")
    expect(page.page.locator("#asleep")).to_have_text(re.compile(r"Camille sleeps: quiet hours \d\d:\d\d-\d\d:\d\d"))
    page.write("tu dors ?")
    expect(page.page.locator(".turn").first).to_contain_text("held until the bot wakes")
    page.press("day")
    expect(page.page.locator("#asleep")).to_be_hidden()
    page.rest(sent + 1)


def test_the_app_is_told_who_types(page: Tab, demo: Demo) -> None:
    """A key of the visitor's is in typing_events, and the message that is sent takes it back."""
    sent = page.number("sent")
    page.page.select_option("#person", "Léa")
    page.page.select_option("#bot", "Camille")
    on = (
        "SELECT bool_or(y.is_typing) FROM typing_events y JOIN profiles p ON p.id = y.user_id"
        " WHERE p.first_name = 'Léa'"
    )
    with page.page.expect_response("**/act"):
        page.page.fill("#text", "je tape")
    assert demo.ask(on) is True
    page.page.press("#text", "Enter")
    page.rest(sent + 1)
    assert demo.ask(on) is False


def test_after_a_new_match_the_bot_writes_first(page: Tab) -> None:
    """Two without a match cannot write; the button makes one, and the bot says the first word."""
    page.page.select_option("#person", "Hugo")
    page.page.select_option("#bot", "Paul")
    expect(page.page.locator("#chat")).to_contain_text("have no match yet")
    expect(page.page.locator("#form button")).to_be_disabled()
    page.press("match")
    expect(page.page.locator(".bubble.theirs")).to_have_count(1)
    expect(page.page.locator(".turn").first).to_contain_text("opener")
    expect(page.page.locator("#form button")).to_be_enabled()


def test_a_message_waits_while_redis_is_down(page: Tab) -> None:
    """A message written into the fault is queued, and is answered once when Redis is back."""
    sent = page.number("sent")
    page.page.select_option("#person", "Léa")
    page.press("redis")
    expect(page.page.locator("#node-redis")).to_have_class(re.compile("down"))
    page.write("tu es là ?")
    expect(page.page.locator(".turn").first.locator(".track .here")).to_contain_text("queued")
    picture(page, "playground")
    page.rest(sent + 1)


def test_redis_is_emptied_in_the_middle(page: Tab) -> None:
    """What Redis forgets PostgreSQL pushes again."""
    sent = page.number("sent")
    page.press("three")
    page.press("empty")
    page.rest(sent + 3)


def test_everything_breaks_at_once_and_mends_itself(page: Tab) -> None:
    """Under fifty messages every part goes down, is seen down, and comes back; each message is answered once."""
    sent = page.number("sent")
    page.page.select_option("#person", "Karim")
    page.press("fifty")
    for what, words in (
        ("model", "away"),
        ("scheduler", "frozen"),
        ("redis", "down"),
        ("worker", "down"),
        ("postgresql", "down"),
    ):
        page.press(what)
        expect(page.page.locator(f"#node-{what}")).to_have_class(re.compile("down"))
        expect(page.page.locator(f"#node-{what} .state")).to_contain_text(re.compile(f"{words}|starts again"))
    page.rest(sent + 50)
    expect(page.page.locator(".node.down")).to_have_count(0)


def test_a_setting_takes_effect_at_once(browser: Browser, demo: Demo, page: Tab) -> None:
    """What is set on the page holds for the next message, stands in another tab, and is refused out of bounds."""
    sent = page.number("sent")
    delay = "[data-set=grouping_delay]"
    with tab(browser, demo.url) as other:
        page.set("grouping_delay", "4000")
        expect(other.page.locator(delay)).to_have_value("4000")
        page.write("attends", person="Inès", bot="Camille")
        expect(page.page.locator(".turn").first.locator(".track .here")).to_contain_text("open")
        page.set("grouping_delay", "99999999")
        expect(page.page.locator("#refused")).to_have_text("That value is not accepted.")
        page.errors = [error for error in page.errors if "409" not in error]  # the refusal's status
        page.set("grouping_delay", "")
        page.page.focus("#text")
        for each in (page, other):
            expect(each.page.locator(delay)).to_have_value("1")
    demo.ask("UPDATE bridge.turns SET due_at = bridge.now() WHERE state = 'open'")
    page.rest(sent + 1)


def test_two_tabs_show_the_same(browser: Browser, demo: Demo, page: Tab) -> None:
    """What is written in one tab stands in the other, once."""
    sent = page.number("sent")
    with tab(browser, demo.url) as other:
        for each in (page, other):
            each.page.select_option("#person", "Inès")
        text = f"deux onglets {uuid4().hex[:6]}"
        page.write(text)
        expect(other.page.locator(".bubble", has_text=text)).to_have_count(1)
        expect(page.page.locator(".bubble", has_text=text)).to_have_count(1)
        other.rest(sent + 1)
        page.rest(sent + 1)


def test_the_keyboard_suffices(page: Tab) -> None:
    """Tab reaches every control, in the order of the page, and Enter sends."""
    sent = page.number("sent")
    controls = page.page.locator("a, select, input, button:enabled, [tabindex='0']").evaluate_all(
        "all => all.filter(each => each.offsetParent !== null && !each.disabled).length"
    )
    reached = set()
    for _ in range(controls):
        page.page.keyboard.press("Tab")
        reached.add(page.page.evaluate("[...document.querySelectorAll('*')].indexOf(document.activeElement)"))
    assert len(reached) == controls
    page.page.focus("#text")
    page.page.keyboard.type("au clavier")
    page.page.keyboard.press("Enter")
    page.rest(sent + 1)


def test_axe_finds_nothing(browser: Browser, demo: Demo, page: Tab) -> None:
    """Contrast, names, roles and focus hold in light and dark, wide and narrow, with something down or not."""
    page.press("model")
    expect(page.page.locator("#node-model")).to_have_class(re.compile("down"))
    for scheme, width in (("light", 1280), ("dark", 390)):
        options = {"color_scheme": scheme, "viewport": {"width": width, "height": 844}, "reduced_motion": "reduce"}
        with tab(browser, demo.url, **options) as each:
            each.page.select_option("#person", "Karim")
            found = Axe().run(each.page)
            assert found.violations_count == 0, found.generate_report()
            assert each.page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


def test_french_for_a_french_browser(browser: Browser, demo: Demo) -> None:
    """Accept-Language decides."""
    with tab(browser, demo.url, locale="fr-FR") as page:
        expect(page.page.locator("h1")).to_have_text("Terrain de jeu")
        expect(page.page.locator("[data-do=three]")).to_have_text("Trois messages rapides")


def test_a_thousand_turns_flow_by(browser: Browser, page: Tab, demo: Demo) -> None:
    """The page stays small while a thousand conversations are answered behind it."""
    sent = page.number("sent")
    demo.ask(
        "WITH made AS (INSERT INTO matches (user1_id, user2_id)"
        " SELECT 'a0000000-0000-4000-8000-000000000001', 'b0000000-0000-4000-8000-000000000001'"
        " FROM generate_series(1, 1000) RETURNING id, user1_id)"
        " INSERT INTO messages (match_id, sender_id, content) SELECT id, user1_id, 'bonjour' FROM made"
    )
    expect(page.page.locator("#more")).to_be_visible()
    expect(page.page.locator("#sum-sent")).to_have_text(str(sent + 1000))
    expect(page.page.locator("#sum-open")).to_have_text("0", timeout=240_000)
    assert (page.number("answered"), page.number("lost"), page.number("twice")) == (sent + 1000, 0, 0)
    assert page.page.locator("*").count() < 2500
    with tab(browser, f"{demo.url}console") as console:
        picture(console, "console")


def test_the_tour_plays_and_a_new_demo_takes_the_page_over(browser: Browser, demo: Demo) -> None:
    """During the tour only its end can be pressed; a page that outlives its demo joins the next one.

    A second demo says that the port is taken, and serves its page on another.
    """
    context = browser.new_context(locale="en-US")
    page = context.new_page()
    with running(demo.port) as first:
        assert f"Port {demo.port} is taken, so the playground is on another." in first.said
        assert first.port != demo.port
        page.goto(first.url)
        expect(page.locator("#tour")).to_be_visible()
        assert page.locator("[data-break]:enabled, [data-do]:enabled, [data-set]:enabled").count() == 0
        expect(page.locator(".bubble").first).to_be_visible()
        boot = page.get_attribute("body", "data-boot")
    expect(page.locator("#offline")).to_be_visible()
    with running(first.port):
        expect(page.locator("#offline")).to_be_hidden()
        expect(page.locator("body")).not_to_have_attribute("data-boot", boot or "")
        expect(page.locator("#tour")).to_be_visible()
        page.click("#skip")
        expect(page.locator("#tour")).to_be_hidden(timeout=TOUR_MS)
        expect(page.locator("[data-break]:enabled")).to_have_count(6)
    context.close()
