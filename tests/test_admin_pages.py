"""Every list of the admin, with rows in it, on whatever database the tests run."""

from __future__ import annotations

import pytest
from django.contrib import admin
from django.core.exceptions import ValidationError
from django.db.models import Model
from django.urls import reverse
from unfold.admin import ModelAdmin, StackedInline, TabularInline

from blog_site.articles.models import Article
from blog_site.articles.services import save_article
from blog_site.demo.seeding import load_content, seed_demo
from blog_site.users.models import User
from infra.setup.compile_messages import compile_messages
from tests.blog import make_category, make_user


@pytest.mark.django_db
def test_every_list_of_the_admin_opens(client) -> None:
    seed_demo(content=load_content())
    client.force_login(User.objects.get(username="admin"))
    statuses = {
        model.__name__: client.get(list_of(model), follow=True).status_code for model in admin.site._registry
    }
    assert {name: status for name, status in statuses.items() if status != 200} == {}


def test_every_page_of_the_admin_is_in_the_theme() -> None:
    pages = admin.site._registry.values()
    inlines = [inline for page in pages for inline in page.inlines]
    assert [page for page in pages if not isinstance(page, ModelAdmin)] == []
    assert [inline for inline in inlines if not issubclass(inline, TabularInline | StackedInline)] == []


@pytest.mark.django_db
def test_the_theme_speaks_chinese_and_english(client) -> None:
    client.force_login(User.objects.create_superuser("chief"))
    address = reverse("admin:users_user_changelist")
    compile_messages()
    for language, words in (("zh-hans", "输入后搜索"), ("en", "Type to search")):
        assert words in client.get(address, headers={"Accept-Language": language}).content.decode()


@pytest.mark.django_db
def test_whoever_may_not_enter_the_admin_learns_so_and_may_change_accounts(client) -> None:
    client.force_login(make_user("reader", display_name="小满 <b>"))
    compile_messages()
    for language, words in (
        ("zh-hans", "你登录的账号“小满 &lt;b&gt;”不能进管理后台。"),
        ("en", "You are signed in as 小满 &lt;b&gt;, and this account may not enter the administration."),
    ):
        refused = client.get("/admin/comments/comment/", headers={"Accept-Language": language}, follow=True)
        page = refused.content.decode()
        assert words in page
        assert 'href="/"' in page
        assert 'name="password"' not in page

    door = refused.wsgi_request.get_full_path()
    form = client.post("/sign-out/", {"next": door}, follow=True)
    assert form.wsgi_request.path == "/admin/login/"
    assert form.wsgi_request.GET["next"] == "/admin/comments/comment/"
    assert 'name="password"' in form.content.decode()


@pytest.mark.django_db
def test_an_article_has_at_most_eight_tags_wherever_it_is_written(client) -> None:
    """And a text that can be rendered."""
    chief = User.objects.create_superuser("chief")
    client.force_login(chief)
    tags = [f"标签{number}" for number in range(9)]
    said = "有 9 个标签，最多 8 个。"
    body = {
        "title": "豆浆",
        "body_markdown": "烫",
        "category": make_category().pk,
        "tag_names": ",".join(tags),
    }

    in_admin = client.post(
        "/admin/articles/article/add/", {**body, "slug": "soy", "author": chief.pk, "status": "draft"}
    )
    on_page = client.post("/write/", {**body, "action": "draft"})
    by_api = client.post(
        "/api/v1/articles/",
        {"title": "豆浆", "body_markdown": "烫", "category": "food", "tags": tags},
        content_type="application/json",
    )

    for answer in (in_admin, on_page, by_api):
        assert said in answer.content.decode()
    with pytest.raises(ValidationError, match=said):
        save_article(article=Article(author=chief, category=make_category(), body_markdown="烫"), tags=tags)
    refused = client.post(
        "/admin/articles/article/add/",
        {**body, "body_markdown": "[" * 100_000, "tag_names": "", "author": chief.pk, "status": "draft"},
    )
    assert "250000 步" in refused.content.decode()
    assert not Article.objects.exists()


def list_of(model: type[Model]) -> str:
    return reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_changelist")
