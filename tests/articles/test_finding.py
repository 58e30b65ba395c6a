"""The pages and files by which articles are found: search, archive, feeds, sitemap, and what machines are told."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from xml.etree import ElementTree

import pytest
from django.test import Client
from django.utils import timezone

from blog_site.articles.models import Article
from blog_site.articles.services import save_article
from tests.blog import make_article, make_category, make_user

ATOM = "{http://www.w3.org/2005/Atom}"
SITEMAP = "{http://www.sitemaps.org/schemas/sitemap/0.9}"
in_database = pytest.mark.django_db


def write(title: str, body: str = "正文。", **fields) -> Article:
    author = fields.pop("author", None) or make_user(f"author-{Article.objects.count()}")
    category = fields.pop("category", None) or make_category()
    article = Article(
        title=title,
        body_markdown=body,
        author=author,
        category=category,
        status=Article.Status.PUBLISHED,
        **fields,
    )
    return save_article(article=article, tags=["早餐"])


@in_database
def test_who_has_found_nothing_is_offered_tags(client: Client) -> None:
    write("嫩豆腐", "先把豆腐切块。")
    offered = [
        "早餐" in client.get("/search/", {"q": query}).content.decode() for query in ("", "面馆", "豆腐")
    ]
    assert offered == [True, True, False]


@in_database
def test_the_search_page_shows_hits_with_their_words_marked(client: Client) -> None:
    write("嫩豆腐 <b>", "先把豆腐切块，<script>alert(1)</script> 再煎。")

    page = client.get("/search/", {"q": "豆腐"}).content.decode()

    assert "嫩<mark>豆腐</mark> &lt;b&gt;" in page
    assert "先把<mark>豆腐</mark>切块" in page
    assert "<script>alert" not in page


@in_database
def test_a_search_that_finds_nothing_says_so_and_shows_the_query_escaped(client: Client) -> None:
    page = client.get("/search/", {"q": '"><img src=x>'}).content.decode()

    assert "没有找到" in page
    assert "<img" not in page
    assert client.get("/search/").status_code == 200
    assert client.get("/search/", {"q": "\x00豆", "page": "x"}).status_code == 200


@in_database
def test_the_api_searches_too(client: Client) -> None:
    write("嫩豆腐")
    write("别的")

    found = client.get("/api/v1/search/", {"q": "豆腐"}).json()

    assert [article["title"] for article in found["results"]] == ["嫩豆腐"]
    assert (found["next"], found["previous"]) == (None, None)
    assert client.get("/api/v1/search/").status_code == 400
    assert client.get("/api/v1/search/", {"q": "豆腐", "cursor": "99"}).status_code == 400


@pytest.mark.django_db
def test_the_archive_lists_a_year_by_months(client: Client) -> None:
    old = make_article(title="旧文")
    Article.objects.filter(pk=old.pk).update(published_at=datetime(2024, 3, 1, tzinfo=UTC))
    new = make_article(title="新文")
    Article.objects.filter(pk=new.pk).update(published_at=datetime(2025, 5, 2, tzinfo=UTC))
    make_article(title="草稿", status=Article.Status.DRAFT)

    newest = client.get("/archive/").content.decode()
    older = client.get("/archive/", {"year": "2024"}).content.decode()

    assert "新文" in newest
    assert "旧文" not in newest
    assert "旧文" in older
    assert "2024年3月" in older
    assert client.get("/archive/", {"year": "9" * 5000}).status_code == 200


@pytest.mark.django_db
def test_an_empty_blog_has_an_archive(client: Client) -> None:
    assert "还没有文章" in client.get("/archive/").content.decode()


@pytest.mark.django_db
def test_feeds_hold_what_they_say_and_no_draft(client: Client) -> None:
    food, other = make_category(), make_category("film", "电影")
    writer = make_user("xiaoming")
    mine = write("我的 <&> 豆腐", "**好吃**", author=writer, category=food)
    theirs = write("别人的电影", category=other)
    make_article(title="草稿", status=Article.Status.DRAFT)
    tomorrow = write("明天的")
    Article.objects.filter(pk=tomorrow.pk).update(published_at=timezone.now() + timedelta(days=1))

    def titles(address: str) -> list[str]:
        answer = client.get(address)
        assert answer["Content-Type"].startswith("application/atom+xml")
        feed = ElementTree.fromstring(answer.content)
        return [str(entry.findtext(f"{ATOM}title")) for entry in feed.iter(f"{ATOM}entry")]

    assert titles("/feed.atom") == [theirs.title, mine.title]
    assert titles("/categories/food/feed.atom") == [mine.title]
    assert titles("/authors/xiaoming/feed.atom") == [mine.title]
    assert "<strong>好吃</strong>" in ElementTree.fromstring(client.get("/feed.atom").content)[-1].findtext(
        f"{ATOM}summary", ""
    )
    assert client.get("/categories/none/feed.atom").status_code == 404


@pytest.mark.django_db
def test_the_sitemap_names_public_pages_only(client: Client) -> None:
    public = make_article(title="公开")
    draft = make_article(title="草稿", status=Article.Status.DRAFT)
    index = ElementTree.fromstring(client.get("/sitemap.xml").content)
    addresses = []
    for section in index.iter(f"{SITEMAP}loc"):
        answer = client.get(re.sub(r"^https?://[^/]+", "", str(section.text)))
        addresses += [str(loc.text) for loc in ElementTree.fromstring(answer.content).iter(f"{SITEMAP}loc")]

    assert any(address.endswith(public.get_absolute_url()) for address in addresses)
    assert not any(draft.slug in address for address in addresses)
    assert any(address.endswith("/archive/") for address in addresses)
    robots = client.get("/robots.txt").content.decode()
    assert "Disallow: /admin/" in robots
    assert "Sitemap: http://testserver/sitemap.xml" in robots


@pytest.mark.django_db
def test_an_article_tells_machines_what_it_is_and_cannot_break_out_of_it(client: Client) -> None:
    article = make_article(title="</script><script>alert(1)</script> & 豆腐")

    page = client.get(article.get_absolute_url()).content.decode()

    found = re.search(r'<script type="application/ld\+json">(.*?)</script>', page, re.DOTALL)
    assert found is not None
    told = json.loads(found[1])
    assert told["headline"] == article.title
    assert told["@type"] == "BlogPosting"
    assert told["url"].startswith("http://testserver/articles/")
    assert "<script>alert" not in page


@pytest.mark.django_db
def test_a_draft_tells_machines_nothing(client: Client) -> None:
    writer = make_user("xiaoming")
    draft = make_article(title="草稿", status=Article.Status.DRAFT, author=writer)
    client.force_login(writer)

    page = client.get(draft.get_absolute_url()).content.decode()

    assert "ld+json" not in page
    assert "canonical" not in page
