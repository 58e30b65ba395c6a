from __future__ import annotations

import pytest

from blog_site.articles.echo import Echo, listen
from blog_site.articles.hot import touch_page
from blog_site.comments.models import Comment
from tests.blog import make_article, make_comment, make_prediction


@pytest.mark.django_db
def test_an_echo_counts_the_newest_prediction_of_each_present_text() -> None:
    article, silent = make_article("有人说话"), make_article("没人说话")
    changed_mind = make_comment(article, "一")
    make_prediction(changed_mind, "negative", model="a")
    make_prediction(changed_mind, "positive", model="b")
    make_prediction(make_comment(article, "二"), "negative")
    make_prediction(make_comment(article, "三"), "neutral")
    make_comment(article, "还没分析")
    edited = make_comment(article, "旧的")
    make_prediction(edited, "negative")
    Comment.objects.filter(pk=edited.pk).update(text="新的", text_digest="1" * 64)

    echoes = listen([article, silent])

    assert echoes == {article.pk: Echo(comments=5, positive=1, negative=1, neutral=1)}
    assert echoes[article.pk].waiting == 2


@pytest.mark.django_db
def test_listening_takes_three_queries_however_many_articles_and_one_the_second_time(
    django_assert_num_queries,
) -> None:
    articles = [make_article(f"第{n}篇") for n in range(5)]
    for article in articles:
        make_prediction(make_comment(article))
        touch_page(article.pk)

    for queries in (3, 1):
        with django_assert_num_queries(queries):
            echoes = listen(articles)
        assert [echoes[article.pk].positive for article in articles] == [1] * 5


def test_the_bars_fill_the_strip_from_left_to_right() -> None:
    bars = Echo(comments=5, positive=2, neutral=1, negative=1).bars()

    assert [(bar.label, bar.start, bar.width) for bar in bars] == [
        ("positive", 0, 50),
        ("neutral", 50, 25),
        ("negative", 75, 25),
    ]


def test_an_echo_that_waits_has_bars_of_no_width() -> None:
    assert [bar.width for bar in Echo(comments=3).bars()] == [0, 0, 0]
