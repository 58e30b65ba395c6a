"""How MariaDB finds what the queue shows: by an index, however many comments there are."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import connection

from blog_site.comments.models import Comment, Prediction
from blog_site.labels.models import Label
from blog_site.moderation.queue import PAGE_SIZE, Tab, comments_in
from tests.comments.rows import make_article, make_user

# Statistics are gathered outside any transaction, and end one that is open.
pytestmark = [pytest.mark.servers, pytest.mark.django_db(transaction=True)]
COMMENTS = 2_000


@pytest.fixture
def many_comments() -> None:
    """Comments of which few wait, few were reported and few leave the model unsure."""
    article, author = make_article(), make_user()
    Comment.objects.bulk_create(
        Comment(
            article=article,
            author=author,
            text=f"第 {number} 条",
            text_digest=f"{number:064}",
            status=Comment.Status.PENDING if number % 100 == 0 else Comment.Status.VISIBLE,
            report_count=int(number % 200 == 0),
        )
        for number in range(COMMENTS)
    )
    comments = list(Comment.objects.all())
    said = {"label": "positive", "probabilities": {}, "latency_ms": 1.0, "model_digest": "a" * 64}
    Prediction.objects.bulk_create(
        Prediction(comment=one, text_digest=one.text_digest, score=0.5 if one.pk % 50 == 0 else 0.95, **said)
        for one in comments
    )
    Label.objects.bulk_create(
        Label(comment=one, text_digest=one.text_digest, source="llm", sentiment="positive", confidence=0.9)
        for one in comments
    )
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE TABLE comments_comment, comments_prediction, labels_label")


def plan_of(tab: Tab) -> list[dict[str, Any]]:
    sql, params = comments_in(tab, {})[: PAGE_SIZE + 1].query.sql_with_params()
    with connection.cursor() as cursor:
        cursor.execute(f"EXPLAIN {sql}", params)
        names = [column[0] for column in cursor.description]
        return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


def test_each_tab_begins_at_an_index_and_reads_no_table_whole(many_comments: None) -> None:
    plans = {tab: plan_of(tab) for tab in Tab}
    assert {tab: plan[0]["key"] for tab, plan in plans.items()} == {
        Tab.PENDING: "comments_by_status",
        Tab.REPORTED: "comments_by_reports",
        Tab.UNCERTAIN: "predictions_by_score",
        Tab.DISPUTED: "PRIMARY",
        Tab.REFUSED: "comments_by_status",
        Tab.ALL: "PRIMARY",
    }
    assert {step["type"] for plan in plans.values() for step in plan}.isdisjoint({"ALL"})
    newest_first = [plans[tab][0] for tab in (Tab.DISPUTED, Tab.ALL)]
    assert all("filesort" not in (step["Extra"] or "") for step in newest_first)
