"""Comments, the record and the rules in the admin, by somebody who is a moderator and nothing more."""

from __future__ import annotations

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from blog_site.comments.models import BlockedWord, Comment, Decision, Rules
from blog_site.comments.services import decide, post_comment
from blog_site.labels.models import Label, Sample
from tests.comments.rows import make_article, make_category, make_comment, make_user
from tests.comments.test_models import make_prediction
from tests.labels.test_services import make_label
from tests.moderation.rows import make_guest

pytestmark = pytest.mark.django_db
LIST = "admin:comments_comment_changelist"


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


def test_hiding_and_approving(client, moderator) -> None:
    comment = make_comment()
    act(client, "hide", comment)
    assert Comment.objects.get().status == "hidden"
    act(client, "approve", comment)
    assert Comment.objects.get().status == "visible"
    assert list(Decision.objects.order_by("pk").values_list("by", "from_status", "to_status")) == [
        (moderator.pk, "visible", "hidden"),
        (moderator.pk, "hidden", "visible"),
    ]


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


# -- A comment's page --


def page_of(comment: Comment) -> str:
    return reverse("admin:comments_comment_change", args=[comment.pk])


def test_a_comments_page_shows_what_was_said_of_it_and_takes_no_edits(client, moderator) -> None:
    comment = make_comment("味道真好")
    make_prediction(comment)
    make_label(comment, reason="称赞味道")
    assert "称赞味道" in client.get(page_of(comment)).content.decode()
    assert client.post(page_of(comment), {"status": "hidden", "text": "改写"}).status_code == 403
    comment.refresh_from_db()
    assert (comment.status, comment.text) == ("visible", "味道真好")


def test_a_comments_page_shows_its_authors_history(client, moderator) -> None:
    author = make_user("newcomer")
    comment = make_comment("这一条怎么样", author=author)
    other = make_comment("以前骂过人", author=author)
    decide(comments=[other], action="hide", by=moderator, reason="骂人")
    make_comment("别人的话")
    page = client.get(page_of(comment)).content.decode()
    for words in ("以前骂过人", "骂人", f"{author.date_joined:%Y-%m}", page_of(other)):
        assert words in page
    assert "别人的话" not in page


def test_a_guests_page_tells_that_a_name_proves_nothing(client, moderator) -> None:
    comment = make_guest(make_comment("路过"), "老王")
    make_guest(make_comment("又来了"), "老王")
    page = client.get(page_of(comment)).content.decode()
    assert "又来了" in page
    assert "同名的不一定是同一个人" in page


def test_an_administrator_who_deletes_an_answered_comment_leaves_a_tombstone(client) -> None:
    client.force_login(make_user(is_staff=True, is_superuser=True))
    comment = make_comment("惹事的话")
    reply = post_comment(article=comment.article, author=make_user(), text="回你一句", parent=comment)
    address = reverse("admin:comments_comment_delete", args=[comment.pk])
    assert "惹事的话" in client.get(address).content.decode()
    assert client.post(address, {"post": "yes"}).status_code == 302
    comment.refresh_from_db()
    assert (comment.status, comment.text) == ("deleted", "")
    assert Comment.objects.filter(pk=reply.pk).exists()


# -- The record --


def test_the_record_says_who_when_from_what_to_what_and_why(client, moderator) -> None:
    comment = make_comment("味道真好")
    make_label(comment, "positive")
    decide(comments=[comment], action="mark_spam", by=moderator, reason="重复发了三遍")
    act(client, "mark_negative", comment)
    page = client.get(reverse("admin:comments_decision_changelist")).content.decode()
    for words in ("公开 → 垃圾评论", "重复发了三遍", "正面 → 负面", "改标注", "moderator"):
        assert words in page


def test_the_record_says_which_rule_held_a_comment(client, moderator) -> None:
    BlockedWord.objects.create(word="兼职")
    post_comment(article=make_article(), author=make_user(), text="在家兼职，日入三百")
    page = client.get(reverse("admin:comments_decision_changelist")).content.decode()
    assert "含有屏蔽词：兼职" in page
    assert "规则" in page


def test_nobody_changes_the_record(client) -> None:
    client.force_login(make_user(is_staff=True, is_superuser=True))
    decide(comments=[make_comment()], action="hide", by=make_user())
    decision = Decision.objects.get()
    assert client.get(reverse("admin:comments_decision_add")).status_code == 403
    for page in ("change", "delete"):
        address = reverse(f"admin:comments_decision_{page}", args=[decision.pk])
        assert client.post(address, {"post": "yes", "reason": "没有理由"}).status_code == 403
    listed = reverse("admin:comments_decision_changelist")
    client.post(listed, {"action": "delete_selected", "_selected_action": [decision.pk], "post": "yes"})
    assert list(Decision.objects.values_list("reason", flat=True)) == [""]


def test_the_record_is_filtered_by_what_was_decided(client, moderator) -> None:
    decide(comments=[make_comment("甲")], action="hide", by=moderator)
    decide(comments=[make_comment("乙")], action="mark_spam", by=moderator)
    address = reverse("admin:comments_decision_changelist")
    for query in ({"action__exact": "hide"}, {"to_status__exact": "hidden"}, {"q": "甲"}):
        shown = client.get(address, query).context["cl"].queryset
        assert [decision.excerpt for decision in shown] == ["甲"]


# -- The rules --


def test_a_moderator_sets_the_rules_on_the_page_that_their_list_leads_to(client, moderator) -> None:
    rules = client.get(reverse("admin:comments_rules_changelist"))
    assert rules.status_code == 302
    page = client.get(rules["Location"])
    assert "广告评论十有八九带链接" in page.content.decode()
    client.post(rules["Location"], {"hold_first_comments": "2", "hold_guests": "on"})
    kept = Rules.load()
    assert (kept.hold_first_comments, kept.hold_links, kept.hold_guests) == (2, False, True)
    assert client.get(reverse("admin:comments_rules_add")).status_code == 403
    assert (
        client.post(reverse("admin:comments_rules_delete", args=[kept.pk]), {"post": "yes"}).status_code
        == 403
    )


def test_a_moderator_keeps_the_list_of_blocked_words(client, moderator) -> None:
    client.post(reverse("admin:comments_blockedword_add"), {"word": "加微信", "action": "spam"})
    held = post_comment(article=make_article(), author=make_user(), text="加 微.信 详谈")
    assert held.status == "spam"
    word = BlockedWord.objects.get()
    client.post(reverse("admin:comments_blockedword_delete", args=[word.pk]), {"post": "yes"})
    assert not BlockedWord.objects.exists()
