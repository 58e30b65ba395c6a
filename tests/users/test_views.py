from __future__ import annotations

import pytest
from django.test import Client
from django.urls import reverse

from blog_site.users.models import User
from tests.blog import PASSWORD, make_article, make_user

pytestmark = pytest.mark.django_db


def sign_up_data(**changes: str) -> dict[str, str]:
    return {
        "username": "xiaoman",
        "display_name": "小满",
        "password1": PASSWORD,
        "password2": PASSWORD,
    } | changes


def test_signing_up_signs_in_and_goes_home(client: Client) -> None:
    answer = client.post(reverse("users:sign_up"), sign_up_data(), follow=True)

    assert answer.redirect_chain == [("/", 302)]
    assert answer.context["user"].username == "xiaoman"
    assert "欢迎你，小满。" in answer.content.decode()


def test_signing_up_goes_on_to_where_one_came_from(client: Client) -> None:
    answer = client.post(reverse("users:sign_up") + "?next=/write/", sign_up_data())

    assert answer["Location"] == "/write/"


def test_nobody_is_sent_to_another_site_after_signing_up(client: Client) -> None:
    answer = client.post(reverse("users:sign_up") + "?next=https://elsewhere.example/", sign_up_data())

    assert answer["Location"] == "/"


def test_a_taken_name_is_said_next_to_the_field_and_nothing_typed_is_lost(client: Client) -> None:
    make_user("XiaoMan")

    page = client.post(reverse("users:sign_up"), sign_up_data()).content.decode()

    assert "这个用户名已经有人用了" in page
    assert 'value="xiaoman"' in page
    assert User.objects.count() == 1


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"username": "two words"}, "username"),
        ({"username": ""}, "username"),
        ({"username": "x" * 151}, "username"),
        ({"password1": "12345678", "password2": "12345678"}, "password2"),
        ({"password2": "another-long-password"}, "password2"),
        ({"display_name": "名" * 41}, "display_name"),
        ({"display_name": "a\x00b"}, "display_name"),
    ],
)
def test_what_is_wrong_with_a_sign_up_is_said_at_its_field(
    client: Client, changes: dict[str, str], field: str
) -> None:
    answer = client.post(reverse("users:sign_up"), sign_up_data(**changes))

    assert field in answer.context["form"].errors
    assert not User.objects.exists()


def test_signing_in_and_out(client: Client) -> None:
    make_user("xiaoman")

    client.post(reverse("users:sign_in"), {"username": "xiaoman", "password": PASSWORD})
    assert client.get("/").context["user"].is_authenticated

    client.post(reverse("users:sign_out"))
    assert not client.get("/").context["user"].is_authenticated


def test_a_link_cannot_sign_anybody_out(client: Client) -> None:
    client.force_login(make_user())

    assert client.get(reverse("users:sign_out")).status_code == 405
    assert client.get("/").context["user"].is_authenticated


def test_a_wrong_password_is_refused_without_saying_who_exists(client: Client) -> None:
    make_user("xiaoman")

    pages = [
        client.post(reverse("users:sign_in"), {"username": name, "password": "wrong"})
        for name in ("xiaoman", "nobody")
    ]

    assert [page.context["form"].non_field_errors() for page in pages] == [
        ["用户名或密码不对。密码区分大小写。"]
    ] * 2


def test_signed_in_people_do_not_see_the_sign_in_pages(client: Client) -> None:
    client.force_login(make_user())

    assert client.get(reverse("users:sign_in"))["Location"] == "/"
    assert client.get(reverse("users:sign_up"))["Location"] == "/"


def test_a_profile_can_be_changed(client: Client) -> None:
    user = make_user()
    client.force_login(user)

    page = client.post(
        reverse("users:profile"), {"display_name": "阿秋", "bio": "爱喝茶"}, follow=True
    ).content.decode()

    user.refresh_from_db()
    assert (user.display_name, user.bio) == ("阿秋", "爱喝茶")
    assert "资料已保存" in page


def test_a_profile_that_is_refused_changes_nothing_and_keeps_the_header_right(client: Client) -> None:
    user = make_user(display_name="阿秋")
    client.force_login(user)

    answer = client.post(reverse("users:profile"), {"display_name": "名" * 41, "bio": ""})

    assert answer.status_code == 400
    assert answer.context["user"].display_name == "阿秋"
    user.refresh_from_db()
    assert user.display_name == "阿秋"


def test_a_password_can_be_changed(client: Client) -> None:
    user = make_user()
    client.force_login(user)
    new = "another-long-password"

    client.post(
        reverse("users:change_password"),
        {"old_password": PASSWORD, "new_password1": new, "new_password2": new},
    )

    user.refresh_from_db()
    assert user.check_password(new)
    assert client.get("/").context["user"] == user, "changing the password must not sign one out"


@pytest.mark.parametrize("name", ["users:profile", "users:change_password"])
def test_pages_about_oneself_ask_strangers_to_sign_in(client: Client, name: str) -> None:
    assert client.get(reverse(name))["Location"] == f"/sign-in/?next={reverse(name)}"


def test_a_forged_form_is_refused_on_a_page_of_the_blog(client: Client) -> None:
    careful = Client(enforce_csrf_checks=True)

    answer = careful.post(reverse("users:sign_in"), {"username": "x", "password": "y"})

    assert answer.status_code == 403
    assert "表单已过期" in answer.content.decode()


def test_the_language_switch_answers_in_english_and_leads_back(client: Client) -> None:
    article = make_article()

    answer = client.post(
        reverse("set_language"), {"language": "en", "next": article.get_absolute_url()}, follow=True
    )

    assert answer.redirect_chain == [(article.get_absolute_url(), 302)]
    assert '<html lang="en">' in answer.content.decode()
    assert "Sign in" in answer.content.decode()


def test_the_first_language_is_chinese(client: Client) -> None:
    assert '<html lang="zh-Hans">' in client.get("/").content.decode()
    assert '<html lang="zh-Hans">' in client.get("/", headers={"accept-language": "fr"}).content.decode()
    assert '<html lang="en">' in client.get("/", headers={"accept-language": "en-GB"}).content.decode()
