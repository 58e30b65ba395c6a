"""Every list of the admin, with rows in it, on whatever database the tests run."""

from __future__ import annotations

import pytest
from django.contrib import admin
from django.db.models import Model
from django.urls import reverse

from blog_site.demo.seeding import load_content, seed_demo
from blog_site.users.models import User


@pytest.mark.django_db
def test_every_list_of_the_admin_opens(client) -> None:
    seed_demo(content=load_content())
    client.force_login(User.objects.get(username="admin"))
    statuses = {model.__name__: client.get(list_of(model)).status_code for model in admin.site._registry}
    assert {name: status for name, status in statuses.items() if status != 200} == {}


def list_of(model: type[Model]) -> str:
    return reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_changelist")
