"""Categories and tags."""

from __future__ import annotations

from django.db.models import QuerySet
from drf_spectacular.utils import extend_schema
from rest_framework import generics, serializers

from blog_site.articles.models import Category, Tag

from .endpoint import ApiView, describe_errors
from .pagination import ById


class CategorySerializer(serializers.ModelSerializer[Category]):
    class Meta:
        model = Category
        fields = ("slug", "name", "description")


class TagSerializer(serializers.ModelSerializer[Tag]):
    class Meta:
        model = Tag
        fields = ("slug", "name")


@extend_schema(summary="Categories", responses={200: CategorySerializer(many=True), **describe_errors(404)})
class CategoryList(ApiView, generics.ListAPIView[Category]):
    serializer_class = CategorySerializer
    pagination_class = ById
    queryset: QuerySet[Category] = Category.objects.all()


@extend_schema(summary="Tags", responses={200: TagSerializer(many=True), **describe_errors(404)})
class TagList(ApiView, generics.ListAPIView[Tag]):
    serializer_class = TagSerializer
    pagination_class = ById

    def get_queryset(self) -> QuerySet[Tag]:
        return Tag.objects.in_use()
