"""Articles: read by everybody, written by their authors; and what a query finds of them."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django.core.exceptions import ValidationError as DjangoValidationError
from django.db import transaction
from django.urls import reverse
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from drf_spectacular.utils import (
    OpenApiExample,
    OpenApiParameter,
    OpenApiResponse,
    extend_schema,
    extend_schema_field,
    extend_schema_serializer,
    extend_schema_view,
)
from rest_framework import generics, serializers, status
from rest_framework.exceptions import PermissionDenied, ValidationError
from rest_framework.permissions import IsAuthenticatedOrReadOnly
from rest_framework.request import Request
from rest_framework.response import Response

from blog_site.articles.models import Article, ArticleQuerySet, Category, Tag
from blog_site.articles.search import FoundArticles, search_articles
from blog_site.articles.services import (
    MAX_BODY_CHARACTERS,
    MAX_TAGS,
    TOO_MANY_TAGS,
    check_body,
    clean_tag_names,
    decide_publication,
    delete_article,
    publish_article,
    save_article,
    withdraw_article,
)
from blog_site.media.models import Image
from blog_site.users.models import User
from blog_site.users.names import clean_name

from .categories import CategorySerializer, TagSerializer
from .endpoint import ApiView
from .etags import check_precondition
from .fields import DayRangeFilter, KnownField, MomentField, StrictStringField, begin_of, end_of
from .pagination import ArticlesByTime, BestFirst
from .people import AuthorSerializer
from .schema import IF_MATCH, describe_errors

SUMMARY_EXAMPLE = {
    "slug": "soy-milk",
    "title": "豆浆与油条",
    "summary": "巷口那家开了三十年的早点铺。",
    "author": {"username": "linxia", "display_name": "林夏"},
    "category": {"slug": "food", "name": "美食", "description": "吃过的，和想吃的"},
    "tags": [{"slug": "早餐", "name": "早餐"}],
    "cover": {"url": "/media/images/5f3c0a6c5b1f0f6d3f4e3b2a19080706.webp", "width": 1600, "height": 900},
    "status": "published",
    "published_at": "2026-05-01T08:30:00+08:00",
    "updated_at": "2026-05-02T21:04:00+08:00",
    "url": "/articles/soy-milk/",
}
BODY_EXAMPLE = {
    "body_markdown": "热豆浆配**油条**。",
    "body_html": "<p>热豆浆配<strong>油条</strong>。</p>\n",
}
WRITTEN_EXAMPLE = {
    "title": "豆浆与油条",
    "category": "food",
    "summary": "巷口那家开了三十年的早点铺。",
    "body_markdown": "热豆浆配**油条**。",
    "tags": ["早餐", "豆浆"],
}


class CoverSerializer(serializers.Serializer[Image]):
    url = serializers.CharField(read_only=True)
    width = serializers.IntegerField(read_only=True)
    height = serializers.IntegerField(read_only=True)


STATUSES = ("draft", "scheduled", "published")


@extend_schema_serializer(examples=[OpenApiExample("soy-milk", value=SUMMARY_EXAMPLE)])
class ArticleSummarySerializer(serializers.ModelSerializer[Article]):
    slug = serializers.CharField(read_only=True)  # as a SlugField's, its pattern would allow no Chinese
    author = AuthorSerializer(read_only=True)
    category = CategorySerializer(read_only=True)
    tags = TagSerializer(many=True, read_only=True)
    cover = CoverSerializer(read_only=True, allow_null=True)
    status = serializers.SerializerMethodField(
        help_text=gettext_lazy("draft 草稿，scheduled 到了 published_at 自己发布，published 已发布")
    )
    url = serializers.CharField(
        source="get_absolute_url", read_only=True, help_text=gettext_lazy("它的网页，从根开始")
    )

    class Meta:
        model = Article
        fields = (
            "slug",
            "title",
            "summary",
            "author",
            "category",
            "tags",
            "cover",
            "status",
            "published_at",
            "updated_at",
            "url",
        )
        read_only_fields = fields

    @extend_schema_field({"type": "string", "oneOf": [{"const": status} for status in STATUSES]})
    def get_status(self, article: Article) -> str:
        return "scheduled" if article.is_scheduled() else article.status


@extend_schema_serializer(examples=[OpenApiExample("soy-milk", value=SUMMARY_EXAMPLE | BODY_EXAMPLE)])
class ArticleSerializer(ArticleSummarySerializer):
    class Meta(ArticleSummarySerializer.Meta):
        fields = (*ArticleSummarySerializer.Meta.fields, "body_markdown", "body_html")
        read_only_fields = fields


@extend_schema_serializer(examples=[OpenApiExample("soy-milk", value=WRITTEN_EXAMPLE)])
class ArticleWriteSerializer(serializers.ModelSerializer[Article]):
    """What a writer sends; the same limits as on the page."""

    title = StrictStringField(max_length=120)
    category = KnownField(slug_field="slug", queryset=Category.objects.all())
    summary = StrictStringField(max_length=300, required=False, allow_blank=True)
    body_markdown = StrictStringField(max_length=MAX_BODY_CHARACTERS, trim_whitespace=False)
    tags = serializers.ListField(
        child=StrictStringField(max_length=40),
        max_length=MAX_TAGS,
        required=False,
        write_only=True,
        error_messages={"max_length": TOO_MANY_TAGS},
    )
    cover = StrictStringField(
        max_length=500,
        required=False,
        allow_null=True,
        help_text=gettext_lazy("自己上传的一张图片的地址；null 是不要封面"),
    )

    class Meta:
        model = Article
        fields = ("title", "category", "summary", "body_markdown", "tags", "cover")

    def validate_title(self, title: str) -> str:
        if not (cleaned := clean_name(title)):
            raise ValidationError(_("标题里没有看得见的字。"))
        return cleaned

    def validate_cover(self, address: str | None) -> Image | None:
        if address is None:
            return None
        assert self.instance is not None
        found = Image.objects.filter(owner=self.instance.author).named_in([address])
        if not found:
            raise ValidationError(_("你没有上传过这张图片"))
        return found[address]

    def validate_body_markdown(self, body: str) -> str:
        check_body(body)
        return body

    def validate_tags(self, tags: list[str]) -> list[str]:
        return clean_tag_names(tags)


class ArticleFilter(DayRangeFilter):
    category = KnownField(
        slug_field="slug",
        queryset=Category.objects.all(),
        required=False,
        help_text=gettext_lazy("分类的网址名"),
    )
    tag = KnownField(
        slug_field="slug", queryset=Tag.objects.all(), required=False, help_text=gettext_lazy("标签的网址名")
    )
    author = KnownField(
        slug_field="username",
        queryset=User.objects.all(),
        required=False,
        help_text=gettext_lazy("作者的用户名"),
    )
    order = serializers.ChoiceField(
        choices=sorted(ArticlesByTime.orders),
        required=False,
        help_text=gettext_lazy("newest 新的在前（没有说时），oldest 旧的在前"),
    )

    def validate_tag(self, tag: Tag) -> Tag:
        """A tag that only drafts have is told to nobody."""
        if not Tag.objects.in_use().filter(pk=tag.pk).exists():
            raise ValidationError(_("没有这个标签"))
        return tag


def narrow(articles: ArticleQuerySet, asked: dict[str, Any]) -> ArticleQuerySet:
    """Keep the articles that a filter asks for."""
    conditions = {name: asked[name] for name in ("category", "author") if name in asked}
    if "tag" in asked:
        conditions["tags"] = asked["tag"]
    if "from" in asked:
        conditions["published_at__gte"] = begin_of(asked["from"])
    if "to" in asked:
        conditions["published_at__lt"] = end_of(asked["to"])
    return articles.filter(**conditions)


@extend_schema_view(
    get=extend_schema(
        summary=gettext_lazy("已发布的文章"),
        parameters=[ArticleFilter],
        responses={200: ArticleSummarySerializer(many=True), **describe_errors(400)},
    ),
    post=extend_schema(
        summary=gettext_lazy("写一篇文章，先存为草稿"),
        request=ArticleWriteSerializer,
        responses={201: ArticleSerializer},
    ),
)
class ArticleList(ApiView, generics.ListAPIView[Article]):
    serializer_class = ArticleSummarySerializer
    pagination_class = ArticlesByTime
    permission_classes = (IsAuthenticatedOrReadOnly,)

    def get_queryset(self) -> ArticleQuerySet:
        return narrow(Article.objects.published(), self.read_filter(ArticleFilter)).brief()

    def post(self, request: Request) -> Response:
        saved = write_article(Article(author=request.user), request.data)
        address = request.build_absolute_uri(reverse("api:article", args=[saved.slug]))
        return Response(
            ArticleSerializer(saved).data, status=status.HTTP_201_CREATED, headers={"Location": address}
        )


def write_article(article: Article, data: Any, *, partial: bool = False) -> Article:
    """Save what a writer has sent; raises ValidationError."""
    written = ArticleWriteSerializer(article, data=data, partial=partial)
    written.is_valid(raise_exception=True)
    values = dict(written.validated_data)
    tags = values.pop("tags", None)
    if tags is None:
        tags = [tag.name for tag in article.tags.all()] if article.pk else []
    for name, value in values.items():
        setattr(article, name, value)
    try:
        save_article(article=article, tags=tags)
    except DjangoValidationError as error:
        raise ValidationError(
            error.message_dict if hasattr(error, "error_dict") else error.messages
        ) from error
    return Article.objects.with_people().get(pk=article.pk)


class ArticleView(ApiView):
    """One article: its author's whatever its status, everybody else's once it is published."""

    serializer_class = ArticleSerializer
    permission_classes = (IsAuthenticatedOrReadOnly,)
    lookup_field = "slug"

    def get_queryset(self) -> ArticleQuerySet:
        shown = Article.objects.published()
        if self.request.user.is_authenticated:
            shown |= Article.objects.filter(author=self.request.user)
        return shown.with_people()

    def change(self) -> Article:
        """Lock the article for a change by its author, who must have read the present version."""
        article = self.get_object()
        if article.author_id != self.request.user.pk:
            raise PermissionDenied(_("只有作者能改这篇文章"))
        list(Article.objects.select_for_update().filter(pk=article.pk).values_list("pk"))
        present: Article = self.get_object()  # as it is now that nobody else can change it
        check_precondition(self.request, self.get_serializer(present).data)
        return present


@extend_schema_view(
    get=extend_schema(
        summary=gettext_lazy("一篇文章"),
        description=gettext_lazy("已发布的谁都能读；草稿只有作者读得到。"),
        responses={200: ArticleSerializer, **describe_errors(404)},
    ),
    put=extend_schema(
        summary=gettext_lazy("改写自己的文章"),
        parameters=[IF_MATCH],
        request=ArticleWriteSerializer,
        responses={200: ArticleSerializer, **describe_errors(404, 412)},
    ),
    patch=extend_schema(
        summary=gettext_lazy("改自己文章的几处"),
        parameters=[IF_MATCH],
        request=ArticleWriteSerializer,
        responses={200: ArticleSerializer, **describe_errors(404, 412)},
    ),
    delete=extend_schema(
        summary=gettext_lazy("删除自己的文章"),
        description=gettext_lazy("连同它的评论，以及模型从这些评论里学到的样本。"),
        parameters=[IF_MATCH],
        responses={204: OpenApiResponse(description=gettext_lazy("已删除")), **describe_errors(404, 412)},
    ),
)
class ArticleDetail(ArticleView, generics.RetrieveAPIView[Article]):
    def put(self, request: Request, slug: str) -> Response:
        with transaction.atomic():
            saved = write_article(self.change(), request.data)
        return Response(self.get_serializer(saved).data)

    def patch(self, request: Request, slug: str) -> Response:
        with transaction.atomic():
            saved = write_article(self.change(), request.data, partial=True)
        return Response(self.get_serializer(saved).data)

    def delete(self, request: Request, slug: str) -> Response:
        with transaction.atomic():
            delete_article(article=self.change())
        return Response(status=status.HTTP_204_NO_CONTENT)


@extend_schema_serializer(
    component_name="Publication",
    examples=[OpenApiExample("later", value={"at": "2030-05-01T08:30:00+08:00"})],
)
class PublicationSerializer(serializers.Serializer[Any]):
    at = MomentField(required=False, help_text=gettext_lazy("什么时候发布；不填就是现在"))

    def validate_at(self, at: datetime) -> datetime:
        if at <= timezone.now():
            raise ValidationError(_("这个时间已经过去了。"))
        return at


@extend_schema(
    summary=gettext_lazy("发布自己的文章，现在或到时候"),
    description=gettext_lazy("再发布一次，日期仍是第一次的。"),
    parameters=[IF_MATCH],
    request=PublicationSerializer,
    responses={200: ArticleSerializer, **describe_errors(404, 412)},
)
class ArticlePublication(ArticleView):
    def post(self, request: Request, slug: str) -> Response:
        asked = PublicationSerializer(data=request.data)
        asked.is_valid(raise_exception=True)
        at = asked.validated_data.get("at")
        with transaction.atomic():
            article = self.change()
            decide_publication(article, action="schedule" if at else "publish", at=at)
            publish_article(article=article)
        return Response(self.get_serializer(article).data)


@extend_schema(
    summary=gettext_lazy("把自己的文章撤回为草稿"),
    parameters=[IF_MATCH],
    request=None,
    responses={200: ArticleSerializer, **describe_errors(404, 412)},
)
class ArticleWithdrawal(ArticleView):
    def post(self, request: Request, slug: str) -> Response:
        with transaction.atomic():
            article = withdraw_article(article=self.change())
        return Response(self.get_serializer(article).data)


class SearchFilter(serializers.Serializer[Any]):
    q = StrictStringField(
        error_messages={"required": gettext_lazy("要找什么？例如 ?q=豆腐")},
    )


@extend_schema(
    summary=gettext_lazy("找文章，最相关的在前"),
    description=gettext_lazy("每个词都要找到；至多 200 篇。"),
    parameters=[
        OpenApiParameter(
            "q",
            str,
            required=True,
            description=gettext_lazy("要找的词，或词的一部分；几个词都要找到"),
            examples=[OpenApiExample("one", value="豆腐"), OpenApiExample("two", value="django 博客")],
        ),
    ],
    responses={200: ArticleSummarySerializer(many=True), **describe_errors(400)},
)
class ArticleSearch(ApiView, generics.ListAPIView[Article]):
    serializer_class = ArticleSummarySerializer
    pagination_class = BestFirst

    def get_queryset(self) -> FoundArticles:
        return search_articles(self.read_filter(SearchFilter)["q"])
