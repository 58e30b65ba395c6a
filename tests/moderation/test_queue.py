from __future__ import annotations

from datetime import timedelta

import pytest
from django.http import QueryDict
from django.utils import timezone

from blog_site.comments.models import Comment, Report
from blog_site.comments.services import decide, report_comment
from blog_site.labels.services import correct_labels
from blog_site.moderation.forms import QueueFilters
from blog_site.moderation.queue import PAGE_SIZE, Tab, comments_in, count_waiting, page_of
from tests.comments.rows import make_article, make_category, make_comment, make_user
from tests.comments.test_models import make_prediction
from tests.labels.test_services import make_label
from tests.moderation.rows import make_guest, make_judged_comment

pytestmark = pytest.mark.django_db


def texts(tab: Tab, query: str = "") -> list[str]:
    """What a tab lists under the filters of an address."""
    return [comment.text for comment in comments_in(tab, QueueFilters(QueryDict(query)).narrowing())]


# -- Tabs --


def test_what_waits_longest_comes_first() -> None:
    now = timezone.now()
    make_comment("后来", status="pending", created_at=now)
    make_comment("先来", status="pending", created_at=now - timedelta(hours=1))
    make_comment("公开")
    assert texts(Tab.PENDING) == ["先来", "后来"]


def test_what_most_readers_reported_comes_first_until_it_is_decided() -> None:
    once, twice = make_comment("一次"), make_comment("两次")
    for comment in (once, twice, twice):
        report_comment(comment=comment, reporter=make_user(), reason="abuse")
    assert texts(Tab.REPORTED) == ["两次", "一次"]
    assert count_waiting() == {Tab.PENDING: 0, Tab.REPORTED: 2}
    decide(comments=[twice], action="approve", by=make_user())
    decide(comments=[once], action="hide", by=make_user())
    assert texts(Tab.REPORTED) == []
    assert not Report.objects.filter(settled_at=None).exists()


def test_what_the_model_is_least_sure_of_comes_first_until_somebody_has_labelled_it() -> None:
    make_judged_comment("没底", score=0.41)
    make_judged_comment("有点底", score=0.62)
    make_judged_comment("有把握", score=0.97)
    corrected = make_judged_comment("改过", score=0.45)
    make_judged_comment("已隐藏", score=0.42, status="hidden")
    correct_labels(comments=[corrected], sentiment="neutral", moderator=make_user())
    assert texts(Tab.UNCERTAIN) == ["没底", "有点底"]


def test_only_the_newest_prediction_of_the_present_text_counts() -> None:
    surer_now = make_judged_comment("现在有把握", score=0.5)
    make_prediction(surer_now, score=0.95, model="b")
    make_prediction(make_comment("改写过"), score=0.5, text_digest="0" * 64)
    doubtful_now = make_judged_comment("现在没把握", score=0.95)
    make_prediction(doubtful_now, score=0.5, model="b")
    assert texts(Tab.UNCERTAIN) == ["现在没把握"]


def test_where_model_and_labeller_disagree_the_newest_comes_first_until_somebody_has_labelled_it() -> None:
    make_judged_comment("一致", model="positive", labelled="positive")
    make_judged_comment("不一致", model="positive", labelled="negative")
    make_judged_comment("也不一致", model="neutral", labelled="negative")
    make_judged_comment("没有标注", model="neutral")
    corrected = make_judged_comment("改过", model="positive", labelled="negative")
    correct_labels(comments=[corrected], sentiment="negative", moderator=make_user())
    assert texts(Tab.DISPUTED) == ["也不一致", "不一致"]


def test_the_language_models_word_counts_before_the_lexicons() -> None:
    agreed = make_judged_comment("语言模型同意", model="positive", labelled="positive")
    make_label(agreed, "negative", source="lexicon", model="snownlp")
    make_label(
        make_judged_comment("只有词典", model="positive"), "negative", source="lexicon", model="snownlp"
    )
    assert texts(Tab.DISPUTED) == ["只有词典"]


def test_what_was_refused_can_be_found_again_and_what_was_deleted_nowhere() -> None:
    for status in Comment.Status:
        make_comment(status.value, status=status)
    assert texts(Tab.REFUSED) == ["spam", "hidden"]
    assert texts(Tab.ALL) == ["spam", "hidden", "pending", "visible"]


# -- Filters --


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("sentiment=negative", {"差"}),
        ("confidence=low", {"说不好"}),
        ("confidence=medium", {"差"}),
        ("confidence=high", {"好"}),
        ("sentiment=positive&confidence=high", {"好"}),
        ("sentiment=neutral&confidence=high", set()),
        ("category=books", {"好"}),
        ("age=day", {"好", "没人看过"}),
        ("age=week", {"好", "没人看过", "差"}),
        ("age=older", {"说不好"}),
        ("origin=member", {"好"}),
        ("origin=guest", {"没人看过", "差"}),
        ("origin=api", {"说不好"}),
        ("sentiment=angry&age=never&category=none", {"好", "差", "说不好", "没人看过"}),
    ],
)
def test_filters_narrow_a_tab_and_nonsense_does_not(query: str, expected: set[str]) -> None:
    now = timezone.now()
    make_judged_comment("好", score=0.95, article=make_article(category=make_category("books")))
    make_judged_comment("差", model="negative", score=0.7, created_at=now - timedelta(days=3))
    make_judged_comment(
        "说不好", model="neutral", score=0.5, via_api=True, created_at=now - timedelta(days=30)
    )
    make_guest(make_comment("没人看过"), "路人")
    make_guest(Comment.objects.get(text="差"), "老王")
    assert set(texts(Tab.ALL, query)) == expected


def test_filters_hold_in_a_tab_that_joins_the_prediction_itself() -> None:
    make_judged_comment("没底的差评", model="negative", score=0.5)
    make_judged_comment("没底的好评", model="positive", score=0.5)
    assert texts(Tab.UNCERTAIN, "sentiment=negative&confidence=low") == ["没底的差评"]


def test_a_page_ends_after_its_size_and_knows_of_the_next() -> None:
    article, author = make_article(), make_user()
    for number in range(PAGE_SIZE + 1):
        make_comment(str(number), article=article, author=author)
    first, second = (page_of(comments_in(Tab.ALL, {}), number) for number in (1, 2))
    assert (len(first.comments), first.has_next) == (PAGE_SIZE, True)
    assert ([comment.text for comment in second.comments], second.has_next) == (["0"], False)
