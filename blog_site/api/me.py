"""Oneself: the profile, what one has written."""

from __future__ import annotations

from typing import Any

from django.db import transaction
from django.utils.translation import gettext_lazy as _
from drf_spectacular.utils import (
    OpenApiExample,
    extend_schema,
    extend_schema_serializer,
    extend_schema_view,
)
from rest_framework import generics, serializers
from rest_framework.permissions import IsAuthenticated
from rest_framework.request import Request
from rest_framework.response import Response

from blog_site.articles.models import Article, ArticleQuerySet
from blog_site.comments.models import CommentQuerySet
from blog_site.comments.threads import Reader, with_likes
from blog_site.users.models import User
from blog_site.users.names import clean_name

from .articles import ArticleSummarySerializer
from .comments import CommentSerializer, present_comments
from .endpoint import ApiView
from .etags import check_precondition
from .fields import StrictStringField
from .pagination import LastChangedFirst, NewestFirst
from .schema import IF_MATCH, describe_errors

PROFILE_EXAMPLE = {
    "username": "laowang",
    "display_name": "老王",
    "bio": "住在老城，爱吃早点。",
    "date_joined": "2026-04-03T12:00:00+08:00",
    "is_moderator": False,
}


@extend_schema_serializer(examples=[OpenApiExample("laowang", value=PROFILE_EXAMPLE)])
class ProfileSerializer(serializers.ModelSerializer[User]):
    is_moderator = serializers.SerializerMethodField(help_text=_("能不能标注评论"))

    class Meta:
        model = User
        fields = ("username", "display_name", "bio", "date_joined", "is_moderator")
        read_only_fields = fields

    def get_is_moderator(self, user: User) -> bool:
        return user.has_perm("labels.add_label")


@extend_schema_serializer(
    examples=[OpenApiExample("laowang", value={"display_name": "老王", "bio": "住在老城，爱吃早点。"})]
)
class ProfileChangeSerializer(serializers.ModelSerializer[User]):
    display_name = StrictStringField(max_length=40, required=False, allow_blank=True)
    bio = StrictStringField(max_length=200, required=False, allow_blank=True)

    class Meta:
        model = User
        fields = ("display_name", "bio")

    def validate_display_name(self, name: str) -> str:
        return clean_name(name)


@extend_schema_view(
    get=extend_schema(summary=_("我是谁"), responses=ProfileSerializer),
    patch=extend_schema(
        summary=_("改我的资料"),
        parameters=[IF_MATCH],
        request=ProfileChangeSerializer,
        responses={200: ProfileSerializer, **describe_errors(412)},
    ),
)
class Me(ApiView):
    serializer_class = ProfileSerializer
    permission_classes = (IsAuthenticated,)

    def get(self, request: Request) -> Response:
        return Response(self.get_serializer(request.user).data)

    def patch(self, request: Request) -> Response:
        changed = ProfileChangeSerializer(data=request.data)
        changed.is_valid(raise_exception=True)
        with transaction.atomic():
            user = User.objects.select_for_update().get(pk=request.user.pk)
            check_precondition(request, self.get_serializer(user).data)
            self._save(user, changed.validated_data)
        return Response(self.get_serializer(user).data)

    def _save(self, user: User, values: dict[str, Any]) -> None:
        for name, value in values.items():
            setattr(user, name, value)
        user.save(update_fields=list(values))


@extend_schema(
    summary=_("我的文章，连草稿，最近改过的在前"),
    responses={200: ArticleSummarySerializer(many=True), **describe_errors(400)},
)
class OwnArticles(ApiView, generics.ListAPIView[Article]):
    serializer_class = ArticleSummarySerializer
    pagination_class = LastChangedFirst
    permission_classes = (IsAuthenticated,)

    def get_queryset(self) -> ArticleQuerySet:
        return Article.objects.filter(author=self.request.user).brief()


@extend_schema(
    summary=_("我的评论，连不公开的，新的在前"),
    responses={200: CommentSerializer(many=True), **describe_errors(400)},
)
class OwnComments(ApiView, generics.ListAPIView[Any]):
    serializer_class = CommentSerializer
    pagination_class = NewestFirst
    permission_classes = (IsAuthenticated,)

    def get_queryset(self) -> CommentQuerySet:
        return with_likes(present_comments().filter(author=self.request.user), Reader(self.request.user))
