from __future__ import annotations

import threading

import pytest
from django.contrib.auth.models import Permission
from django.db import connection

from blog_site.users.models import MODERATORS, User
from blog_site.users.services import MODERATOR_PERMISSIONS, UsernameTaken, grant_moderators, sign_up_user
from tests.blog import PASSWORD, make_user


@pytest.mark.django_db
def test_a_new_person_can_sign_in_and_has_no_rights() -> None:
    user = sign_up_user(username="林夏", password=PASSWORD, display_name="夏夏")

    stored = User.objects.get(pk=user.pk)
    assert stored.check_password(PASSWORD)
    assert stored.display_name == "夏夏"
    assert not stored.is_staff
    assert not stored.is_superuser


@pytest.mark.django_db
@pytest.mark.parametrize("name", ["linxia", "LinXia", "LINXIA"])
def test_a_name_is_taken_in_whatever_case(name: str) -> None:
    make_user("linxia")

    with pytest.raises(UsernameTaken, match=name):
        sign_up_user(username=name, password=PASSWORD)

    assert User.objects.count() == 1


@pytest.mark.django_db(transaction=True)
def test_of_two_who_take_a_name_at_once_one_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    both_looked = threading.Barrier(2, timeout=20)
    outcomes: list[str] = []
    monkeypatch.setattr(User, "set_password", lambda _user, _password: both_looked.wait())

    def sign_up() -> None:
        try:
            sign_up_user(username="linxia", password=PASSWORD)
            outcomes.append("made")
        except UsernameTaken:
            outcomes.append("taken")
        finally:
            connection.close()

    threads = [threading.Thread(target=sign_up) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)

    assert sorted(outcomes) == ["made", "taken"]
    assert User.objects.filter(username="linxia").count() == 1


@pytest.mark.django_db
def test_moderators_may_correct_labels_but_not_delete_comments() -> None:
    moderator = make_user("moderator", is_staff=True)
    moderator.groups.add(grant_moderators())

    assert moderator.has_perm("comments.change_comment")
    assert moderator.has_perm("labels.add_label")
    assert moderator.has_perm("training.view_run")
    assert not moderator.has_perm("comments.delete_comment")
    assert not moderator.has_perm("users.change_user")


@pytest.mark.django_db
def test_every_permission_that_moderators_are_granted_exists() -> None:
    existing = set(Permission.objects.values_list("content_type__app_label", "codename"))

    assert set(MODERATOR_PERMISSIONS) <= existing


@pytest.mark.django_db
def test_granting_twice_gives_the_same_permissions() -> None:
    once = set(grant_moderators().permissions.all())
    twice = grant_moderators()

    assert twice.name == MODERATORS
    assert set(twice.permissions.all()) == once
    assert len(once) == len(MODERATOR_PERMISSIONS)
