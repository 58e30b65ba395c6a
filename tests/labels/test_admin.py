"""Moderation in the admin, by somebody who is a moderator and nothing more."""

from __future__ import annotations

import pytest
from django.contrib.auth.models import Group
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from blog_site.comments.models import Comment
from blog_site.labels.models import Label, LabelAttempt, Sample
from blog_site.labels.services import accept_label
from blog_site.users.models import MODERATORS
from tests.comments.rows import make_article, make_category, make_comment, make_user
from tests.comments.test_models import make_prediction
from tests.labels.test_services import make_label

pytestmark = pytest.mark.django_db
LIST = "admin:comments_comment_changelist"


@pytest.fixture
def moderator(client):
    user = make_user("moderator", is_staff=True)
    user.groups.add(Group.objects.get(name=MODERATORS))
    client.force_login(user)
    return user


def act(client, action: str, *comments: Comment):
    data = {"action": action, "_selected_action": [comment.pk for comment in comments]}
    return client.post(reverse(LIST), data, follow=True)


@pytest.mark.parametrize(
    ("action", "sentiment"),
    [("mark_negative", "negative"), ("mark_neutral", "neutral"), ("mark_positive", "positive")],
)
def test_marking_comments_labels_them_by_the_moderator(
    client, moderator, action: str, sentiment: str
) -> None:
    comments = [make_comment("一"), make_comment("二"), make_comment("三")]
    response = act(client, action, *comments[:2])
    assert "2 条评论" in response.content.decode()
    assert set(Label.objects.values_list("comment", "sentiment", "source", "moderator")) == {
        (comment.pk, sentiment, "moderator", moderator.pk) for comment in comments[:2]
    }
    assert set(Sample.objects.values_list("label", flat=True)) == {sentiment}


def test_hiding_and_showing(client, moderator) -> None:
    comment = make_comment()
    act(client, "hide", comment)
    assert Comment.objects.get().status == "hidden"
    act(client, "show", comment)
    assert Comment.objects.get().status == "visible"


def test_somebody_on_the_staff_who_is_no_moderator_corrects_nothing(client) -> None:
    client.force_login(make_user(is_staff=True))
    comment = make_comment()
    assert act(client, "mark_negative", comment).status_code == 403
    assert not Label.objects.exists()


def test_the_list_says_what_model_and_labels_say(client, moderator) -> None:
    comment = make_comment("味道真好")
    make_prediction(comment, label="negative", score=0.87)
    make_label(comment, "positive")
    make_comment("还没有人看过")
    page = client.get(reverse(LIST)).content.decode()
    for words in ("味道真好", "负面 0.87", "正面（语言模型）", "待预测", "待标注", "标为中性"):
        assert words in page


def test_the_list_takes_the_same_queries_however_long_it_is(client, moderator) -> None:
    def count() -> int:
        with CaptureQueriesContext(connection) as queries:
            assert client.get(reverse(LIST)).status_code == 200
        return len(queries)

    def add() -> None:
        comment = make_comment()
        make_prediction(comment)
        make_label(comment)

    add()
    count()  # content types and permissions are cached by now
    few = count()
    for _ in range(10):
        add()
    assert count() == few


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("llm", {"甲"}),
        ("moderator", {"乙"}),
        ("none", {"丙", "丁"}),
        ("lexicon", set()),
        ("nonsense", {"甲", "乙", "丙", "丁"}),
    ],
)
def test_the_list_is_filtered_by_who_labelled_the_present_text(
    client, moderator, source: str, expected: set[str]
) -> None:
    make_label(make_comment("甲"))
    make_label(make_comment("乙"), source="moderator", model="")
    make_comment("丙")
    make_label(make_comment("丁"), text_digest="0" * 64)
    shown = client.get(reverse(LIST), {"label_source": source}, follow=True).context["cl"].queryset
    assert {comment.text for comment in shown} == expected


def test_the_list_is_filtered_by_category_and_status_and_searched(client, moderator) -> None:
    books = make_category("books")
    make_comment("好书", article=make_article(category=books))
    make_comment("好吃", status="hidden")
    for query in ({"article__category__id__exact": books.pk}, {"status__exact": "visible"}, {"q": "好书"}):
        shown = client.get(reverse(LIST), query).context["cl"].queryset
        assert [comment.text for comment in shown] == ["好书"]


def test_a_comments_page_shows_its_history_and_changes_only_its_status(client, moderator) -> None:
    comment = make_comment("味道真好")
    make_prediction(comment)
    make_label(comment, reason="称赞味道")
    address = reverse("admin:comments_comment_change", args=[comment.pk])
    page = client.get(address).content.decode()
    assert "称赞味道" in page
    forms = {
        f"{name}-{field}": "0"
        for name in ("predictions", "labels")
        for field in ("TOTAL_FORMS", "INITIAL_FORMS")
    }
    client.post(address, {"status": "hidden", "text": "改写", **forms})
    comment.refresh_from_db()
    assert (comment.status, comment.text) == ("hidden", "味道真好")


@pytest.mark.parametrize("page", ["labels_label", "labels_sample", "comments_prediction"])
def test_what_the_product_wrote_is_shown_and_not_changed(client, moderator, page: str) -> None:
    comment = make_comment("味道真好")
    make_prediction(comment)
    make_label(comment)
    accept_label(comment=comment)
    response = client.get(reverse(f"admin:{page}_changelist"))
    assert "味道真好" in response.content.decode()
    assert client.get(reverse(f"admin:{page}_add")).status_code == 403
    row = {
        "labels_label": Label,
        "labels_sample": Sample,
        "comments_prediction": type(comment.predictions.get()),
    }[page]
    change = reverse(f"admin:{page}_change", args=[row.objects.get().pk])
    assert client.get(change).status_code == 200
    assert client.post(change, {}).status_code == 403
    assert (
        client.post(reverse(f"admin:{page}_delete", args=[row.objects.get().pk]), {"post": "yes"}).status_code
        == 403
    )


def test_an_administrator_lets_a_text_be_asked_about_again(client) -> None:
    client.force_login(make_user(is_staff=True, is_superuser=True))
    comment = make_comment()
    attempt = LabelAttempt.objects.create(
        comment=comment, text_digest=comment.text_digest, source="llm", error="refused"
    )
    assert "refused" in client.get(reverse("admin:labels_labelattempt_changelist")).content.decode()
    client.post(reverse("admin:labels_labelattempt_delete", args=[attempt.pk]), {"post": "yes"})
    assert not LabelAttempt.objects.exists()


def test_an_administrator_deletes_a_comment_with_all_that_was_said_of_it(client) -> None:
    client.force_login(make_user(is_staff=True, is_superuser=True))
    comment = make_comment()
    make_prediction(comment)
    make_label(comment)
    response = client.post(reverse("admin:comments_comment_delete", args=[comment.pk]), {"post": "yes"})
    assert response.status_code == 302
    assert not Comment.objects.exists()


def test_an_administrator_deletes_a_person_with_all_they_said(client) -> None:
    client.force_login(make_user(is_staff=True, is_superuser=True))
    comment = make_comment()
    make_prediction(comment)
    make_label(comment)
    response = client.post(reverse("admin:users_user_delete", args=[comment.author.pk]), {"post": "yes"})
    assert response.status_code == 302
    assert not Comment.objects.exists()


def test_moderators_have_their_permissions_after_every_migration() -> None:
    group = Group.objects.get(name=MODERATORS)
    codenames = set(group.permissions.values_list("codename", flat=True))
    assert {"change_comment", "add_label", "change_label", "view_sample", "view_modelversion"} <= codenames


@pytest.mark.django_db(transaction=True)
def test_moderators_have_their_permissions_after_the_tables_were_emptied() -> None:
    group = Group.objects.get(name=MODERATORS)
    assert group.permissions.filter(codename="change_comment").exists()
