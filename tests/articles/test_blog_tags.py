from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from django.utils import timezone, translation

from blog_site.articles.templatetags.blog import percent, relative_time
from infra.setup.compile_messages import compile_messages


@pytest.fixture(autouse=True, scope="module")
def _english() -> None:
    compile_messages()


@pytest.mark.parametrize(
    ("age", "chinese", "english"),
    [
        (timedelta(seconds=5), "刚刚", "just now"),
        (timedelta(seconds=-30), "刚刚", "just now"),  # clocks of two machines differ
        (timedelta(seconds=61), "1 分钟前", "1 minute ago"),
        (timedelta(minutes=59), "59 分钟前", "59 minutes ago"),
        (timedelta(hours=1), "1 小时前", "1 hour ago"),
        (timedelta(hours=23, minutes=59), "23 小时前", "23 hours ago"),
        (timedelta(days=1), "1 天前", "1 day ago"),
        (timedelta(days=30), "30 天前", "30 days ago"),
    ],
)
def test_a_moment_is_said_relative_to_now(age: timedelta, chinese: str, english: str) -> None:
    moment = timezone.now() - age

    with translation.override("zh-hans"):
        assert relative_time(moment) == chinese
    with translation.override("en"):
        assert relative_time(moment) == english


def test_after_a_month_the_date_is_said() -> None:
    moment = timezone.now() - timedelta(days=40)
    local = timezone.localtime(moment)

    with translation.override("zh-hans"):
        assert relative_time(moment) == f"{local.year}年{local.month}月{local.day}日"


def test_of_a_moment_to_come_it_is_said_when_it_will_be() -> None:
    moment = timezone.now() + timedelta(days=2)
    local = timezone.localtime(moment)

    with translation.override("zh-hans"):
        assert relative_time(moment) == f"{local.year}年{local.month}月{local.day}日 {local:%H:%M}"


def test_a_month_is_said_in_the_blogs_own_time_zone() -> None:
    late_in_london = datetime(2020, 3, 31, 20, tzinfo=UTC)  # in Shanghai it is April

    with translation.override("en"):
        assert relative_time(late_in_london) == "April 1, 2020"


@pytest.mark.parametrize(("share", "said"), [(0.0, 0), (0.334, 33), (0.335, 34), (0.9999, 99), (1.0, 100)])
def test_a_share_is_said_as_a_percentage_that_never_claims_certainty(share: float, said: int) -> None:
    assert percent(share) == said
