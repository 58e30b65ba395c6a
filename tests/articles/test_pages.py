from __future__ import annotations

import re

import pytest
from django.test import Client

from blog_site.articles.pages import comment_address
from blog_site.comments.models import Comment
from blog_site.comments.threads import PAGE_SIZE
from tests.blog import make_article, make_comment, make_prediction, make_user

pytestmark = pytest.mark.django_db


@pytest.fixture
def article():
    return make_article()


def shown(client: Client, address: str) -> list[str]:
    return [comment.text for comment in client.get(address).context["section"].page.comments()]


def test_comments_stand_newest_first_until_another_order_is_asked_for(client: Client, article) -> None:
    make_comment(article, "后来的", minutes_ago=1)
    make_comment(article, "先来的", minutes_ago=5)

    address = article.get_absolute_url()
    assert shown(client, address) == ["后来的", "先来的"]
    assert shown(client, f"{address}?order=oldest") == ["先来的", "后来的"]
    assert shown(client, f"{address}?order=nonsense") == ["后来的", "先来的"]


def test_hidden_comments_are_neither_shown_nor_counted(client: Client, article) -> None:
    hidden = make_comment(article, "看不见")
    make_prediction(hidden)
    Comment.objects.update(status=Comment.Status.HIDDEN)

    answer = client.get(article.get_absolute_url())

    assert "看不见" not in answer.content.decode()
    assert answer.context["section"].echo.comments == 0
    assert answer.context["section"].echo.scored == 0


def test_the_address_of_a_comment_leads_to_it_with_what_comes_after(client: Client, article) -> None:
    comments = [make_comment(article, f"第{n}条", minutes_ago=200 - n) for n in range(PAGE_SIZE + 1)]

    oldest, newest = comments[0], comments[-1]

    assert oldest.text not in shown(client, article.get_absolute_url())
    assert shown(client, comment_address(article, oldest.pk)) == [oldest.text]
    assert shown(client, comment_address(article, newest.pk))[0] == newest.text
    assert comment_address(article, oldest.pk).endswith(f"#comment-{oldest.pk}")


@pytest.mark.parametrize("asked", ["0", "-3", "none", "9" * 40, "²", ""])
def test_a_comment_that_is_not_there_shows_the_first_page(client: Client, article, asked: str) -> None:
    make_comment(article, "唯一的")

    for name in ("comment", "thread", "reply", "after"):
        assert shown(client, f"{article.get_absolute_url()}?{name}={asked}") == ["唯一的"]


def test_posting_leads_to_the_page_the_new_comment_is_on(client: Client, article) -> None:
    for n in range(PAGE_SIZE):
        make_comment(article, f"第{n}条", minutes_ago=100 - n)
    client.force_login(make_user("newcomer"))

    answer = client.post(f"{article.get_absolute_url()}comments/", {"text": "最新的一条"})

    assert shown(client, answer["Location"])[0] == "最新的一条"


def test_a_refused_comment_is_kept_in_its_form_with_the_reason(client: Client, article) -> None:
    client.force_login(make_user("newcomer"))
    long = "好" * 10_001

    answer = client.post(f"{article.get_absolute_url()}comments/", {"text": long})
    page = answer.content.decode()

    assert answer.status_code == 400
    assert 'role="alert"' in page
    assert f"{long}</textarea>" in page
    assert f'name="next" value="{article.get_absolute_url()}"' in page, (
        "switching the language must not post again"
    )


def test_a_comment_shows_its_badge_with_the_certainty_in_words(client: Client, article) -> None:
    make_prediction(make_comment(article), "negative", score=0.934)

    page = client.get(article.get_absolute_url()).content.decode()

    assert 'class="badge badge-negative" title="模型的判断，把握 93%">负面<' in page


def test_a_comment_that_waits_says_so_and_names_itself_to_the_script(client: Client, article) -> None:
    comment = make_comment(article)

    page = client.get(article.get_absolute_url()).content.decode()

    assert f'<span class="badge badge-waiting" data-comment="{comment.pk}">分析中</span>' in page


def test_a_prediction_of_an_earlier_text_is_not_shown(client: Client, article) -> None:
    comment = make_comment(article)
    make_prediction(comment)
    Comment.objects.update(text="改过的", text_digest="0" * 64)

    assert "badge-waiting" in client.get(article.get_absolute_url()).content.decode()


def test_strangers_are_invited_to_sign_in_and_come_back_to_the_form(client: Client, article) -> None:
    page = client.get(article.get_absolute_url()).content.decode()

    assert "<textarea" not in page
    assert "/sign-in/?next=/articles/" in page
    assert "%23comment-form" in page


def test_only_ones_own_comments_can_be_deleted_from_the_page(client: Client, article) -> None:
    mine = make_comment(article, "我的", author=make_user("me"))
    theirs = make_comment(article, "别人的", author=make_user("them"))
    client.force_login(mine.author)

    page = client.get(article.get_absolute_url()).content.decode()

    assert f"/comments/{mine.pk}/delete/" in page
    assert f"/comments/{theirs.pk}/delete/" not in page


def test_the_page_holds_no_inline_script_or_style(client: Client, article) -> None:
    make_prediction(make_comment(article))

    page = client.get(article.get_absolute_url()).content.decode()

    assert "style=" not in page
    assert "<style" not in page
    scripts = re.findall(r"<script[^>]*>", page)
    assert scripts
    for script in scripts:  # data, or from a file
        assert " src=" in script or re.search(r'type="application/(ld\+)?json"', script), (
            f"{script} runs inline"
        )
