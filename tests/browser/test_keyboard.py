"""Without a mouse: whatever opens is reached, holds the keyboard while it is open, and gives it back."""

from __future__ import annotations

import re

import pytest
from django.urls import reverse
from playwright.sync_api import Locator, Page, expect

from blog_site.comments.models import Comment, Report
from tests.blog import make_article, make_comment, make_user

from .conftest import NewPage, sign_in

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]

# Beside what is open, the keyboard may come to the browser's own controls: then it is on no element.
INSIDE = "(open) => document.activeElement === document.body || open.contains(document.activeElement)"


def press(control: Locator, key: str = "Enter") -> None:
    control.focus()
    control.press(key)


def expect_it_holds_the_keyboard(page: Page, dialog: Locator) -> None:
    for _ in range(10):
        page.keyboard.press("Tab")
        assert dialog.evaluate(INSIDE)


def test_a_reader_answers_reports_changes_and_deletes_without_a_mouse(new_page: NewPage) -> None:
    article = make_article()
    make_comment(article, "别人的", minutes_ago=3)
    reader = make_user("laowang")
    for text, age in (("先写的", 2), ("后写的", 1)):
        make_comment(article, text, author=reader, minutes_ago=age)
    page = new_page()
    sign_in(page, "laowang")
    page.goto(article.get_absolute_url())
    other, own = (page.locator(".comment-main", has_text=text) for text in ("别人的", "后写的"))
    dialog = page.locator("dialog[open]")

    # What is opened and left again leads back to where it was opened.
    for control in (other.locator("a.report"), own.locator("a.delete")):
        press(control)
        assert dialog.evaluate(INSIDE)
        expect_it_holds_the_keyboard(page, dialog)
        page.keyboard.press("Escape")
        expect(dialog).to_have_count(0)
        expect(control).to_be_focused()
    for control in (other.locator("a.reply"), own.locator("a.edit")):
        press(control)
        expect(page.locator(".comment-composer textarea")).to_be_focused()
        page.keyboard.press("Escape")
        expect(page.locator(".comment-composer")).to_have_count(0)
        expect(control).to_be_focused()

    press(other.locator("a.report"))
    page.keyboard.press("Space")
    page.keyboard.press("Enter")
    expect(page.locator(".live-notice")).to_contain_text("谢谢")
    expect(other.locator("a.report")).to_be_focused()
    assert Report.objects.get().reporter == reader

    press(own.locator("a.delete"))
    page.keyboard.press("Tab")
    expect(dialog.get_by_role("button", name="删除")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator(".comment", has_text="先写的")).to_be_focused()
    assert not Comment.objects.filter(text="后写的").exists()

    press(page.get_by_role("button", name="English"))
    expect(page.locator("html")).to_have_attribute("lang", "en")


def test_a_writers_tools_are_one_stop_that_arrows_go_along(new_page: NewPage) -> None:
    make_user("writer")
    page = new_page()
    sign_in(page, "writer")
    page.goto("/write/")
    tools = page.locator(".editor-tools button")
    press(page.locator("#id_tag_names"), "Tab")
    expect(tools.first).to_be_focused()
    page.keyboard.press("ArrowLeft")
    expect(tools.last).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator(".editor-preview")).to_be_visible()
    page.keyboard.press("Home")
    expect(tools.first).to_be_focused()
    page.keyboard.press("Tab")
    expect(page.get_by_label("正文")).to_be_focused()


def test_the_admins_menus_open_close_and_give_the_keyboard_back(new_page: NewPage) -> None:
    make_user("chief", is_staff=True, is_superuser=True)
    page = new_page()
    sign_in(page, "chief")
    page.goto(reverse("admin:index"))

    account = page.get_by_role("button", name=re.compile("chief"))
    press(account)
    expect(account).to_have_attribute("aria-expanded", "true")
    dark = page.get_by_role("button", name="深色")
    expect(page.get_by_role("button", name="浅色")).to_be_focused()
    press(dark, "Space")
    expect(page.locator("html")).to_have_class(re.compile(r"\bdark\b"))
    page.keyboard.press("Escape")
    expect(dark).to_be_hidden()
    expect(account).to_be_focused()

    page.set_viewport_size({"width": 390, "height": 844})
    pages = page.get_by_role("button", name="页面列表").first
    press(pages)
    expect(page.locator("#nav-sidebar a").first).to_be_focused()
    page.keyboard.press("Escape")
    expect(page.locator("#nav-sidebar")).to_be_hidden()
    expect(pages).to_be_focused()
    page.keyboard.press("Tab")
    assert page.evaluate("parseFloat(getComputedStyle(document.activeElement).outlineWidth)") >= 2
