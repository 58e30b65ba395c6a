from __future__ import annotations

import pytest
from django.core.exceptions import ValidationError

from blog_site.articles.models import Article, Tag
from blog_site.articles.services import find_or_make_tag, publish_article, save_article
from tests.comments.rows import make_article, make_category, make_user
from tests.comments.test_services import run_in_threads

pytestmark = pytest.mark.django_db


def write(**fields: object) -> Article:
    """An article as the form hands it over: not saved yet."""
    fields = {"title": "豆浆要烫着喝", "body_markdown": "清早。", "category": make_category(), **fields}
    return Article(**{"author": make_user(), **fields})


def test_saving_renders_the_body_and_names_the_article_by_its_title() -> None:
    article = save_article(article=write(body_markdown="**烫**"), tags=["早餐", "豆浆"])
    article.refresh_from_db()
    assert article.slug == "dou-jiang-yao-tang-zhe-he"
    assert "<strong>烫</strong>" in article.body_html
    assert {tag.name for tag in article.tags.all()} == {"早餐", "豆浆"}


def test_a_draft_has_no_date_and_its_first_publication_gives_it_one_for_ever() -> None:
    article = save_article(article=write(), tags=[])
    assert article.published_at is None
    article.status = Article.Status.PUBLISHED
    first = save_article(article=article, tags=[]).published_at
    assert first is not None
    article.status = Article.Status.DRAFT
    save_article(article=article, tags=[])
    assert publish_article(article=article).published_at == first
    assert Article.objects.get().is_public()


def test_articles_of_the_same_title_get_different_addresses() -> None:
    author = make_user()
    slugs = {save_article(article=write(author=author), tags=[]).slug for _ in range(12)}
    assert len(slugs) == 12
    assert {"dou-jiang-yao-tang-zhe-he", "dou-jiang-yao-tang-zhe-he-2"} <= slugs


@pytest.mark.parametrize("title", ["😀", "！！！", "---"])
def test_a_title_without_a_word_gets_an_address_all_the_same(title: str) -> None:
    assert save_article(article=write(title=title), tags=[]).slug == "article"


def test_the_longest_title_fits_the_address() -> None:
    author = make_user()
    for _ in range(3):
        article = save_article(article=write(title="长" * 120, author=author), tags=[])
        assert len(article.slug) <= 120


def test_a_new_title_keeps_the_address() -> None:
    article = save_article(article=write(), tags=[])
    article.title = "另一个题目"
    assert save_article(article=article, tags=[]).slug == "dou-jiang-yao-tang-zhe-he"


@pytest.mark.django_db(transaction=True)
def test_articles_saved_at_once_get_different_addresses() -> None:
    author, category = make_user(), make_category()
    assert (
        run_in_threads(
            lambda: save_article(article=write(author=author, category=category), tags=["早餐"]), 4
        )
        == []
    )
    assert len(set(Article.objects.values_list("slug", flat=True))) == 4
    assert Tag.objects.get().name == "早餐"


def test_saving_again_sets_exactly_these_tags() -> None:
    article = make_article()
    save_article(article=article, tags=["早餐", "豆浆"])
    save_article(article=article, tags=["豆浆", " ", "豆浆", "油条  老店"])
    assert {tag.name for tag in article.tags.all()} == {"豆浆", "油条 老店"}


def test_a_tag_is_found_in_whatever_case_it_was_first_written() -> None:
    assert find_or_make_tag(name="Python") == find_or_make_tag(name="python")


def test_tags_whose_addresses_would_be_the_same_get_different_ones() -> None:
    tags = [find_or_make_tag(name=name) for name in ("C", "C++", "C#", "😀", "😡")]
    assert len({tag.slug for tag in tags}) == 5


def test_a_tag_that_is_too_long_is_refused_and_nothing_is_saved() -> None:
    with pytest.raises(ValidationError, match="41"):
        save_article(article=write(), tags=["长" * 41])
    assert not Article.objects.exists()


@pytest.mark.parametrize("name", ["ＡＩ", "École", "Москва", "İzmir", "东坡肉"])
@pytest.mark.timeout(20)
def test_a_tag_beyond_ascii_is_found_again(name: str) -> None:
    assert find_or_make_tag(name=name) == find_or_make_tag(name=name)
