from __future__ import annotations

import re

import pytest
from playwright.sync_api import expect

from blog_site.comments.models import Comment, Report
from blog_site.comments.services import score_comments
from tests.blog import PASSWORD, make_article, make_comment, make_prediction, make_user
from tests.comments.inference_server import InferenceServer

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
    page.evaluate("window.notReloaded = true")
    page.get_by_role("button", name="发表评论").click()
    row = page.locator(".comment", has_text="豆浆很香，油条太硬。")
    expect(row).to_be_in_viewport()
    comment = Comment.objects.get()
    expect(page.get_by_label("写评论")).to_have_value("")
    waiting = row.get_by_text("分析中")
    expect(waiting).to_be_visible()
    before = waiting.bounding_box()

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


def test_two_readers_talk_without_a_reload(new_page: NewPage, inference: InferenceServer) -> None:
    article = make_article(body_markdown="\n\n".join(["很长的一段。"] * 60))
    make_comment(article, "早先的一条")
    reader, writer = new_page(), new_page()
    for page, name in ((reader, "laowang"), (writer, "xiaoman")):
        make_user(name)
        sign_in(page, name)
        page.goto(article.get_absolute_url())
        page.evaluate("window.notReloaded = true")
    reader.evaluate("document.documentElement.scrollTop = 0")

    # A nudge before something harsh, which can be sent all the same; here it is put otherwise.
    field = writer.get_by_label("写评论")
    field.fill("写得太差了，浪费时间")
    expect(writer.locator(".composer-nudge")).to_contain_text("听起来有点重")
    field.fill("要是有价格就好了")
    expect(writer.locator(".composer-nudge")).to_have_count(0)
    field.press("Control+Enter")
    expect(writer.locator(".live-notice")).to_have_text("评论已发表")

    # The other one reads further up: nothing moves, a bar says what there is.
    reader.get_by_role("button", name="1 条新评论").click()
    row = reader.locator(".comment", has_text="要是有价格就好了")
    expect(row).to_be_in_viewport()
    score_comments(comments=Comment.objects.unscored())
    expect(row.locator("> .comment-main a.badge-positive")).to_be_visible()
    expect(writer.locator("a.badge-positive")).to_be_visible()

    row.get_by_role("button", name="赞").click()
    row.get_by_role("link", name="回复").click()
    reader.get_by_label("回复 xiaoman").fill("豆浆三块")
    reader.get_by_role("button", name="发表回复").click()
    expect(row.locator(".comment-replies .comment-text")).to_have_text("豆浆三块")

    own = writer.locator(".comment-list > .comment", has_text="要是有价格就好了")
    expect(own.locator(".comment-replies .comment-text")).to_have_text("豆浆三块")
    expect(own.locator("> .comment-main .like-count .number")).to_have_text("1")
    own.locator("> .comment-main").get_by_role("link", name="编辑").click()
    writer.get_by_label("修改评论").fill("有价格就更好了")
    writer.get_by_role("button", name="保存").click()
    expect(reader.locator(".comment-text", has_text="有价格就更好了")).to_be_visible()
    expect(reader.locator(".comment-edited")).to_have_text("已编辑")

    writer.locator(".comment", has_text="早先的一条").get_by_role("link", name="举报").click()
    writer.get_by_label("与文章无关").check()
    writer.get_by_role("dialog").get_by_role("button", name="举报").click()
    expect(writer.locator(".live-notice")).to_contain_text("谢谢")
    assert Report.objects.get().reporter.username == "xiaoman"

    reader.locator(".comment-replies").get_by_role("link", name="删除").click()
    reader.get_by_role("dialog").get_by_role("button", name="删除").click()
    expect(writer.get_by_text("豆浆三块")).to_have_count(0)
    assert [page.evaluate("window.notReloaded") for page in (reader, writer)] == [True, True]


def test_of_many_that_wait_every_one_gets_its_badge(new_page: NewPage) -> None:
    article = make_article()
    comments = [make_comment(article, f"第{n}条") for n in range(12)]
    page = new_page()
    page.goto(article.get_absolute_url())
    expect(page.locator(".badge-waiting")).to_have_count(12)

    for comment in comments:
        make_prediction(comment, "neutral")

    expect(page.locator(".badge-neutral")).to_have_count(12)


def test_without_javascript_one_searches_reads_comments_replies_and_sees_badges_after_a_reload(
    new_page: NewPage,
) -> None:
    article = make_article()
    make_prediction(make_comment(article, "早就有的"), "positive")
    make_user("laowang")
    page = new_page(javascript=False)
    sign_in(page, "laowang")
    page.goto("/search/?q=豆浆")
    page.get_by_role("link", name="豆浆与油条").click()
    expect(page.locator(".prose")).to_contain_text("热豆浆配油条")
    expect(page.locator(".badge-positive").first).to_contain_text("正面")

    page.get_by_label("写评论").fill("没有脚本也能说话")
    page.get_by_role("button", name="发表评论").click()
    row = page.locator(".comment", has_text="没有脚本也能说话")
    expect(row.locator(".badge-waiting")).to_have_text("分析中")

    make_prediction(Comment.objects.get(author__username="laowang"), "neutral")
    page.reload()
    expect(row.locator(".badge")).to_contain_text("中性")

    page.locator(".comment", has_text="早就有的").get_by_role("link", name="回复").click()
    page.get_by_label("写回复").fill("也能回复")
    page.get_by_role("button", name="发表回复").click()
    expect(page.locator(".comment-replies .comment", has_text="也能回复")).to_be_visible()


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
    page.get_by_role("textbox", name="标题").fill("雨天的面馆")
    page.get_by_label("分类", exact=True).select_option(label="美食")
    page.get_by_label("标签").fill("面馆，雨天")
    page.get_by_label("正文").fill("还是**多葱少面**？")
    page.get_by_role("button", name="预览").click()
    expect(page.locator(".preview strong")).to_have_text("多葱少面")

    page.get_by_role("button", name="现在发布").click()
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
