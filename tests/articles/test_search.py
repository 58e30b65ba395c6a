from __future__ import annotations

from datetime import timedelta

import pytest
from django.core.management import call_command
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from blog_site.articles import postings, search
from blog_site.articles.models import Article, Category, SearchEntry, SearchPosting, WordField
from blog_site.articles.search import highlight, make_snippet, search_articles
from blog_site.articles.services import delete_article, publish_article, save_article
from blog_site.articles.words import make_words, parse_query
from tests.blog import make_user

in_database = pytest.mark.django_db


def write(title: str, body: str = "正文。", *, status: str = Article.Status.PUBLISHED) -> Article:
    category, _ = Category.objects.get_or_create(slug="food", defaults={"name": "美食"})
    author = make_user(f"author-{Article.objects.count()}")
    article = Article(title=title, body_markdown=body, category=category, author=author, status=status)
    return save_article(article=article, tags=[])


def found(query: str) -> list[str]:
    return [article.title for article in search_articles(query)]


QUERIES = {
    "处理": "待处理的豆腐",
    "待处理": "待处理的豆腐",
    "豆腐": "待处理的豆腐",
    "腐": "待处理的豆腐",
    "待": "待处理的豆腐",
    "理的豆": "待处理的豆腐",
    "django": "用 Django 写博客",
    "DJANGO": "用 Django 写博客",
    "djan": "用 Django 写博客",
    "用 博客": "用 Django 写博客",
    "a 计": "A 计划",
    "of": "Out of Africa 读后",
    "2026": "2026 年的菜单",
    "café": "一家 Café",
    "𠮷野": "𠮷野家的牛肉饭",
}
# No words at all, or the operators of some database: words like others, which nobody has written here.
FINDING_NOTHING = (
    "", " ", "！？。", "%", '"', "*", "+", "😀", "'; DROP TABLE x; --🙂", "理处", "NOT", "a AND", "NEAR(a b)", "a* OR",
    '"x', "-a x", "(x", "~b <c >d @4", "w" * 500,
)  # fmt: skip


@in_database
def test_a_query_finds_its_article_and_no_other() -> None:
    for title in dict.fromkeys(QUERIES.values()):
        write(title, "别无他话")

    assert {query: found(query) for query in QUERIES} == {query: [title] for query, title in QUERIES.items()}
    assert [query for query in FINDING_NOTHING if found(query)] == []


@in_database
def test_characters_that_stand_apart_are_not_found_as_a_phrase() -> None:
    write("处之泰然，理所当然", "处方；理由；待理处")

    assert found("处理") == []


@in_database
def test_a_long_phrase_is_found_only_where_it_stands_in_a_row() -> None:
    write("待处理", "internationalisation")
    write("等待处决；处理；待处", "international 处理；等待处")

    assert found("待处理") == ["待处理"]
    assert found("internationalis") == ["待处理"]
    assert found("待处") == ["等待处决；处理；待处", "待处理"]


@in_database
def test_titles_outrank_bodies() -> None:
    write("别的", "豆腐。" * 30)
    write("嫩豆腐")
    write("再一篇", "最后提到豆腐")

    assert found("豆腐")[0] == "嫩豆腐"
    assert set(found("豆腐")) == {"嫩豆腐", "别的", "再一篇"}


@in_database
def test_words_may_be_spread_over_title_summary_and_body() -> None:
    write("嫩豆腐", "要用 **小火** 慢慢煎")

    assert found("豆腐 小火") == ["嫩豆腐"]
    assert found("豆腐 大火") == []


@in_database
def test_what_markup_cuts_in_two_is_found_whole() -> None:
    write("标题", "这是**待**处理的")

    assert found("待处理") == ["标题"]


@in_database
def test_the_index_follows_every_change() -> None:
    article = write("嫩豆腐")
    article.title = "老豆干"
    save_article(article=article, tags=[])
    assert (found("嫩豆腐"), found("豆干")) == ([], ["老豆干"])

    article.status = Article.Status.DRAFT
    save_article(article=article, tags=[])
    assert found("豆干") == []
    assert not SearchEntry.objects.exists()

    publish_article(article=article)
    assert found("豆干") == ["老豆干"]
    delete_article(article=article)
    assert found("豆干") == []
    assert not SearchPosting.objects.exclude(word=b"").exists()


@in_database
def test_an_article_that_was_deleted_past_the_blog_is_not_found_and_hides_no_other() -> None:
    write("嫩豆腐")
    gone = write("老豆腐")
    Article.objects.filter(pk=gone.pk).delete()

    assert found("豆腐") == ["嫩豆腐"]


@in_database
def test_the_newest_are_shown_where_too_many_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "MAX_RESULTS", 2)
    for name in "甲乙丙":
        write(f"{name}豆腐")

    assert found("豆腐") == ["丙豆腐", "乙豆腐"]


@in_database
def test_rebuilding_finds_what_was_written_past_the_blog_and_keeps_the_rest() -> None:
    kept = write("嫩豆腐", "小火慢煎")
    written = write("别的", "正文")
    Article.objects.filter(pk=written.pk).update(title="老豆干", body_html="<p>大火</p>")
    write("草稿豆腐", status=Article.Status.DRAFT)
    words = set(SearchPosting.objects.values_list("word", flat=True))

    call_command("rebuild_search", verbosity=0)

    assert (found("豆腐 小火"), found("豆干"), found("别的")) == (["嫩豆腐"], ["老豆干"], [])
    assert "别".encode() in {bytes(word) for word in words}
    assert {bytes(word) for word in SearchPosting.objects.values_list("word", flat=True)}.isdisjoint(
        {"别".encode(), "草稿".encode()}
    )
    assert set(SearchPosting.objects.values_list("block", flat=True)) == {1}
    kept.status = Article.Status.DRAFT
    save_article(article=kept, tags=[])
    assert found("豆腐") == []


@in_database
def test_an_index_over_several_blocks_finds_in_all_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (search, postings):
        monkeypatch.setattr(module, "BLOCK_SIZE", 2)
    titles = [f"{name}豆腐" for name in "甲乙丙丁戊"]
    for title in titles:
        write(title)

    assert found("豆腐") == titles[::-1]
    call_command("rebuild_search", verbosity=0)
    assert found("豆腐") == titles[::-1]
    assert found("丙豆") == ["丙豆腐"]


@in_database
def test_an_edit_touches_only_the_words_that_changed() -> None:
    article = write("嫩豆腐", "小火慢煎，" * 200)
    article.body_markdown += "完"

    with CaptureQueriesContext(connection) as asked:
        save_article(article=article, tags=[])

    written = [query["sql"] for query in asked if "REPLACE" in query["sql"]]
    assert len(written) == 2  # the lock of the block, and the two words
    assert found("完") == ["嫩豆腐"]


@pytest.mark.parametrize(
    "offsets", [[], [0], [4095], [1, 5, 300], list(range(255)), list(range(256)), [*range(0, 4096, 2)]]
)
def test_offsets_are_packed_and_read_again_whatever_their_number(offsets: list[int]) -> None:
    packed = postings.pack(offsets)

    assert postings.unpack(packed) == sum(1 << offset for offset in offsets)
    assert len(packed) == min(2 * len(offsets), 512)


@pytest.mark.parametrize(
    "among", [[], [7], list(range(254)), list(range(255)), list(range(256)), [*range(0, 4096, 2)]]
)
@pytest.mark.parametrize("offset", [0, 7, 255, 3000, 4095])
def test_one_offset_more_or_less_is_packed_as_all_of_them_are(among: list[int], offset: int) -> None:
    with_it, without = sorted({*among, offset}), sorted({*among} - {offset})

    assert postings.add_offset(postings.pack(among), offset) == postings.pack(with_it)
    assert postings.discard_offset(postings.pack(among), offset) == postings.pack(without)


@in_database
def test_drafts_and_articles_of_tomorrow_are_not_found() -> None:
    write("豆腐草稿", status=Article.Status.DRAFT)
    tomorrow = write("明天的豆腐")
    Article.objects.filter(pk=tomorrow.pk).update(published_at=timezone.now() + timedelta(days=1))

    assert found("豆腐") == []


def test_each_character_each_pair_and_each_beginning_is_a_word() -> None:
    assert make_words("待处理 Café") == {"待", "处", "理", "待处", "处理", "c", "ca", "caf", "café"}
    assert all(
        len(word.encode()) <= WordField.LONGEST_BYTES for word in make_words("𠮷" * 9 + " " + "𐐨" * 99)
    )


def test_a_query_has_a_bounded_number_of_phrases() -> None:
    assert len(parse_query("一 二 三 四 五 六 七 八 九 十 十一 十二")) == 8


def test_hits_are_marked_and_everything_else_is_escaped() -> None:
    assert highlight("<b>待处理</b> & 理", "处理") == "&lt;b&gt;待<mark>处理</mark>&lt;/b&gt; &amp; 理"
    assert highlight("a<script>", "script") == "a&lt;<mark>script</mark>&gt;"
    assert highlight("Django 与 MyDjango", "djan") == "<mark>Django</mark> 与 MyDjango"
    assert highlight("<i>", "！") == "&lt;i&gt;"


def test_a_snippet_shows_the_first_hit() -> None:
    text = "前言。" * 60 + "这里有待处理的事" + "。后记" * 60

    snippet = make_snippet(text, "处理")

    assert "待处理" in snippet
    assert snippet.startswith("…")
    assert snippet.endswith("…")
    assert len(snippet) <= 112
    assert make_snippet("短", "没有") == "短"
