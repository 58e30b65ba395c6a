"""How one's articles are read and answered: the figures of the page for writers."""

from __future__ import annotations

from typing import Any

from django.urls import reverse
from django.utils.translation import gettext_lazy as _
from drf_spectacular.utils import OpenApiExample, extend_schema, extend_schema_serializer
from rest_framework import serializers
from rest_framework.permissions import IsAuthenticated
from rest_framework.request import Request
from rest_framework.response import Response

from blog_site.articles.models import Article
from blog_site.comments.models import Comment
from blog_site.dashboard.criticism import Criticism, find_criticism
from blog_site.dashboard.figures import DEFAULT_PERIOD, ORDERS, PERIODS
from blog_site.dashboard.services import Dashboard, read_dashboard

from .endpoint import ApiView
from .fields import QueryIntegerField
from .people import AuthorSerializer
from .schema import describe_errors

COUNTS_EXAMPLE = {"comments": 5, "positive": 2, "neutral": 1, "negative": 2, "waiting": 0}
DASHBOARD_EXAMPLE = {
    "first": "2026-04-25",
    "last": "2026-05-01",
    "now": {"views": 320, "comments": COUNTS_EXAMPLE, "negative_share": 0.4},
    "before": {
        "views": 256,
        "comments": COUNTS_EXAMPLE | {"negative": 1, "positive": 3},
        "negative_share": 0.2,
    },
    "days": [{"day": "2026-05-01", "views": 48, "comments": COUNTS_EXAMPLE}],
    "articles": [
        {
            "slug": "soy-milk",
            "title": "豆浆要烫着喝",
            "url": "/articles/soy-milk/",
            "views": 120,
            "comments": COUNTS_EXAMPLE,
            "negative_share": 0.4,
        }
    ],
    "articles_in_all": 1,
    "criticism": [
        {
            "id": 12,
            "article": "soy-milk",
            "author": {"username": "laowang", "display_name": "老王"},
            "guest_name": "",
            "text": "火候没写清楚，新手照做会糊。",
            "created_at": "2026-05-01T08:31:00+08:00",
            "like_count": 3,
            "url": "/articles/soy-milk/?comment=12#comment-12",
            "reply_url": "/articles/soy-milk/?reply=12#comment-form",
        }
    ],
    "criticism_after": None,
}


class CountsSerializer(serializers.Serializer[Any]):
    comments = serializers.IntegerField(help_text=_("读者写的、公开的"))
    positive = serializers.IntegerField()
    neutral = serializers.IntegerField()
    negative = serializers.IntegerField()
    waiting = serializers.IntegerField(help_text=_("还没有谁判断过"))


class TotalSerializer(serializers.Serializer[Any]):
    views = serializers.IntegerField()
    comments = CountsSerializer(source="echo")
    negative_share = serializers.FloatField(
        allow_null=True, help_text=_("判断过的评论里负面的占比；一条也没有就是 null")
    )


class DaySerializer(serializers.Serializer[Any]):
    day = serializers.DateField(source="first")
    views = serializers.IntegerField()
    comments = CountsSerializer(source="echo")


class ArticleFiguresSerializer(serializers.Serializer[Any]):
    slug = serializers.CharField(source="article.slug")
    title = serializers.CharField(source="article.title")
    url = serializers.CharField(source="article.get_absolute_url")
    views = serializers.IntegerField(source="figures.views")
    comments = CountsSerializer(source="figures.echo")
    negative_share = serializers.FloatField(source="figures.negative_share", allow_null=True)


class CriticismSerializer(serializers.ModelSerializer[Comment]):
    article = serializers.SlugRelatedField[Article](slug_field="slug", read_only=True)
    author = AuthorSerializer(read_only=True, allow_null=True)
    url = serializers.CharField(source="get_absolute_url", read_only=True)
    reply_url = serializers.SerializerMethodField(help_text=_("在这里回复"))

    class Meta:
        model = Comment
        fields = (
            "id",
            "article",
            "author",
            "guest_name",
            "text",
            "created_at",
            "like_count",
            "url",
            "reply_url",
        )
        read_only_fields = fields

    def get_reply_url(self, comment: Comment) -> str:
        return f"{reverse('articles:article', args=[comment.article.slug])}?reply={comment.pk}#comment-form"


@extend_schema_serializer(examples=[OpenApiExample("week", value=DASHBOARD_EXAMPLE)])
class DashboardSerializer(serializers.Serializer[Any]):
    first = serializers.DateField(source="figures.period.first")
    last = serializers.DateField(source="figures.period.last", help_text=_("今天，还没过完"))
    now = TotalSerializer(source="figures.now", help_text=_("这些天一共"))
    before = TotalSerializer(source="figures.before", help_text=_("之前同样多天一共"))
    days = DaySerializer(source="figures.days", many=True, help_text=_("每一天，按北京时间"))
    articles = ArticleFiguresSerializer(
        source="figures.articles", many=True, help_text=_("按所要的顺序，最多 10 篇")
    )
    articles_in_all = serializers.IntegerField(
        source="figures.articles_in_all", help_text=_("有浏览或评论的文章一共多少篇")
    )
    criticism = CriticismSerializer(
        source="found.comments", many=True, help_text=_("值得回应的批评，新的在前，不限时间")
    )
    criticism_after = serializers.IntegerField(
        source="found.after", allow_null=True, help_text=_("后面还有时，下一页的 after")
    )


class DashboardFilter(serializers.Serializer[Any]):
    days = serializers.ChoiceField(choices=PERIODS, default=DEFAULT_PERIOD, help_text=_("到今天为止的多少天"))
    order = serializers.ChoiceField(
        choices=ORDERS, default=ORDERS[0], help_text=_("文章的顺序：评论最多、负面占比最高或浏览最多的在前")
    )
    after = QueryIntegerField(
        required=False, min_value=1, max_value=2**63 - 1, help_text=_("批评从这条评论之后开始")
    )


@extend_schema(
    summary=_("我的文章有多少人看、评论怎么样"),
    parameters=[DashboardFilter],
    responses={200: DashboardSerializer, **describe_errors(400)},
)
class OwnDashboard(ApiView):
    serializer_class = DashboardSerializer
    permission_classes = (IsAuthenticated,)

    def get(self, request: Request) -> Response:
        asked = self.read_filter(DashboardFilter)
        figures: Dashboard = read_dashboard(request.user, days=asked["days"], order=asked["order"])
        found: Criticism = find_criticism(request.user, after=str(asked.get("after", "")))
        return Response(self.get_serializer({"figures": figures, "found": found}).data)
