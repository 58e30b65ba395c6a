from __future__ import annotations

import re

import pytest
from playwright.sync_api import expect

from blog_site.comments.models import Comment
from tests.blog import PASSWORD, make_article, make_comment, make_prediction, make_user

from .conftest import NewPage, sign_in

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]


def test_a_newcomer_signs_up_comments_and_sees_the_badge_arrive_without_a_reload(new_page: NewPage) -> None:
    article = make_article()
    page = new_page()
    page.goto(article.get_absolute_url())

    page.get_by_role("link", name="注册一个").click()
    page.get_by_label("用户名").fill("xiaoman")
    page.get_by_label("昵称").fill("小满")
    page.get_by_label("密码", exact=True).fill(PASSWORD)
    page.get_by_label("密码确认").fill(PASSWORD)
    page.get_by_role("button", name="注册").click()
    expect(page).to_have_url(re.compile(re.escape(article.get_absolute_url()) + "#comment-form$"))

    page.get_by_label("写评论").fill("豆浆很香，油条太硬。")
    page.get_by_role("button", name="发表评论").click()
    comment = Comment.objects.get()
    expect(page).to_have_url(re.compile(f"#comment-{comment.pk}$"))
    row = page.locator(f"#comment-{comment.pk}")
    expect(row).to_be_in_viewport()
    waiting = row.get_by_text("分析中")
    expect(waiting).to_be_visible()
    before = waiting.bounding_box()
    page.evaluate("window.notReloaded = true")

    make_prediction(comment, "negative", score=0.87)

    badge = row.locator(".badge-negative")
    expect(badge).to_contain_text("负面")
    assert badge.get_attribute("title") == "模型的判断，把握 87%"
    assert badge.bounding_box() == before, "nothing may move when the badge arrives"
    expect(page.locator("#badge-news")).to_have_text("小满: 负面（把握 87%）")
    expect(page.locator('[data-count="negative"]')).to_have_text("1")
    expect(page.locator(".echo-key-waiting")).to_be_hidden()
    assert page.locator("#echo .echo-negative").get_attribute("width") == "100"
    assert page.evaluate("window.notReloaded") is True


def test_a_badge_that_arrives_by_script_is_the_one_a_reload_shows(new_page: NewPage) -> None:
    article = make_article()
    comment = make_comment(article)
    page = new_page(locale="en-US")
    page.goto(article.get_absolute_url())
    badge = page.locator(f"#comment-{comment.pk} .badge")
    expect(badge).to_have_text("Reading")

    make_prediction(comment, "positive", score=0.9999)
    expect(badge).to_contain_text("Positive")
    by_script = (badge.inner_text(), badge.get_attribute("title"), badge.bounding_box())
    page.reload()

    assert by_script == (badge.inner_text(), badge.get_attribute("title"), badge.bounding_box())
    assert "99%" in by_script[1]


def test_of_many_that_wait_every_one_gets_its_badge(new_page: NewPage) -> None:
    article = make_article()
    comments = [make_comment(article, f"第{n}条") for n in range(12)]
    page = new_page()
    page.goto(article.get_absolute_url())
    expect(page.locator(".badge-waiting")).to_have_count(12)

    for comment in comments:
        make_prediction(comment, "neutral")

    expect(page.locator(".badge-neutral")).to_have_count(12)


def test_a_comment_deleted_meanwhile_is_not_asked_about_for_ever(new_page: NewPage) -> None:
    article = make_article()
    comment = make_comment(article)
    page = new_page()
    asked: list[int] = []
    page.route("**/api/v1/comments/*/", lambda route: (asked.append(1), route.fulfill(status=404, body="{}")))
    page.goto(article.get_absolute_url())

    expect(page.locator(f"#comment-{comment.pk} .badge-waiting:not([data-comment])")).to_have_count(1)
    page.wait_for_timeout(1000)

    assert len(asked) == 1


def test_without_javascript_one_reads_comments_and_sees_badges_after_a_reload(new_page: NewPage) -> None:
    article = make_article()
    make_prediction(make_comment(article, "早就有的"), "positive")
    make_user("laowang")
    page = new_page(javascript=False)
    sign_in(page, "laowang")
    page.goto(article.get_absolute_url())
    expect(page.locator(".badge-positive").first).to_contain_text("正面")

    page.get_by_label("写评论").fill("没有脚本也能说话")
    page.get_by_role("button", name="发表评论").click()
    row = page.locator(".comment", has_text="没有脚本也能说话")
    expect(row.locator(".badge-waiting")).to_have_text("分析中")

    make_prediction(Comment.objects.get(author__username="laowang"), "neutral")
    page.reload()
    expect(row.locator(".badge")).to_contain_text("中性")


def test_a_refused_comment_can_be_mended_and_posted(new_page: NewPage) -> None:
    article = make_article()
    make_user("laowang")
    page = new_page()
    sign_in(page, "laowang")
    page.goto(article.get_absolute_url())

    page.get_by_label("写评论").fill("\u200b\u200b")
    page.get_by_role("button", name="发表评论").click()
    expect(page.get_by_role("alert")).to_have_text("请输入评论内容")
    field = page.get_by_label("写评论")
    expect(field).to_be_focused()

    field.fill("这次有字了")
    page.get_by_role("button", name="发表评论").click()
    expect(page.locator(".comment-text")).to_have_text("这次有字了")


def test_a_writer_previews_publishes_and_takes_back(new_page: NewPage) -> None:
    make_article()
    page = new_page()
    sign_in(page, "writer")
    page.get_by_role("link", name="写文章").click()
    page.get_by_label("标题").fill("雨天的面馆")
    page.get_by_label("分类", exact=True).select_option(label="美食")
    page.get_by_label("标签").fill("面馆，雨天")
    page.get_by_label("正文").fill("还是**多葱少面**？")
    page.get_by_role("button", name="预览").click()
    expect(page.locator(".preview strong")).to_have_text("多葱少面")

    page.get_by_role("button", name="发布").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("雨天的面馆")
    expect(page.get_by_role("status")).to_have_text("文章已发布。")

    page.get_by_role("link", name="编辑").click()
    page.get_by_role("button", name="撤回为草稿").click()
    expect(page.get_by_text("这是草稿，只有你能看到。")).to_be_visible()


def test_the_keyboard_alone_reaches_the_text_and_the_form(new_page: NewPage) -> None:
    article = make_article()
    make_user("laowang")
    page = new_page()
    sign_in(page, "laowang")
    page.goto(article.get_absolute_url())

    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="跳到正文")).to_be_focused()
    expect(page.get_by_role("link", name="跳到正文")).to_be_in_viewport()
    page.keyboard.press("Enter")
    expect(page.locator("main")).to_be_focused()
    for _ in range(20):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.id") == "comment-text":
            break
    expect(page.get_by_label("写评论")).to_be_focused()
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
