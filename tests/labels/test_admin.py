"""Labels and samples in the admin, seen by somebody who is a moderator and nothing more."""

from __future__ import annotations

import pytest
from django.contrib.auth.models import Group
from django.urls import reverse

from blog_site.comments.models import Comment
from blog_site.labels.models import Label, LabelAttempt, Sample
from blog_site.labels.services import accept_label
from blog_site.users.models import MODERATORS
from tests.comments.rows import make_comment, make_user
from tests.comments.test_models import make_prediction
from tests.labels.test_services import make_label

pytestmark = pytest.mark.django_db


@pytest.fixture
def moderator(client):
    user = make_user("moderator", is_staff=True)
    user.groups.add(Group.objects.get(name=MODERATORS))
    client.force_login(user)
    return user


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
