"""A writer's figures over the API: those of the page."""

from __future__ import annotations

import pytest
import yaml
from django.test import Client

from blog_site.articles.models import ArticleViews
from blog_site.dashboard.received import today
from tests.api.answers import assert_error
from tests.blog import make_article, make_user
from tests.dashboard.test_dashboard import criticise

pytestmark = pytest.mark.django_db
ADDRESS = "/api/v1/me/dashboard/"


def test_a_writer_gets_the_figures_of_the_page(client: Client) -> None:
    writer = make_user("writer")
    client.force_login(writer)
    article = make_article(author=writer)
    ArticleViews.objects.create(article=article, day=today(), views=41)
    comment = criticise(article)

    said = client.get(ADDRESS, {"days": "7", "order": "views"}).json()

    counts = {"comments": 1, "positive": 0, "neutral": 0, "negative": 1, "waiting": 0}
    assert said["now"] == {"views": 41, "comments": counts, "negative_share": 1.0}
    assert said["before"]["negative_share"] is None
    assert len(said["days"]) == 7
    assert said["days"][-1] == {"day": today().isoformat(), "views": 41, "comments": counts}
    assert [row["slug"] for row in said["articles"]] == [article.slug]
    assert [row["id"] for row in said["criticism"]] == [comment.pk]
    assert (
        said["criticism"][0]["reply_url"] == f"{article.get_absolute_url()}?reply={comment.pk}#comment-form"
    )
    assert said["criticism_after"] is None


def test_what_is_asked_wrongly_is_named_and_strangers_have_no_figures(client: Client) -> None:
    assert_error(client.get(ADDRESS), 401, "not_authenticated")
    client.force_login(make_user())
    for name, value in {"days": "8", "order": "title", "after": "x"}.items():
        error = assert_error(client.get(ADDRESS, {name: value}), 400, "invalid")
        assert error["fields"].keys() == {name}


def test_the_example_of_the_schema_has_the_fields_that_are_answered(client: Client) -> None:
    client.force_login(make_user())
    schema = yaml.safe_load(client.get("/api/v1/schema/").content)
    answer = schema["paths"][ADDRESS]["get"]["responses"]["200"]["content"]["application/json"]
    (example,) = (each["value"] for each in answer["examples"].values())
    assert example.keys() == client.get(ADDRESS).json().keys()
