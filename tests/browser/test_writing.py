"""Writing with the editor: a picture pasted, a preview, a time, publishing; and with JavaScript off."""

from __future__ import annotations

import base64
import re

import pytest
from playwright.sync_api import expect

from blog_site.articles.models import Article, Draft
from blog_site.media.models import Image
from tests.blog import make_category, make_user
from tests.media.pictures import make_picture

from .conftest import NewPage, sign_in

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]

PASTE = """([encoded]) => {
  const bytes = Uint8Array.from(atob(encoded), (character) => character.charCodeAt(0));
  const transfer = new DataTransfer();
  transfer.items.add(new File([bytes], "清晨的面馆.png", { type: "image/png" }));
  const event = new ClipboardEvent("paste", { clipboardData: transfer, bubbles: true, cancelable: true });
  document.getElementById("id_body_markdown").dispatchEvent(event);
}"""


def test_a_writer_pastes_a_picture_previews_schedules_publishes_and_readers_see_it(new_page: NewPage) -> None:
    make_category()
    make_user("writer", display_name="林夏")
    page = new_page()
    sign_in(page, "writer")
    page.goto("/write/")
    page.get_by_label("标题", exact=True).fill("雨天的面馆")
    page.locator("#id_category").select_option(label="美食")
    body = page.locator("#id_body_markdown")
    body.fill("多葱少面")
    body.select_text()
    page.keyboard.press("Control+b")
    expect(body).to_have_value("**多葱少面**")
    body.press("End")

    picture = base64.b64encode(make_picture(900, 600)).decode()
    page.evaluate(PASTE, [picture])
    expect(body).to_have_value(re.compile(r"!\[清晨的面馆\]\(/media/images/[0-9a-f]{32}\.webp\)"))
    page.get_by_role("button", name="边写边看").click()
    shown = page.locator(".editor-preview img")
    expect(shown).to_have_attribute("width", "900")
    expect(page.locator(".editor-preview strong")).to_have_text("多葱少面")

    # Kept without a button, and found again after a crash: nothing was saved by its writer.
    expect(page.locator("#autosave")).to_contain_text("已自动保存")
    expect(page).to_have_url(re.compile(r"/write/\?draft=\d+$"))
    page.reload()
    expect(body).to_have_value(re.compile("多葱少面"))
    assert Draft.objects.count() == 1

    page.locator(".write-more > summary").click()
    page.locator(".cover-choice").last.click()
    page.locator("#id_publish_at").fill("2090-01-02T08:00")
    page.get_by_role("button", name="定时发布").click()
    expect(page.locator(".draft-notice")).to_contain_text("2090")
    article = Article.objects.get()
    assert article.is_scheduled()
    assert article.cover == Image.objects.get()
    assert not Draft.objects.exists()

    reader = new_page(javascript=False)
    reader.goto("/")
    expect(reader.get_by_text("雨天的面馆")).to_have_count(0)
    page.get_by_role("link", name="编辑").click()
    page.get_by_role("button", name="现在发布").click()
    expect(page.get_by_text("文章已发布。")).to_be_visible()

    reader.goto("/")
    thumbnail = reader.locator(".entry-cover img")
    expect(thumbnail).to_be_visible()
    chosen = thumbnail.evaluate("image => image.decode().then(() => image.currentSrc)")
    assert re.search(r"-(320|640)\.webp$", chosen), "a thumbnail will do in a list"
    reader.get_by_role("link", name="雨天的面馆").click()
    expect(reader.locator(".prose img")).to_have_attribute("alt", "清晨的面馆")
    expect(reader).to_have_url(re.compile("/articles/yu-tian-de-mian-guan/$"))


def test_without_javascript_a_picture_is_added_and_the_text_stays(new_page: NewPage) -> None:
    make_category()
    make_user("writer")
    page = new_page(javascript=False, width=390)
    sign_in(page, "writer")
    page.goto("/write/")
    page.get_by_label("标题", exact=True).fill("雨天的面馆")
    page.locator("#id_category").select_option(label="美食")
    page.locator("#id_body_markdown").fill("多葱少面。")
    file = {"name": "a.png", "mimeType": "image/png", "buffer": make_picture(900, 600)}
    page.locator("#id_file").set_input_files(file)
    page.get_by_role("button", name="上传并插入").click()
    expect(page.locator("#id_body_markdown")).to_have_value(
        re.compile(r"^多葱少面。\n\n!\[\]\(/media/images/\w+\.webp\)")
    )
    page.get_by_role("button", name="预览").click()
    expect(page.locator(".preview img")).to_have_attribute("height", "600")
    page.get_by_role("button", name="现在发布").click()
    expect(page.locator(".prose img")).to_be_visible()
    assert Article.objects.get().is_public()
