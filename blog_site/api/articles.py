"""Articles, and what a query finds of them."""

from __future__ import annotations

from django.utils.translation import gettext as _
from drf_spectacular.utils import OpenApiExample, OpenApiParameter, extend_schema
from rest_framework import generics, serializers
from rest_framework.exceptions import ValidationError

from blog_site.articles.models import Article, ArticleQuerySet
from blog_site.articles.search import search_articles

from .categories import CategorySerializer, TagSerializer
from .endpoint import ApiView, describe_errors
from .pagination import BestFirst, NewestArticlesFirst
from .people import AuthorSerializer


class ArticleSummarySerializer(serializers.ModelSerializer[Article]):
    author = AuthorSerializer(read_only=True)
    category = CategorySerializer(read_only=True)
    tags = TagSerializer(many=True, read_only=True)
    url = serializers.CharField(source="get_absolute_url", read_only=True)

    class Meta:
        model = Article
        fields = (
            "slug",
            "title",
            "summary",
            "author",
            "category",
            "tags",
            "published_at",
            "updated_at",
            "url",
        )


class ArticleSerializer(ArticleSummarySerializer):
    class Meta(ArticleSummarySerializer.Meta):
        fields = (*ArticleSummarySerializer.Meta.fields, "body_markdown", "body_html")


@extend_schema(
    summary="Published articles, newest first",
    responses={200: ArticleSummarySerializer(many=True), **describe_errors(404)},
)
class ArticleList(ApiView, generics.ListAPIView[Article]):
    serializer_class = ArticleSummarySerializer
    pagination_class = NewestArticlesFirst

    def get_queryset(self) -> ArticleQuerySet:
        return Article.objects.published().with_people().defer("body_markdown", "body_html")


@extend_schema(
    summary="Articles that hold all words of a query, best first; 200 at most",
    parameters=[
        OpenApiParameter(
            "q",
            str,
            required=True,
            description="Words or parts of Chinese words, all to be found",
            examples=[
                OpenApiExample("Chinese", value="豆腐"),
                OpenApiExample("Two words", value="django 博客"),
            ],
        )
    ],
    responses={200: ArticleSummarySerializer(many=True), **describe_errors(400, 404)},
)
class ArticleSearch(ApiView, generics.ListAPIView[Article]):
    serializer_class = ArticleSummarySerializer
    pagination_class = BestFirst

    def get_queryset(self) -> ArticleQuerySet:
        query = self.request.query_params.get("q", "").strip()
        if not query:
            raise ValidationError({"q": [_("要找什么？例如 ?q=豆腐")]})
        return search_articles(query).with_people().defer("body_markdown", "body_html")


@extend_schema(summary="A published article", responses={200: ArticleSerializer, **describe_errors(404)})
class ArticleDetail(ApiView, generics.RetrieveAPIView[Article]):
    serializer_class = ArticleSerializer
    lookup_field = "slug"

    def get_queryset(self) -> ArticleQuerySet:
        return Article.objects.published().with_people()
