"""The queue's page and the verdicts passed in it."""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from blog_site.comments.models import Comment, Decision
from blog_site.comments.services import post_comment, report_comment
from blog_site.labels.models import Label, Sample
from blog_site.labels.services import accept_label
from blog_site.users.models import User
from tests.comments.rows import make_article, make_comment, make_user
from tests.comments.test_models import make_prediction
from tests.labels.test_services import make_label
from tests.moderation.rows import make_guest

pytestmark = pytest.mark.django_db
QUEUE = "admin:moderation_queue"
VERDICT = "admin:moderation_verdict"
ATTACK = "<script>alert(1)</script>"


def look(client: Client, **query: Any) -> str:
    page = client.get(reverse(QUEUE), query)
    assert page.status_code == HTTPStatus.OK
    return page.content.decode()


def say(client: Client, **form: Any) -> Any:
    return client.post(reverse(VERDICT), form)


# -- The page --


def test_a_card_says_all_that_a_moderator_needs(client, moderator) -> None:
    comment = make_comment("味道真好", author=make_user("li", display_name="小李"))
    make_prediction(comment, label="negative", score=0.56)
    make_label(comment, "positive", confidence=0.9)
    report_comment(comment=comment, reporter=make_user(), reason="false", note="没去过那家店")
    page = look(client, tab="reported")
    for words in ("味道真好", "小李", "模型 负面 0.56", "语言模型 正面 0.90", "不实信息", "没去过那家店"):
        assert words in page


def test_a_card_says_which_rule_held_the_comment(client, moderator) -> None:
    post_comment(article=make_article(), author=make_user(), text="看这里 https://example.com/a")
    assert "带有链接" in look(client)


def test_the_tabs_count_what_waits(client, moderator) -> None:
    make_comment(status="pending")
    for _number in range(2):
        report_comment(comment=make_comment(), reporter=make_user(), reason="abuse")
    counts = re.findall(r'<span class="queue-count[^"]*">(\d+)</span>', look(client))
    assert counts == ["1", "2"]


def test_a_queue_with_nothing_in_it_says_so(client, moderator) -> None:
    for tab in ("pending", "reported", "disputed", "nonsense"):
        assert "这里没有评论" in look(client, tab=tab, page="²")


def test_words_of_others_are_shown_as_words(client, moderator) -> None:
    author = make_user("attacker", display_name=ATTACK)
    comment = make_comment(ATTACK, author=author, article=make_article(title=ATTACK))
    guest = make_guest(make_comment(ATTACK, article=comment.article), ATTACK)
    report_comment(comment=comment, reporter=author, reason="other", note=ATTACK)
    say(client, one=f"hide:{guest.pk}", reason=ATTACK)
    pages = [look(client, tab="all")]
    for address in (
        *(reverse("admin:comments_comment_change", args=[one.pk]) for one in (comment, guest)),
        reverse("admin:comments_decision_changelist"),
    ):
        pages.append(client.get(address).content.decode())
    for page in pages:
        assert ATTACK not in page
        assert "&lt;script&gt;alert(1)" in page


def test_the_page_takes_the_same_queries_however_long_it_is(client, moderator) -> None:
    def add() -> None:
        comment = make_comment()
        make_prediction(comment, score=0.5)
        make_label(comment, "negative")
        report_comment(comment=comment, reporter=make_user(), reason="abuse")
        post_comment(article=comment.article, author=make_user(), text="回复", parent=comment)

    def count(tab: str) -> int:
        with CaptureQueriesContext(connection) as queries:
            look(client, tab=tab)
        return len(queries)

    add()
    tabs = ("reported", "uncertain", "disputed", "all")
    look(client)  # content types and permissions are cached by now
    few = [count(tab) for tab in tabs]
    for _number in range(5):
        add()
    assert [count(tab) for tab in tabs] == few
    assert max(few) <= 14


# -- Verdicts --


def test_a_verdict_on_one_comment_leaves_the_ticked_ones_alone(client, moderator) -> None:
    one, ticked = make_comment(status="pending"), make_comment(status="pending")
    answer = say(
        client, one=f"approve:{one.pk}", id=[ticked.pk], query="tab=pending&age=week", reason="没问题"
    )
    assert answer["Location"] == f"{reverse(QUEUE)}?tab=pending&age=week"
    assert set(Comment.objects.values_list("pk", "status")) == {(one.pk, "visible"), (ticked.pk, "pending")}
    decision = Decision.objects.get()
    assert (decision.by, decision.comment, decision.reason) == (moderator, one, "没问题")
    assert (decision.from_status, decision.to_status) == ("pending", "visible")


@pytest.mark.parametrize(
    ("verdict", "statuses"),
    [
        ("approve", ["visible", "visible"]),
        ("hide", ["hidden", "hidden"]),
        ("spam", ["spam", "spam"]),
    ],
)
def test_a_verdict_on_the_ticked_comments(client, moderator, verdict: str, statuses: list[str]) -> None:
    comments = [make_comment(status="pending"), make_comment(status="hidden")]
    other = make_comment(status="pending")
    page = client.post(
        reverse(VERDICT), {"verdict": verdict, "id": [comment.pk for comment in comments]}, follow=True
    )
    assert "已处理" in page.content.decode()
    assert [Comment.objects.get(pk=comment.pk).status for comment in comments] == statuses
    assert Comment.objects.get(pk=other.pk).status == "pending"


@pytest.mark.parametrize("sentiment", ["negative", "neutral", "positive"])
def test_relabelling_makes_the_moderators_label_and_the_record_says_so(
    client, moderator, sentiment: str
) -> None:
    comment = make_comment("真是好样的")
    make_label(comment, "neutral")
    say(client, verdict=sentiment, id=[comment.pk], reason="反讽")
    label = Label.objects.get(source="moderator")
    assert (label.sentiment, label.moderator) == (sentiment, moderator)
    assert Sample.objects.get().label == sentiment
    decision = Decision.objects.get()
    assert (decision.action, decision.from_label, decision.to_label) == ("relabel", "neutral", sentiment)
    assert (decision.from_status, decision.to_status, decision.reason) == ("visible", "visible", "反讽")


def test_spam_is_learnt_from_no_more_and_what_is_restored_is(client, moderator) -> None:
    comment = make_comment("买药加我")
    make_label(comment, "positive")
    accept_label(comment=comment)
    say(client, one=f"spam:{comment.pk}")
    accept_label(comment=comment)  # what the queued task does
    assert not Sample.objects.exists()
    say(client, one=f"positive:{comment.pk}")
    assert not Sample.objects.exists()
    say(client, one=f"approve:{comment.pk}")
    accept_label(comment=comment)
    assert Sample.objects.get().label == "positive"


def test_an_approved_comment_is_seen_by_readers(client, moderator) -> None:
    held = post_comment(article=make_article(), author=make_user(), text="看 https://example.com/a")
    reader = Client()
    address = held.article.get_absolute_url()
    assert "example.com/a" not in reader.get(address).content.decode()
    say(client, one=f"approve:{held.pk}")
    assert "example.com/a" in reader.get(address).content.decode()


def test_a_script_gets_the_cards_as_they_are_now(client, moderator) -> None:
    held = make_comment("等着", status="pending")
    form = {"one": f"neutral:{held.pk}", "query": "tab=pending"}
    answer = client.post(reverse(VERDICT), form, headers={"Accept": "application/json"}).json()
    assert "审核员 中性" in answer["cards"][str(held.pk)]
    form["one"] = f"approve:{held.pk}"
    answer = client.post(reverse(VERDICT), form, headers={"Accept": "application/json"}).json()
    assert answer["cards"] == {str(held.pk): None}
    assert "1 条" in answer["said"]


@pytest.mark.parametrize(
    "form",
    [
        {},
        {"verdict": "burn"},
        {"one": "approve"},
        {"one": "approve:²"},
        {"verdict": "hide", "id": ["9" * 30, "x"]},
    ],
)
def test_a_verdict_without_sense_changes_nothing(client, moderator, form: dict[str, Any]) -> None:
    make_comment(status="pending")
    assert say(client, **form).status_code in (HTTPStatus.FOUND, HTTPStatus.BAD_REQUEST)
    assert not Decision.objects.exists()


def test_a_comment_that_is_gone_is_passed_over(client, moderator) -> None:
    gone = make_comment(status="pending")
    Comment.objects.all().delete()
    page = client.post(reverse(VERDICT), {"one": f"hide:{gone.pk}"}, follow=True)
    assert "已处理 0 条评论" in page.content.decode()


def test_a_verdict_leads_back_to_the_page_it_was_passed_on_and_to_no_other_site(client, moderator) -> None:
    comment = make_comment()
    page = reverse("admin:comments_comment_change", args=[comment.pk])
    assert say(client, one=f"hide:{comment.pk}", back=page)["Location"] == page
    away = say(client, one=f"approve:{comment.pk}", back="https://example.com/")
    assert away["Location"] == reverse(QUEUE)


def test_looking_decides_nothing_and_a_form_of_another_page_neither(client, moderator) -> None:
    comment = make_comment()
    assert client.get(reverse(VERDICT), {"one": f"hide:{comment.pk}"}).status_code == 405
    stranger = Client(enforce_csrf_checks=True)
    stranger.force_login(moderator)
    assert say(stranger, one=f"hide:{comment.pk}").status_code == HTTPStatus.FORBIDDEN
    assert not Decision.objects.exists()


# -- Who may do what --


@pytest.mark.parametrize(
    ("kind", "looking", "deciding"), [("staff", 403, 403), ("reader", 302, 302), ("nobody", 302, 302)]
)
def test_only_moderators_see_the_queue_or_decide(
    client, db: None, kind: str, looking: int, deciding: int
) -> None:
    comment = make_comment(status="pending")
    if kind != "nobody":
        client.force_login(make_user(is_staff=kind == "staff"))
    assert client.get(reverse(QUEUE)).status_code == looking
    for verdict in ("approve", "hide", "spam", "negative"):
        assert say(client, one=f"{verdict}:{comment.pk}").status_code == deciding
    for name in ("rules", "blockedword", "decision", "comment"):
        assert client.get(reverse(f"admin:comments_{name}_changelist")).status_code == looking
    comment.refresh_from_db()
    assert comment.status == "pending"
    assert not Decision.objects.exists()


def test_who_may_only_look_finds_no_buttons_and_decides_nothing(client) -> None:
    grant(client, "view_comment")
    comment = make_comment("等着", status="pending")
    page = look(client)
    assert "等着" in page
    assert "approve:" not in page
    assert say(client, one=f"approve:{comment.pk}").status_code == HTTPStatus.FORBIDDEN


def test_who_may_decide_but_not_label_finds_the_one_and_not_the_other(client) -> None:
    grant(client, "view_comment", "change_comment")
    comment = make_comment("等着", status="pending")
    page = look(client)
    assert "approve:" in page
    assert "negative:" not in page
    assert say(client, one=f"negative:{comment.pk}").status_code == HTTPStatus.FORBIDDEN
    assert not Label.objects.exists()


def grant(client: Client, *codenames: str) -> User:
    from django.contrib.auth.models import Permission

    user = make_user(is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__in=codenames))
    client.force_login(user)
    return user


def test_a_moderator_may_do_this_and_no_more(client, moderator) -> None:
    comment = make_comment()
    refused = [
        reverse("admin:comments_comment_delete", args=[comment.pk]),
        reverse("admin:users_user_changelist"),
        reverse("admin:articles_article_changelist"),
        reverse("admin:auth_group_changelist"),
        reverse("admin:django_celery_beat_periodictask_changelist"),
    ]
    assert {address: client.get(address).status_code for address in refused} == dict.fromkeys(refused, 403)


# -- The front page --


def test_the_front_page_counts_what_waits_and_leads_there(client, moderator) -> None:
    make_comment(status="pending")
    page = client.get(reverse("admin:index")).content.decode()
    assert f'<a href="{reverse(QUEUE)}?tab=pending"><strong>1</strong><span>待审核</span>' in page
    assert f'<a href="{reverse(QUEUE)}?tab=reported"><strong>0</strong>' in page


def test_the_front_page_counts_nothing_for_those_who_may_not_see_comments(client, db: None) -> None:
    client.force_login(make_user(is_staff=True))
    page = client.get(reverse("admin:index")).content.decode()
    assert "待审核" not in page
    assert reverse(QUEUE) not in page
