"""What a click on a badge shows, and what somebody gets who has no mouse, no script, or no model at the other end."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Locator, Page, expect

from blog_site.comments.models import Comment
from tests.blog import make_article, make_comment, make_prediction, make_user
from tests.comments.inference_server import InferenceServer

from .conftest import NewPage
from .test_pages import CHINESE_CHROME

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]

TEXT = "味道好，\n分量差"


@pytest.fixture(autouse=True)
def _answered(inference: InferenceServer) -> None:
    """Every badge here can be asked about."""


@pytest.fixture
def comment() -> Comment:
    comment = make_comment(make_article(), TEXT)
    make_prediction(comment, "positive", score=0.9)
    return comment


def visit(page: Page, comment: Comment) -> tuple[Locator, Locator]:
    """Open the article; gives the comment's row and its badge."""
    page.goto(comment.article.get_absolute_url())
    row = page.locator(f"#comment-{comment.pk}")
    return row, row.locator("a.badge")


def test_a_click_shows_the_words_in_place_of_the_text_and_another_the_text(
    new_page: NewPage, comment: Comment, inference: InferenceServer
) -> None:
    row, badge = visit(new_page(), comment)
    expect(badge).to_have_attribute("aria-expanded", "false")
    badge.click()
    expect(row.locator("mark.word-for")).to_have_text("好")
    expect(row.locator("mark.word-against")).to_have_text("差")
    expect(row.locator(".explained[lang]")).to_have_text(TEXT)
    expect(row.locator(".comment-text")).to_be_hidden()
    expect(row.locator(".explanation-note")).to_contain_text("模型读作正面，把握 90%。")
    expect(badge).to_have_attribute("aria-expanded", "true")
    expect(row.page.locator(f"#{badge.get_attribute('aria-controls')}")).to_be_visible()

    badge.click()
    expect(row.locator(".comment-text")).to_be_visible()
    expect(row.locator(".explanation")).to_be_hidden()
    badge.click()
    expect(row.locator(".explanation")).to_be_visible()
    assert inference.explained == [[TEXT]], "asked once, and only after the click"


def test_for_and_against_are_told_apart_without_colour(new_page: NewPage, comment: Comment) -> None:
    row, badge = visit(new_page(), comment)
    badge.click()

    def line(selector: str) -> str:
        return row.locator(selector).evaluate("element => getComputedStyle(element).textDecorationStyle")

    assert (line("mark.word-for"), line("mark.word-against")) == ("solid", "dashed")


@pytest.mark.parametrize("key", ["Enter", " "])
def test_the_keyboard_opens_and_closes_it_and_what_it_says_is_read_out(
    new_page: NewPage, comment: Comment, key: str
) -> None:
    row, badge = visit(new_page(), comment)
    expect(badge).to_have_attribute("role", "button")
    badge.focus()
    row.page.keyboard.press(key)
    expect(row.locator("mark")).to_have_count(2)
    expect(badge).to_be_focused()
    expect(row.page.locator("#badge-news")).to_have_text(
        re.compile(r"模型读作正面，把握 90%。\s*支持：好\s*反对：差")
    )
    row.page.keyboard.press(key)
    expect(row.locator(".comment-text")).to_be_visible()


def test_a_screen_reader_hears_what_the_badge_does(new_page: NewPage, comment: Comment) -> None:
    _row, badge = visit(new_page(), comment)
    expect(badge).to_have_accessible_name(re.compile(r"^正面\s*（把握 90%）$"))
    expect(badge).to_have_accessible_description("看看是哪些字词让模型这么判断")


def test_a_badge_that_came_by_script_opens_too(new_page: NewPage) -> None:
    comment = make_comment(make_article(), TEXT)
    page = new_page()
    page.goto(comment.article.get_absolute_url())
    row = page.locator(f"#comment-{comment.pk}")
    expect(row.locator(".badge-waiting")).to_be_visible()
    make_prediction(comment, "positive", score=0.9)
    badge = row.locator("a.badge")
    expect(badge).to_have_attribute("role", "button")
    badge.click()
    expect(row.locator("mark")).to_have_count(2)


def test_a_model_that_is_away_is_said_kindly_and_asked_again_at_the_next_click(
    new_page: NewPage, comment: Comment, inference: InferenceServer
) -> None:
    inference.refusal = lambda texts: (503, {"detail": "no model"})
    row, badge = visit(new_page(), comment)
    badge.click()
    expect(row.locator(".explanation")).to_have_text("暂时联系不上模型，过一会儿再来看。")
    expect(row.locator(".comment-text")).to_be_visible()

    inference.refusal = lambda texts: None
    badge.click()
    badge.click()
    expect(row.locator("mark")).to_have_count(2)


def test_a_connection_that_breaks_is_said_and_can_be_tried_again(new_page: NewPage, comment: Comment) -> None:
    page = new_page()
    row, badge = visit(page, comment)
    page.route("**/explanation/part/", lambda route: route.fulfill(status=404, body="gone"), times=1)
    badge.click()
    expect(row.locator(".explanation")).to_have_text("没能问到，请检查网络后再点一次。")
    badge.click()
    badge.click()
    expect(row.locator("mark")).to_have_count(2)


def test_without_a_script_the_badge_leads_to_a_page_and_back(new_page: NewPage, comment: Comment) -> None:
    page = new_page(javascript=False)
    _row, badge = visit(page, comment)
    badge.click()
    expect(page.get_by_role("heading", level=1)).to_have_text("模型为什么这么判断")
    expect(page.locator("mark")).to_have_text(["好", "差"])
    page.get_by_role("link", name="回到评论").click()
    expect(page).to_have_url(re.compile(f"#comment-{comment.pk}$"))


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("locale", ["zh-CN", "en-GB"])
def test_it_fits_the_page_and_speaks_its_language(new_page: NewPage, locale: str, width: int) -> None:
    article = make_article(author=make_user("writer", display_name="Summer"))
    comment = make_comment(article, "好W" * 150 + "\n\n" + "差" * 100, author=make_user("Anna"))
    make_prediction(comment)
    page = new_page(locale=locale, width=width)
    row, badge = visit(page, comment)
    badge.click()
    expect(row.locator("mark").first).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    if locale == "en-GB":
        assert page.evaluate(CHINESE_CHROME) == []
        page.goto(f"/comments/{comment.pk}/explanation/")
        assert page.evaluate(CHINESE_CHROME) == []
    page.goto(f"/comments/{comment.pk}/explanation/")
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_the_badge_is_large_enough_for_a_finger(
    new_page: NewPage, comment: Comment, chromium, live_server
) -> None:
    context = chromium.new_context(
        base_url=live_server.url, viewport={"width": 390, "height": 844}, has_touch=True
    )
    try:
        _row, badge = visit(context.new_page(), comment)
        box = badge.bounding_box()
        assert box is not None
        assert min(box["width"], box["height"]) >= 24  # WCAG 2.2, 2.5.8
    finally:
        context.close()
