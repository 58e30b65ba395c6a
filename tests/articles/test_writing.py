"""Writing without JavaScript: drafts, times, pictures, addresses; and that nothing typed is lost."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from threading import Barrier
from unittest.mock import patch
from uuid import uuid4

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.core.management import call_command
from django.db import connection
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from blog_site.articles import writing
from blog_site.articles.drafts import MAX_DRAFTS, keep_draft
from blog_site.articles.models import Article, Draft, OldSlug
from blog_site.articles.services import remove_unused_images, render_articles, save_article, spell_in_pinyin
from blog_site.articles.tasks import remove_unused_images as remove_unused_images_by_schedule
from blog_site.media.models import Image
from tests.articles.typed import form_data
from tests.blog import PASSWORD, make_article, make_category, make_comment, make_user
from tests.media.pictures import make_picture

pytestmark = pytest.mark.django_db

WRITE, AUTOSAVE = "/write/", "/write/draft/"


def edit_address(article: Article) -> str:
    return reverse("articles:edit", args=[article.slug])


def picture(width: int = 400, height: int = 300, colour: str = "teal") -> SimpleUploadedFile:
    return SimpleUploadedFile("a.png", make_picture(width, height, colour=colour))


# -- When it appears --


def at_page(at: datetime) -> str:
    return timezone.localtime(at).strftime("%Y-%m-%dT%H:%M")


def test_an_article_appears_everywhere_at_its_time_and_nowhere_before(client: Client, writer) -> None:
    at = (timezone.now() + timedelta(days=3)).replace(second=0, microsecond=0)
    client.post(WRITE, form_data(action="schedule", publish_at=at_page(at)))
    article = Article.objects.get()
    assert (article.published_at, article.is_scheduled()) == (at, True)
    reader = Client()
    places = [
        "/", article.category.get_absolute_url(), article.tags.get().get_absolute_url(), "/authors/writer/",
        "/search/?q=面馆", "/archive/", "/feed.atom", "/authors/writer/feed.atom", "/sitemap-articles.xml",
        "/api/v1/articles/", "/api/v1/search/?q=面馆",
    ]  # fmt: skip

    def shows(address: str) -> bool:
        answer = reader.get(address)
        text = answer.content.decode()
        return answer.status_code == 200 and (article.title in text or article.get_absolute_url() in text)

    assert [place for place in places if shows(place)] == []
    assert reader.get(article.get_absolute_url()).status_code == 404
    assert "定在" in client.get(article.get_absolute_url()).content.decode()
    with patch("django.utils.timezone.now", lambda: at + timedelta(seconds=1)):
        assert [place for place in places if not shows(place)] == []
        assert reader.get(article.get_absolute_url()).status_code == 200
        assert f"<updated>{at.isoformat()}" in reader.get("/feed.atom").content.decode()


def test_a_time_is_read_by_the_site_s_clock(client: Client, writer) -> None:
    client.post(WRITE, form_data(action="schedule", publish_at="2090-01-02T08:00"))

    assert Article.objects.get().published_at.isoformat() == "2090-01-02T00:00:00+00:00"
    page = client.get(edit_address(Article.objects.get())).content.decode()
    assert 'value="2090-01-02T08:00"' in page
    assert "按北京时间" in page


@pytest.mark.parametrize("at", ["", "2001-01-01T08:00", "2001-13-01T08:00", "soon"])
def test_a_time_that_is_none_or_has_passed_is_refused_at_its_field(client: Client, writer, at: str) -> None:
    answer = client.post(WRITE, form_data(action="schedule", publish_at=at))

    assert answer.status_code == 400
    assert "publish_at" in answer.context["form"].errors
    assert not Article.objects.exists()


@pytest.mark.parametrize(("action", "public"), [("publish", True), ("draft", False)])
def test_a_scheduled_article_can_be_published_now_or_taken_back(
    client: Client, writer, action: str, public: bool
) -> None:
    article = make_article(author=writer, published_at=timezone.now() + timedelta(days=1))

    client.post(edit_address(article), form_data(action=action))

    article.refresh_from_db()
    assert article.is_public() == public
    assert (article.published_at is None) != public
    assert article.published_at is None or article.published_at <= timezone.now()


# -- Its address --


@pytest.mark.parametrize(
    ("title", "slug"),
    [
        ("豆浆要烫着喝", "dou-jiang-yao-tang-zhe-he"),
        ("重庆的银行", "chong-qing-de-yin-hang"),
        ("Python 3.11 的新东西", "python-3-11-de-xin-dong-xi"),
        ("《雾码头》：前八集", "wu-ma-tou-qian-ba-ji"),
        ("长" * 120, "-".join(["chang"] * 16)),
        ("女人", "nv-ren"),
        ("😀", ""),
    ],
)
def test_a_title_is_spelt_in_pinyin(title: str, slug: str) -> None:
    assert spell_in_pinyin(title) == slug


def test_an_address_can_be_chosen_until_it_is_published_and_the_old_one_leads_on(
    client: Client, writer
) -> None:
    client.post(WRITE, form_data(slug="Noodles"))
    article = Article.objects.get()
    assert article.slug == "noodles"
    client.post(edit_address(article), form_data(slug="noodles-in-rain", action="publish"))
    article.refresh_from_db()
    assert article.slug == "noodles-in-rain"

    answer = Client().get("/articles/noodles/?page=2")
    assert (answer.status_code, answer["Location"]) == (301, "/articles/noodles-in-rain/?page=2")

    client.post(edit_address(article), form_data(slug="another", action="publish"))
    article.refresh_from_db()
    assert article.slug == "noodles-in-rain"


def test_an_emptied_address_is_made_from_the_title_again(client: Client, writer) -> None:
    client.post(WRITE, form_data(slug="x"))
    client.post("/articles/x/edit/", form_data(slug=""))

    assert Article.objects.get().slug == "yu-tian-de-mian-guan"
    assert OldSlug.objects.get().slug == "x"


def test_the_old_address_of_what_one_may_not_read_leads_nowhere(client: Client, writer) -> None:
    client.post(WRITE, form_data(slug="x"))
    client.post("/articles/x/edit/", form_data(slug="y"))

    assert Client().get("/articles/x/").status_code == 404
    assert client.get("/articles/x/").status_code == 302


def test_an_address_that_another_article_has_or_had_is_refused(client: Client, writer) -> None:
    other = make_article(slug="taken")
    other.slug = "moved"
    save_article(article=other, tags=[])
    for slug in ("taken", "moved", "not an address"):
        answer = client.post(WRITE, form_data(slug=slug))
        assert answer.status_code == 400
        assert "slug" in answer.context["form"].errors


def test_an_article_that_goes_back_to_its_old_address_is_found_under_both(client: Client, writer) -> None:
    article = make_article(slug="a")
    for slug in ("b", "a"):
        article.slug = slug
        save_article(article=article, tags=[])

    assert client.get("/articles/a/").status_code == 200
    assert client.get("/articles/b/")["Location"] == "/articles/a/"


# -- Pictures --


def test_a_picture_is_added_to_the_text_without_losing_what_was_typed(client: Client, writer) -> None:
    answer = client.post("/write/image/", form_data(title="写到一半", file=picture(), draft="", article=""))

    image = Image.objects.get()
    page = answer.content.decode()
    assert answer.status_code == 200
    assert f"多葱少面。\n\n![]({image.url})" in page
    assert 'value="写到一半"' in page
    assert not Article.objects.exists()


def test_a_cover_is_shown_on_the_page_in_lists_and_to_other_sites(client: Client, writer) -> None:
    page = client.post(
        "/write/image/", form_data(cover_file=picture(900, 600), **{"as": "cover"})
    ).content.decode()
    image = Image.objects.get()
    assert f'name="cover" value="{image.pk}" checked' in page
    client.post(WRITE, form_data(action="publish", cover=str(image.pk)))
    article = Article.objects.get()
    assert article.cover == image

    shown = Client().get(article.get_absolute_url()).content.decode()
    assert f'<meta property="og:image" content="http://testserver{image.url}">' in shown
    assert 'class="article-cover"' in shown
    assert f'"image": "http://testserver{image.url}"' in shown
    home = Client().get("/").content.decode()
    assert f'src="{image.small_url}"' in home
    assert 'width="900" height="600"' in home


def test_another_ones_picture_is_no_cover(client: Client, writer) -> None:
    image = Image.objects.create(owner=make_user("other"), digest="a" * 32, width=9, height=9, bytes=1)

    answer = client.post(WRITE, form_data(cover=str(image.pk)))

    assert answer.status_code == 400
    assert "cover" in answer.context["form"].errors


@pytest.mark.parametrize("file", [None, SimpleUploadedFile("a.png", b"<svg onload=alert(1)>")])
def test_a_picture_that_is_not_taken_is_said_and_the_text_stays(client: Client, writer, file: object) -> None:
    answer = client.post("/write/image/", form_data(**({"file": file} if file else {})))

    assert answer.status_code == 400
    assert "多葱少面。" in answer.content.decode()
    assert answer.context["upload_problem"]


def test_a_picture_that_was_chosen_and_not_uploaded_is_said(client: Client, writer) -> None:
    answer = client.post(WRITE, form_data(file="holiday.jpg"), follow=True)

    assert "选好的图片没有上传" in answer.content.decode()


def test_pictures_that_nothing_names_are_removed_after_a_while(client: Client, writer) -> None:
    kept = {}
    for name in ("article", "draft", "cover", "drafts-cover", "young", "unused"):
        kept[name] = Image.objects.create(
            owner=writer, digest=name.encode().hex().ljust(32, "0")[:32], width=9, height=9, bytes=1
        )
    make_article(author=writer, body_markdown=f"![]({kept['article'].url})", cover=kept["cover"])
    draft = {"body_markdown": f"![]({kept['draft'].url})", "cover": str(kept["drafts-cover"].pk)}
    client.post(AUTOSAVE, draft)
    long_ago = timezone.now() - timedelta(days=8)
    Image.objects.exclude(pk=kept["young"].pk).update(created_at=long_ago)

    assert remove_unused_images(age=timedelta(days=7), dry_run=True) == 1
    remove_unused_images_by_schedule()

    assert set(Image.objects.values_list("pk", flat=True)) == {
        image.pk for name, image in kept.items() if name != "unused"
    }


# -- Drafts --


def autosave(client: Client, address: str = AUTOSAVE, **fields: object):
    return client.post(address, {"title": "写到一半", "body_markdown": "一", **fields})


def test_what_is_typed_is_kept_apart_from_the_article_until_it_is_saved(client: Client, writer) -> None:
    article = make_article(author=writer)
    address = reverse("articles:autosave", args=[article.slug])

    first = autosave(client, address, body_markdown="改到").json()
    again = autosave(
        client, address, body_markdown="改到一半", draft=first["draft"], revision=first["revision"]
    )

    assert again.status_code == 200
    assert again.json()["revision"] == first["revision"] + 1
    assert "改到" not in Client().get(article.get_absolute_url()).content.decode()
    page = client.get(edit_address(article)).content.decode()
    assert "改到一半</textarea>" in page
    assert "自动保存的内容" in page
    assert "热豆浆" in client.get(f"{edit_address(article)}?draft=none").content.decode()

    client.post(edit_address(article), form_data(action="publish", draft=first["draft"]))
    assert not Draft.objects.exists()


def test_a_new_article_that_was_not_saved_is_found_again(client: Client, writer) -> None:
    kept = autosave(client, body_markdown="清早第一碗", category=make_category().pk).json()

    assert "写到一半" in client.get(WRITE, follow=True).content.decode()
    assert "写到一半" in client.get("/mine/").content.decode()
    assert "清早第一碗</textarea>" in client.get(kept["address"]).content.decode()
    client.force_login(make_user("other"))
    assert "清早第一碗" not in client.get(kept["address"]).content.decode()
    assert client.post(f"/write/drafts/{kept['draft']}/discard/").status_code == 404


def test_the_same_article_open_twice_loses_neither_text(client: Client, writer) -> None:
    address = reverse("articles:autosave", args=[make_article(author=writer).slug])
    start = autosave(client, address, body_markdown="起").json()
    place = {"draft": start["draft"], "revision": start["revision"]}
    assert autosave(client, address, body_markdown="这一页", **place).status_code == 200

    answer = autosave(client, address, body_markdown="那一页", **place)

    assert answer.status_code == 409
    said = answer.json()
    assert said["conflict"] is True
    assert said["draft"] != start["draft"]
    assert said["elsewhere"]
    assert sorted(draft.fields["body_markdown"] for draft in Draft.objects.all()) == ["这一页", "那一页"]
    further = autosave(
        client, address, body_markdown="那一页又写", draft=said["draft"], revision=said["revision"]
    )
    assert further.status_code == 200


def test_a_second_page_of_the_same_article_is_told_of_the_first(client: Client, writer) -> None:
    address = reverse("articles:autosave", args=[make_article(author=writer).slug])
    autosave(client, address, body_markdown="这一页")

    answer = autosave(client, address, body_markdown="那一页")

    assert (answer.status_code, answer.json()["conflict"], len(answer.json()["elsewhere"])) == (409, False, 1)
    assert Draft.objects.count() == 2


def test_saving_over_what_was_saved_elsewhere_is_said_first_and_keeps_the_other_text(
    client: Client, writer
) -> None:
    article = make_article(author=writer)
    base = article.updated_at.isoformat()
    client.post(edit_address(article), form_data(action="publish", body_markdown="那一页的", base=base))

    answer = client.post(
        edit_address(article), form_data(action="publish", body_markdown="这一页的", base=base)
    )

    assert answer.status_code == 409
    page = answer.content.decode()
    assert "这一页的</textarea>" in page
    assert Article.objects.get().body_markdown == "那一页的"
    assert Draft.objects.get().fields["body_markdown"] == "那一页的"
    new_base = answer.context["hidden"]["base"]
    client.post(edit_address(article), form_data(action="publish", body_markdown="这一页的", base=new_base))
    assert Article.objects.get().body_markdown == "这一页的"
    assert Draft.objects.get().fields["body_markdown"] == "那一页的"


@pytest.mark.parametrize("is_new", [True, False])
def test_a_session_that_ended_gives_the_text_back_after_signing_in(
    client: Client, writer, is_new: bool
) -> None:
    address = WRITE if is_new else edit_address(make_article(author=writer))
    client.logout()

    answer = client.post(address, form_data(body_markdown="写了很久"))

    assert answer["Location"] == f"/sign-in/?next={address}"
    answer = client.post(answer["Location"], {"username": "writer", "password": PASSWORD}, follow=True)
    page = answer.content.decode()
    assert "写了很久</textarea>" in page
    assert "找回来了" in page
    assert autosave(Client()).status_code == 401


def test_drafts_do_not_grow_without_end(client: Client, writer) -> None:
    Draft.objects.bulk_create(Draft(author=writer, fields={"title": str(n)}) for n in range(MAX_DRAFTS))

    answer = autosave(client)

    assert answer.status_code == 429
    assert answer.json()["error"]
    assert Draft.objects.count() == MAX_DRAFTS


@pytest.mark.parametrize(
    "junk", [{"draft": "x"}, {"draft": "9" * 40}, {"draft": "-1", "revision": "²"}, {"draft": "1.5"}]
)
def test_a_draft_number_that_makes_no_sense_is_a_new_draft(
    client: Client, writer, junk: dict[str, str]
) -> None:
    assert autosave(client, **junk).status_code == 200
    assert client.get(WRITE, {"draft": junk["draft"]}).status_code == 200


def test_nobody_keeps_drafts_of_another_ones_article(client: Client, writer) -> None:
    article = make_article(author=make_user("other"))

    assert autosave(client, reverse("articles:autosave", args=[article.slug])).status_code == 404


def test_discarding_asks_first(client: Client, writer) -> None:
    draft = autosave(client).json()["draft"]
    address = reverse("articles:discard", args=[draft])

    assert "写到一半" in client.get(address).content.decode()
    assert Draft.objects.exists()
    client.post(address)
    assert not Draft.objects.exists()


# -- The preview beside the text, and what is kept rendered --


# -- The form of a new article sent twice --


def key_of(client: Client) -> str:
    return str(client.get(WRITE, follow=True).context["hidden"]["key"])


@pytest.mark.parametrize("action", ["publish", "draft"])
def test_the_form_of_a_new_article_sent_again_makes_no_second_one(
    client: Client, writer, action: str
) -> None:
    typed = form_data(action=action, key=key_of(client), tag_names="面馆，雨天")

    first, second = client.post(WRITE, typed), client.post(WRITE, typed)

    assert first.status_code == second.status_code == 302
    assert first["Location"] == second["Location"]
    assert Article.objects.count() == 1
    assert key_of(client) != typed["key"]
    client.post(WRITE, typed | {"key": key_of(client)})
    assert Article.objects.count() == 2  # of another page, and meant so


def test_going_back_to_the_page_of_a_new_article_shows_the_same_form(client: Client, writer) -> None:
    """Whose hidden fields a browser does not restore; that of a draft is gone with it once it is published."""
    for address in (client.get(WRITE)["Location"], keep_draft_of(writer).get_absolute_url()):
        before = Article.objects.count()
        for _time in range(2):
            hidden = client.get(address).context["hidden"]
            typed = form_data(action="publish", title=address[:20], draft=hidden["draft"], key=hidden["key"])
            assert client.post(WRITE, typed).status_code == 302
        assert Article.objects.count() == before + 1
    assert not Draft.objects.exists()


def keep_draft_of(writer) -> Draft:
    return keep_draft(
        author=writer, article=None, fields={"title": "写到一半"}, draft_id=None, revision=0
    ).draft


def test_going_back_writing_on_and_sending_again_asks_before_it_changes_the_article(
    client: Client, writer
) -> None:
    typed = form_data(action="publish", key=key_of(client))
    client.post(WRITE, typed)

    asked = client.post(WRITE, typed | {"title": "晴天的面馆"})

    article = Article.objects.get()
    assert asked.status_code == 409
    assert article.title == "雨天的面馆"
    page = asked.content.decode()
    assert "《雨天的面馆》" in page
    assert 'value="晴天的面馆"' in page
    again = {"title": "晴天的面馆", "base": asked.context["hidden"]["base"]}
    assert f'action="{edit_address(article)}"' in page
    assert client.post(edit_address(article), typed | again).status_code == 302
    assert Article.objects.get().title == "晴天的面馆"


def test_somebody_elses_form_is_another(client: Client, writer) -> None:
    typed = form_data(action="publish", key=key_of(client))
    client.post(WRITE, typed)
    client.force_login(make_user("other"))

    assert client.post(WRITE, typed).status_code == 302
    assert {article.author.username for article in Article.objects.all()} == {"writer", "other"}


@pytest.mark.django_db(transaction=True)
def test_two_clicks_at_the_same_moment_make_one_article(writer) -> None:
    make_category()
    typed = form_data(action="publish", key=str(uuid4()))
    together = Barrier(2)

    def click(_number: int) -> str:
        browser = Client()
        browser.force_login(writer)
        together.wait(timeout=30)
        try:
            return browser.post(WRITE, typed)["Location"]
        finally:
            connection.close()

    with ThreadPoolExecutor(2) as people:
        assert len(set(people.map(click, range(2)))) == 1
    assert Article.objects.count() == 1


def test_a_form_that_comes_while_its_twin_is_saved_leads_to_the_same_article(client: Client, writer) -> None:
    """As above, at the one moment that matters: after it was looked for, before it was there."""
    typed = form_data(action="publish", key=key_of(client))
    client.post(WRITE, typed)
    found = [None]  # not at first

    def look(posted, article):
        return found.pop() if found else find(posted, article)

    find = writing._find_made
    with patch.object(writing, "_find_made", look):
        assert client.post(WRITE, typed).status_code == 302
    assert Article.objects.count() == 1


def test_the_preview_says_why_a_text_is_not_rendered(client: Client, writer) -> None:
    for text, limit in (("[" * 100_000, "250000 步"), ("字" * 100_001, "最多 100000 字")):
        refused = client.post("/write/preview/", {"body_markdown": text})
        assert refused.status_code == 400
        assert limit in refused.content.decode()


def test_rendering_all_anew_passes_over_a_text_that_is_not_rendered_any_more(writer) -> None:
    article = make_article(author=writer)
    Article.objects.filter(pk=article.pk).update(body_markdown="[" * 100_000)

    assert render_articles() == 0
    article.refresh_from_db()
    assert "豆浆" in article.body_html


def test_the_preview_is_what_readers_will_see(client: Client, writer) -> None:
    assert (
        client.post("/write/preview/", {"body_markdown": "**粗** $x$"})
        .content.decode()
        .startswith("<p><strong>粗</strong> <span")
    )
    assert Client().post("/write/preview/", {"body_markdown": "x"}).status_code == 401


def test_articles_are_rendered_anew_without_counting_as_changed(capsys) -> None:
    article = make_article(body_markdown="**粗**")
    Article.objects.update(body_html="<p>以前的样子</p>")
    before = Article.objects.get().updated_at

    call_command("render_articles", "--dry-run")
    assert Article.objects.get().body_html == "<p>以前的样子</p>"
    call_command("render_articles")
    call_command("render_articles")

    assert capsys.readouterr().out.splitlines() == [
        "1 articles would be rendered anew", "1 articles were rendered anew", "0 articles were rendered anew",
    ]  # fmt: skip
    assert Article.objects.get().body_html == article.body_html
    assert Article.objects.get().updated_at == before


# -- My articles --


def test_ones_own_articles_are_listed_by_state(client: Client, writer) -> None:
    make_article("写着", author=writer, draft=True)
    make_article("等着", author=writer, published_at=timezone.now() + timedelta(days=1))
    make_article("发了", author=writer)
    make_article("别人的", author=make_user("other"))

    listed = {
        state: {article.title for article, _ in client.get("/mine/", {"state": state}).context["entries"]}
        for state in ("", "draft", "scheduled", "published", "nonsense")
    }

    everything = {"写着", "等着", "发了"}
    assert listed == {
        "": everything, "draft": {"写着"}, "scheduled": {"等着"}, "published": {"发了"}, "nonsense": everything,
    }  # fmt: skip


def test_taking_back_and_deleting_ask_first_and_say_what_goes(client: Client, writer) -> None:
    article = make_article(author=writer)
    make_comment(article)
    withdraw, delete = (reverse(f"articles:{name}", args=[article.slug]) for name in ("withdraw", "delete"))

    assert "1 条评论" in client.get(delete).content.decode()
    client.get(withdraw)
    assert Article.objects.get().is_public()
    client.post(withdraw)
    assert not Article.objects.get().is_public()
    assert Client().get("/search/?q=豆浆").context["page"].paginator.count == 0
    client.post(delete)
    assert not Article.objects.exists()


@pytest.mark.parametrize("name", ["edit", "withdraw", "delete"])
def test_another_ones_article_is_not_there_to_be_changed(client: Client, writer, name: str) -> None:
    address = reverse(f"articles:{name}", args=[make_article(author=make_user("other")).slug])

    assert client.get(address).status_code == 404
    assert client.post(address).status_code == 404
    assert Client().get(address).status_code == 302
    assert Article.objects.get().is_public()
