"""Categories and tags."""

from __future__ import annotations

from django.db.models import QuerySet
from django.utils.translation import gettext_lazy as _
from drf_spectacular.utils import OpenApiExample, extend_schema, extend_schema_serializer
from rest_framework import generics, serializers

from blog_site.articles.models import Category, Tag

from .endpoint import ApiView
from .pagination import ById
from .schema import describe_errors


@extend_schema_serializer(
    examples=[
        OpenApiExample("food", value={"slug": "food", "name": "美食", "description": "吃过的，和想吃的"})
    ]
)
class CategorySerializer(serializers.ModelSerializer[Category]):
    class Meta:
        model = Category
        fields = ("slug", "name", "description")


@extend_schema_serializer(examples=[OpenApiExample("breakfast", value={"slug": "早餐", "name": "早餐"})])
class TagSerializer(serializers.ModelSerializer[Tag]):
    slug = serializers.CharField()  # as a SlugField's, its pattern would allow no Chinese

    class Meta:
        model = Tag
        fields = ("slug", "name")


@extend_schema(summary=_("所有分类"), responses={200: CategorySerializer(many=True), **describe_errors(400)})
class CategoryList(ApiView, generics.ListAPIView[Category]):
    serializer_class = CategorySerializer
    pagination_class = ById
    queryset: QuerySet[Category] = Category.objects.all()


@extend_schema(summary=_("一个分类"), responses={200: CategorySerializer, **describe_errors(404)})
class CategoryDetail(ApiView, generics.RetrieveAPIView[Category]):
    serializer_class = CategorySerializer
    lookup_field = "slug"
    queryset: QuerySet[Category] = Category.objects.all()


@extend_schema(
    summary=_("用在已发布文章上的标签"), responses={200: TagSerializer(many=True), **describe_errors(400)}
)
class TagList(ApiView, generics.ListAPIView[Tag]):
    serializer_class = TagSerializer
    pagination_class = ById

    def get_queryset(self) -> QuerySet[Tag]:
        return Tag.objects.in_use()


@extend_schema(summary=_("一个标签"), responses={200: TagSerializer, **describe_errors(404)})
class TagDetail(ApiView, generics.RetrieveAPIView[Tag]):
    serializer_class = TagSerializer
    lookup_field = "slug"

    def get_queryset(self) -> QuerySet[Tag]:
        return Tag.objects.in_use()
