"""A moderator at work in the admin, whose theme runs under the admin's own Content-Security-Policy."""

from __future__ import annotations

import pytest
from django.urls import reverse
from playwright.sync_api import Page, expect

from blog_site.comments.models import Comment, Decision
from blog_site.users.services import grant_moderators
from tests.blog import make_article, make_comment, make_user
from tests.browser.conftest import NewPage, sign_in

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]


@pytest.fixture
def waiting() -> list[Comment]:
    """Three comments that wait, and a moderator."""
    make_user("moderator", is_staff=True).groups.add(grant_moderators())
    article = make_article()
    comments = [
        make_comment(article, text, minutes_ago=10 - age) for age, text in enumerate(("甲", "乙", "丙"))
    ]
    Comment.objects.update(status=Comment.Status.PENDING)
    return comments


def statuses(comments: list[Comment]) -> list[str]:
    return [Comment.objects.get(pk=comment.pk).status for comment in comments]


def cards(page: Page) -> list[str]:
    return page.locator(".queue-text").all_inner_texts()


def test_a_moderator_empties_the_queue_by_keyboard(new_page: NewPage, waiting: list[Comment]) -> None:
    page = new_page()
    sign_in(page, "moderator")
    page.goto(reverse("admin:index"))
    page.get_by_role("link", name="3 待审核").click()
    expect(page.locator(".queue-card")).to_have_count(3)
    page.wait_for_load_state()  # the keys are the script's

    page.keyboard.press("a")
    expect(page.locator(".queue-card")).to_have_count(2)
    page.keyboard.press("j")
    page.keyboard.press("1")
    expect(page.locator(".queue-card").last).to_contain_text("审核员 负面")
    page.fill(".queue-bar [name=reason]", "广告")
    page.locator(".queue-card").last.focus()
    page.keyboard.press("s")
    expect(page.locator(".queue-card")).to_have_count(1)
    page.keyboard.press("h")
    expect(page.get_by_text("这一页处理完了")).to_be_visible()

    assert statuses(waiting) == ["visible", "hidden", "spam"]
    assert Decision.objects.get(action="mark_spam").reason == "广告"


def test_a_moderator_works_without_scripts(new_page: NewPage, waiting: list[Comment]) -> None:
    page = new_page(javascript=False)
    sign_in(page, "moderator")
    page.goto(reverse("admin:moderation_queue"))
    page.locator("[name=id]").nth(1).check()
    page.locator(".queue-bar").get_by_role("button", name="隐藏").click()
    page.locator(".queue-card").first.get_by_role("button", name="通过").click()
    assert cards(page) == ["丙"]
    assert statuses(waiting) == ["visible", "hidden", "pending"]


def test_the_admins_pages_keep_to_their_policy(new_page: NewPage, waiting: list[Comment]) -> None:
    make_user("chief", is_staff=True, is_superuser=True)
    page = new_page()
    sign_in(page, "chief")
    for address in (
        reverse("admin:comments_comment_changelist"),
        reverse("admin:comments_comment_change", args=[waiting[0].pk]),
        reverse("admin:articles_article_change", args=[waiting[0].article_id]),
        reverse("admin:users_user_changelist"),
    ):
        page.goto(address)
        page.wait_for_load_state("networkidle")
        expect(page.locator("#page")).to_be_visible()
    page.get_by_text("过滤器").click()
    expect(page.locator("#changelist-filter")).to_be_visible()
