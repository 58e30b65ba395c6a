from __future__ import annotations

from datetime import timedelta
from functools import partial

import pytest
from django.contrib.auth.models import AnonymousUser
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from django.views.defaults import bad_request, permission_denied, server_error

from blog_site.articles.models import Article
from tests.articles import typed
from tests.blog import make_article, make_category, make_comment, make_prediction, make_user

pytestmark = pytest.mark.django_db

form_data = partial(
    typed.form_data,
    body_markdown="进门他就问：还是**多葱少面**？",
    tag_names="面馆， 雨天、面馆",
    action="publish",
)


def text_of(client: Client, address: str) -> str:
    return client.get(address).content.decode()


def test_the_front_page_shows_published_articles_newest_first(client: Client) -> None:
    make_article("旧的", published_at=timezone.now() - timedelta(days=2))
    make_article("新的", published_at=timezone.now() - timedelta(days=1))
    make_article("没写完的", draft=True)
    make_article("明天才发的", published_at=timezone.now() + timedelta(days=1))

    answer = client.get("/")

    assert [article.title for article, _echo in answer.context["entries"]] == ["新的", "旧的"]


def test_articles_are_listed_ten_a_page(client: Client) -> None:
    for number in range(11):
        make_article(f"第{number}篇")

    first, second = client.get("/"), client.get("/?page=2")

    assert (len(first.context["entries"]), len(second.context["entries"])) == (10, 1)
    assert 'rel="next"' in first.content.decode()
    assert 'rel="prev"' in second.content.decode()


@pytest.mark.parametrize("page", ["0", "99", "-1", "abc", ""])
def test_a_page_number_that_makes_no_sense_shows_some_page(client: Client, page: str) -> None:
    make_article()

    assert client.get("/", {"page": page}).status_code == 200


def test_the_front_page_asks_the_database_equally_often_for_more_articles(
    client: Client, django_assert_max_num_queries
) -> None:
    for number in range(10):
        article = make_article(f"第{number}篇", tags=["早餐"])
        make_prediction(make_comment(article))

    with django_assert_max_num_queries(12):
        client.get("/")


def test_a_category_a_tag_and_an_author_show_their_own_articles(client: Client) -> None:
    soup = make_article("一碗汤", tags=["老店"], category=make_category("food", "美食"))
    make_article("一部电影", category=make_category("film", "影视"), author=make_user("other"))

    for address in (
        soup.category.get_absolute_url(),
        soup.tags.get().get_absolute_url(),
        reverse("articles:author", args=["writer"]),
    ):
        page = text_of(client, address)
        assert "一碗汤" in page
        assert "一部电影" not in page


@pytest.mark.parametrize(
    "address",
    ["/articles/无/", "/categories/none/", "/tags/无/", "/authors/nobody/", "/nowhere/", "/articles/%00/"],
)
def test_what_does_not_exist_answers_404_on_a_page_of_the_blog(client: Client, address: str) -> None:
    answer = client.get(address)

    assert answer.status_code == 404
    assert "这里没有回声" in answer.content.decode()


def test_an_article_with_a_chinese_address_can_be_read(client: Client) -> None:
    article = make_article("豆浆与油条", slug="豆浆与油条")

    assert "%E8%B1%86%E6%B5%86" in article.get_absolute_url()
    assert "<strong>油条</strong>" in text_of(client, article.get_absolute_url())


def test_a_draft_is_shown_to_its_author_only(client: Client) -> None:
    draft = make_article(draft=True)
    address = draft.get_absolute_url()

    assert client.get(address).status_code == 404
    client.force_login(make_user("another"))
    assert client.get(address).status_code == 404
    client.force_login(draft.author)
    assert "这是草稿，只有你能看到。" in text_of(client, address)


def test_what_people_wrote_is_shown_as_text(client: Client) -> None:
    evil = "<script>alert(1)</script>"
    article = make_article(evil, summary=evil, body_markdown=evil, tags=["<b>粗</b>"])
    make_comment(article, evil, author=make_user("evil", display_name=evil, bio=evil))

    for address in ("/", article.get_absolute_url(), "/authors/evil/", article.tags.get().get_absolute_url()):
        page = text_of(client, address)
        assert evil not in page
        assert "<b>粗" not in page


def test_publishing_shows_the_article_to_everybody(client: Client, writer) -> None:
    answer = client.post(reverse("articles:write"), form_data())

    article = Article.objects.get()
    assert answer["Location"] == article.get_absolute_url()
    assert article.is_public()
    assert article.author == writer
    assert sorted(tag.name for tag in article.tags.all()) == ["雨天", "面馆"]
    assert "雨天的面馆" in text_of(Client(), "/")


def test_a_saved_draft_is_listed_among_ones_own_articles_only(client: Client, writer) -> None:
    client.post(reverse("articles:write"), form_data(action="draft"))

    assert not Article.objects.get().is_public()
    assert "雨天的面馆" in text_of(client, reverse("articles:mine"))
    assert "雨天的面馆" not in text_of(client, "/")


def test_a_preview_shows_the_text_and_saves_nothing(client: Client, writer) -> None:
    page = client.post(reverse("articles:write"), form_data(action="preview")).content.decode()

    assert "<strong>多葱少面</strong>" in page
    assert "还是**多葱少面**？</textarea>" in page
    assert not Article.objects.exists()


def test_an_unknown_button_saves_a_draft_rather_than_publishing(client: Client, writer) -> None:
    client.post(reverse("articles:write"), form_data(action="shout"))

    assert Article.objects.get().status == Article.Status.DRAFT


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"title": ""}, "title"),
        ({"title": "题" * 121}, "title"),
        ({"category": ""}, "category"),
        ({"category": "999"}, "category"),
        ({"summary": "摘" * 301}, "summary"),
        ({"body_markdown": "  "}, "body_markdown"),
        ({"body_markdown": "a\x00b"}, "body_markdown"),
        ({"body_markdown": "字" * 100_001}, "body_markdown"),
        ({"body_markdown": "[" * 100_000}, "body_markdown"),
        ({"tag_names": "标" * 41}, "tag_names"),
        ({"tag_names": ",".join(f"标签{n}" for n in range(9))}, "tag_names"),
    ],
)
def test_what_is_wrong_with_an_article_is_said_at_its_field(
    client: Client, writer, changes: dict[str, object], field: str
) -> None:
    answer = client.post(reverse("articles:write"), form_data(**changes))

    assert answer.status_code == 400
    assert field in answer.context["form"].errors
    assert not Article.objects.exists()


def test_an_article_too_large_to_be_sent_is_refused_in_words(client: Client, writer) -> None:
    answer = client.post(reverse("articles:write"), form_data(body_markdown="a" * 1_100_000))

    assert answer.status_code == 400


def test_changing_an_article_keeps_its_address_and_date(client: Client, writer) -> None:
    article = make_article(author=writer, tags=["早餐"])

    form = text_of(client, reverse("articles:edit", args=[article.slug]))
    assert 'value="早餐"' in form
    client.post(reverse("articles:edit", args=[article.slug]), form_data(title="改了题目", tag_names="晚餐"))

    changed = Article.objects.get()
    assert (changed.title, changed.slug, changed.published_at) == (
        "改了题目",
        article.slug,
        article.published_at,
    )
    assert [tag.name for tag in changed.tags.all()] == ["晚餐"]


def test_a_published_article_can_be_taken_back(client: Client, writer) -> None:
    article = make_article(author=writer)

    client.post(reverse("articles:edit", args=[article.slug]), form_data(action="draft"))

    assert Client().get(article.get_absolute_url()).status_code == 404


def test_nobody_edits_another_ones_article(client: Client) -> None:
    article = make_article()
    client.force_login(make_user("another"))
    address = reverse("articles:edit", args=[article.slug])

    assert client.get(address).status_code == 404
    assert client.post(address, form_data(title="改了")).status_code == 404
    assert Article.objects.get().title == article.title


@pytest.mark.parametrize("name", ["articles:write", "articles:mine"])
def test_writing_asks_strangers_to_sign_in(client: Client, name: str) -> None:
    assert client.get(reverse(name))["Location"] == f"/sign-in/?next={reverse(name)}"


def test_the_admin_renders_what_it_saves(admin_client: Client) -> None:
    article = make_article()
    data = {
        "title": article.title, "slug": article.slug, "summary": "", "body_markdown": "*改过*",
        "category": article.category_id, "author": article.author_id, "status": "published",
        "published_at_0": "2026-01-02", "published_at_1": "08:00:00", "tag_names": "早餐，豆浆, #早餐",
    }  # fmt: skip

    answer = admin_client.post(reverse("admin:articles_article_change", args=[article.pk]), data)

    assert answer.status_code == 302
    article.refresh_from_db()
    assert "<em>改过</em>" in article.body_html
    assert sorted(tag.name for tag in article.tags.all()) == ["早餐", "豆浆"]


def test_a_title_of_which_nothing_is_seen_is_refused(client: Client) -> None:
    client.force_login(make_user())

    answer = client.post(reverse("articles:write"), form_data(title="\u200b\u202e\u3164"))

    assert answer.status_code == 400
    assert "标题里没有看得见的字" in answer.text
    assert not Article.objects.exists()


def test_when_all_else_fails_the_page_that_says_so_needs_neither_database_nor_static_list(
    rf, settings, django_assert_num_queries
) -> None:
    settings.STORAGES = settings.STORAGES | {
        "staticfiles": {"BACKEND": "whitenoise.storage.CompressedManifestStaticFilesStorage"}
    }

    with django_assert_num_queries(0):
        broken, unreadable = server_error(rf.get("/")), bad_request(rf.get("/"), Exception())

    assert (broken.status_code, unreadable.status_code) == (500, 400)
    assert "我们这边出了错" in broken.content.decode()
    assert "没看懂这个请求" in unreadable.content.decode()
    assert "/static/css/site.css" in broken.content.decode()


def test_what_one_may_not_see_is_said_on_a_page_of_the_blog(rf) -> None:
    request = rf.get("/")
    request.user = AnonymousUser()

    answer = permission_denied(request, Exception())

    assert answer.status_code == 403
    assert "这一页不对你开放" in answer.content.decode()
