"""Comments, and why a model judges them as it does."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from django.contrib.auth.models import AnonymousUser
from django.db import transaction
from django.db.models import Prefetch, QuerySet
from django.shortcuts import get_object_or_404
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
from rest_framework.exceptions import APIException, PermissionDenied, Throttled, ValidationError
from rest_framework.pagination import BasePagination
from rest_framework.permissions import IsAuthenticated, IsAuthenticatedOrReadOnly
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.utils.urls import replace_query_param
from rest_framework.views import APIView

from blog_site.addresses import client_address
from blog_site.articles.models import Article
from blog_site.comments import explanations, services
from blog_site.comments.explanations import Explanation, Part
from blog_site.comments.inference import InferenceError
from blog_site.comments.models import Comment, CommentQuerySet, Report, is_moderator
from blog_site.comments.text import CommentRejected, clean_comment_text, clean_note
from blog_site.comments.threads import (
    OLDEST,
    ORDERS,
    PAGE_SIZE,
    BadCursor,
    Reader,
    continue_after,
    key_of,
    listed,
    with_likes,
)
from blog_site.labels.models import Label
from blog_site.labels.services import best_label
from blog_site.users.models import User

from .endpoint import ApiView
from .errors import ModelAway
from .etags import check_precondition
from .fields import StrictIntegerField, StrictStringField
from .labels import LabelSerializer
from .people import AuthorSerializer
from .permissions import IsAuthorOrReads
from .predictions import PREDICTION_EXAMPLE, PredictionSerializer, SentimentField
from .schema import IF_MATCH, describe_errors

logger = logging.getLogger(__name__)
MOST_A_PAGE: Final = 100
REMOVED: Final = "removed"
# What is told of a comment that the one who asks may not read.
REMOVED_WORDS: Final[dict[str, Any]] = {
    "status": REMOVED,
    "author": None,
    "guest_name": "",
    "text": "",
    "edited_at": None,
    "like_count": 0,
    "liked": False,
    "constructiveness": 0.0,
    "prediction": None,
    "label": None,
}


class CommentTextField(serializers.CharField):
    """Text that `clean_comment_text` accepts; unlike DRF's field, it makes no text of a number."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(trim_whitespace=False, **kwargs)
        self.validators = []  # clean_comment_text says it all, in one set of words

    def run_validation(self, data: Any = serializers.empty) -> str:
        _is_empty, value = self.validate_empty_values(data)
        if _is_empty:
            return value
        if not isinstance(value, str):
            self.fail("invalid")
        try:
            return clean_comment_text(value)
        except CommentRejected as rejection:
            raise serializers.ValidationError(rejection.message, code=rejection.code) from rejection


@extend_schema_field(
    {"type": "string", "oneOf": [{"const": value} for value in (*Comment.Status.values, REMOVED)]}
)
class StatusField(serializers.CharField):
    pass


COMMENT_EXAMPLE = {
    "id": 12,
    "article": "soy-milk",
    "parent": None,
    "depth": 0,
    "author": {"username": "laowang", "display_name": "老王"},
    "guest_name": "",
    "text": "味道好，分量差",
    "status": "visible",
    "created_at": "2026-05-01T08:31:00+08:00",
    "edited_at": None,
    "like_count": 3,
    "reply_count": 1,
    "liked": False,
    "constructiveness": 0.6,
    "prediction": PREDICTION_EXAMPLE,
    "label": {"sentiment": "neutral", "source": "moderator"},
}


@extend_schema_serializer(
    examples=[
        OpenApiExample("comment", value=COMMENT_EXAMPLE, response_only=True),
        OpenApiExample("reply", value={"text": "分量确实小了点", "parent": 12}, request_only=True),
    ]
)
class CommentSerializer(serializers.ModelSerializer[Comment]):
    """A comment as the one who asks may see it; what they may not read stands without its words, for its replies."""

    article = serializers.SlugRelatedField(slug_field="slug", read_only=True)
    parent = StrictIntegerField(
        source="parent_id",
        required=False,
        allow_null=True,
        min_value=1,
        max_value=2**63 - 1,
        help_text=gettext_lazy("回复的是哪条评论；直接写在文章下面的为 null"),
    )
    author = AuthorSerializer(
        read_only=True, allow_null=True, help_text=gettext_lazy("访客写的、已经撤下的为 null")
    )
    guest_name = serializers.CharField(read_only=True)
    text = CommentTextField()
    status = StatusField(
        read_only=True, help_text=gettext_lazy("removed：不给看的，只因为下面有回复才留着位置")
    )
    liked = serializers.SerializerMethodField(help_text=gettext_lazy("提问的人有没有点赞"))
    prediction = serializers.SerializerMethodField()
    label = serializers.SerializerMethodField()

    class Meta:
        model = Comment
        fields = (
            "id",
            "article",
            "parent",
            "depth",
            "author",
            "guest_name",
            "text",
            "status",
            "created_at",
            "edited_at",
            "like_count",
            "reply_count",
            "liked",
            "constructiveness",
            "prediction",
            "label",
        )
        read_only_fields = (
            "depth",
            "created_at",
            "edited_at",
            "like_count",
            "reply_count",
            "constructiveness",
        )

    def to_representation(self, instance: Comment) -> dict[str, Any]:
        said: dict[str, Any] = super().to_representation(instance)
        return said if may_read(instance, self.context["request"].user) else {**said, **REMOVED_WORDS}

    def get_liked(self, comment: Comment) -> bool:
        return bool(getattr(comment, "is_liked", False))

    @extend_schema_field(PredictionSerializer(allow_null=True))
    def get_prediction(self, comment: Comment) -> dict[str, Any] | None:
        prediction = comment.current_prediction()
        return None if prediction is None else PredictionSerializer(prediction).data

    @extend_schema_field(LabelSerializer(allow_null=True))
    def get_label(self, comment: Comment) -> dict[str, Any] | None:
        label = best_label(comment.present_labels)
        return None if label is None else LabelSerializer(label).data


@extend_schema_serializer(examples=[OpenApiExample("liked", value={"liked": True, "like_count": 4})])
class LikeSerializer(serializers.ModelSerializer[Comment]):
    liked = serializers.SerializerMethodField()

    class Meta:
        model = Comment
        fields = ("liked", "like_count")
        read_only_fields = fields

    def get_liked(self, comment: Comment) -> bool:
        return bool(getattr(comment, "is_liked", False))


REPORT_EXAMPLE = {"reason": "off_topic", "note": "在卖手机壳"}


@extend_schema_serializer(
    examples=[
        OpenApiExample("report", value=REPORT_EXAMPLE, request_only=True),
        OpenApiExample(
            "reported",
            value={**REPORT_EXAMPLE, "created_at": "2026-05-01T09:00:00+08:00"},
            response_only=True,
        ),
    ]
)
class ReportSerializer(serializers.ModelSerializer[Report]):
    reason = serializers.ChoiceField(choices=Report.Reason.choices)
    note = StrictStringField(required=False, allow_blank=True, max_length=300)

    class Meta:
        model = Report
        fields = ("reason", "note", "created_at")
        read_only_fields = ("created_at",)

    def validate_note(self, note: str) -> str:
        try:
            return clean_note(note)
        except CommentRejected as rejection:
            raise serializers.ValidationError(rejection.message, code=rejection.code) from rejection


class ExplanationPartSerializer(serializers.Serializer[Part]):
    text = serializers.CharField()
    side = serializers.SerializerMethodField(
        help_text=gettext_lazy("for 支持这个判断，against 反对；几乎不起作用时为 null")
    )
    level = serializers.IntegerField(help_text=gettext_lazy("有多强，1 到 3；0 是几乎不起作用"))
    weight = serializers.SerializerMethodField(help_text=gettext_lazy("没有这一段，判断的对数几率降多少"))
    score_without = serializers.SerializerMethodField(help_text=gettext_lazy("没有这一段时，这个判断的概率"))

    @extend_schema_field({"oneOf": [{"const": "for"}, {"const": "against"}, {"type": "null"}]})
    def get_side(self, part: Part) -> str | None:
        return part.side or None

    def get_weight(self, part: Part) -> float | None:
        return part.weight if part.side else None

    def get_score_without(self, part: Part) -> float | None:
        return part.score_without if part.side else None


class ExplanationSerializer(serializers.Serializer[Explanation]):
    model = serializers.CharField(help_text=gettext_lazy("作出判断的模型的摘要值"))
    label = SentimentField()
    score = serializers.FloatField()
    parts = ExplanationPartSerializer(many=True, help_text=gettext_lazy("按顺序，合起来就是全文"))


def present_comments() -> CommentQuerySet:
    """Comments with all that a comment's JSON says, in a fixed number of queries."""
    return (
        Comment.objects.with_predictions()
        .select_related("article")
        .defer("article__body_markdown", "article__body_html")
        .prefetch_related(Prefetch("labels", Label.objects.of_present_text(), to_attr="present_labels"))
    )


def may_read(comment: Comment, user: User | AnonymousUser) -> bool:
    """Whether somebody may read the words of a comment that has a place in a list before them."""
    if comment.is_visible():
        return True
    own = comment.author_id is not None and comment.author_id == user.pk
    return comment.status != Comment.Status.DELETED and (own or is_moderator(user))


class InOrder(BasePagination):
    """Pages of comments by key, whichever order is asked for: `cursor` is the key, with `r` before it to go back."""

    def paginate_queryset(
        self, queryset: QuerySet[Any], request: Request, view: APIView | None = None
    ) -> list[Any]:
        self.request = request
        self.order = ORDERS[read_order(request)]
        size = self._read_size(request)
        cursor = request.query_params.get("cursor", "")
        self.is_back, key = cursor.startswith("r"), cursor.removeprefix("r")
        try:
            if cursor and not key:
                raise BadCursor(f"{cursor!r} says where to go and not from where")
            rows = list(continue_after(queryset, self.order, key, back=self.is_back)[: size + 1])
        except BadCursor as error:
            raise ValidationError({"cursor": [_("这个游标不对：请用上一页给的 next 或 previous")]}) from error
        self.has_beyond, self.is_first = len(rows) > size, not cursor
        rows = rows[:size]
        self.rows = rows[::-1] if self.is_back else rows
        return self.rows

    def _read_size(self, request: Request) -> int:
        asked = request.query_params.get("page_size", str(PAGE_SIZE))
        if not (asked.isascii() and asked.isdigit() and 1 <= int(asked[:9]) <= MOST_A_PAGE):
            raise ValidationError({"page_size": [_("应为 1 到 %(limit)d 的整数") % {"limit": MOST_A_PAGE}]})
        return int(asked)

    def get_paginated_response(self, data: Any) -> Response:
        has_next = bool(self.rows) and (self.is_back or self.has_beyond)
        has_previous = bool(self.rows) and (self.has_beyond if self.is_back else not self.is_first)
        return Response(
            {
                "next": self._link("", self.rows[-1]) if has_next else None,
                "previous": self._link("r", self.rows[0]) if has_previous else None,
                "results": data,
            }
        )

    def _link(self, way: str, row: Comment) -> str:
        return replace_query_param(
            self.request.build_absolute_uri(), "cursor", f"{way}{key_of(row, self.order)}"
        )

    def get_paginated_response_schema(self, schema: dict[str, Any]) -> dict[str, Any]:
        example = "https://blog.example/api/v1/articles/soy-milk/comments/?cursor=…"
        link = {"type": ["string", "null"], "format": "uri", "example": example}
        return {
            "type": "object",
            "required": ["next", "previous", "results"],
            "properties": {"next": link, "previous": link, "results": schema},
        }

    def get_schema_operation_parameters(self, view: APIView) -> list[dict[str, Any]]:
        size = {"type": "integer", "minimum": 1, "maximum": MOST_A_PAGE, "default": PAGE_SIZE}
        return [
            {"name": "cursor", "in": "query", "required": False, "schema": {"type": "string"}},
            {"name": "page_size", "in": "query", "required": False, "schema": size},
        ]


def read_order(request: Request) -> str:
    """The order that a query string asks for; raises ValidationError."""
    order = request.query_params.get("order", OLDEST.name)
    if order not in ORDERS:
        raise ValidationError({"order": [_("可选：%(orders)s") % {"orders": ", ".join(ORDERS)}]})
    return str(order)


@extend_schema_view(
    get=extend_schema(
        summary=gettext_lazy("一篇文章的评论"),
        description=gettext_lazy(
            "全部，或者只要对某一条的回复（`parent`）。撤下的评论如果下面还有看得见的回复，会留在列表里，但没有内容。"
        ),
        parameters=[
            OpenApiParameter(
                "order",
                str,
                enum=list(ORDERS),
                default=OLDEST.name,
                description=gettext_lazy("newest 新的在前，oldest 旧的在前，constructive 有建设性的在前"),
            ),
            OpenApiParameter(
                "parent",
                {"type": "string", "pattern": "^(root|[0-9]+)$"},
                description=gettext_lazy("`root` 是直接写在文章下面的，或者一条评论的编号"),
            ),
        ],
        responses={200: CommentSerializer(many=True), **describe_errors(400, 404)},
    ),
    post=extend_schema(
        summary=gettext_lazy("发表评论，或者带上 parent 回复一条"),
        description=gettext_lazy(
            "按站点的规则要先审的，回来的 status 是 `pending`，审核通过后别人才看得见。不收评论的文章回答 403。"
        ),
        responses={201: CommentSerializer, **describe_errors(400, 401, 403, 404, 413)},
    ),
)
class ArticleComments(ApiView, generics.ListCreateAPIView[Comment]):
    allowance = "comments"
    serializer_class = CommentSerializer
    pagination_class = InOrder
    permission_classes = (IsAuthenticatedOrReadOnly,)

    def get_queryset(self) -> CommentQuerySet:
        reader = Reader(self.request.user)
        comments = with_likes(present_comments().filter(listed(reader), article=self.get_article()), reader)
        parent = self.request.query_params.get("parent", "")
        if parent == "root":
            return comments.filter(parent=None)
        if parent.isascii() and parent.isdigit():
            return comments.filter(parent=min(int(parent[:19]), 2**63 - 1))
        if parent:
            raise ValidationError({"parent": [_("应为 root 或一条评论的 id")]})
        return comments

    def get_article(self) -> Article:
        articles = Article.objects.published().select_related("category")
        return get_object_or_404(articles, slug=self.kwargs["slug"])

    def create(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        article = self.get_article()
        posted = self.get_serializer(data=request.data)
        posted.is_valid(raise_exception=True)
        try:
            comment = services.post_comment(
                article=article,
                author=request.user,
                text=posted.validated_data["text"],
                parent=self._parent(article, posted.validated_data.get("parent_id")),
                via_api=request.auth is not None,  # with a token: a program
            )
        except CommentRejected as rejection:
            raise _refusal(rejection, "parent") from rejection
        said = self.get_serializer(present_comments().get(pk=comment.pk))
        return Response(said.data, status=status.HTTP_201_CREATED)

    def _parent(self, article: Article, comment_id: int | None) -> Comment | None:
        if comment_id is None:
            return None
        parent = Comment.objects.visible().filter(article=article, pk=comment_id).first()
        if parent is None:
            raise ValidationError({"parent": [_("你要回复的评论已经不在了")]})
        return parent


def _refusal(rejection: CommentRejected, field: str) -> APIException:
    """Say why a service refused: 403 where nothing that is written would do, else what is wrong with a field."""
    if rejection.code in ("closed", "guests_not_allowed", "too_late"):
        return PermissionDenied(rejection.message)
    return ValidationError({field: [rejection.message]})


@extend_schema_view(
    get=extend_schema(
        summary=gettext_lazy("一条评论；模型还没看过时 prediction 为 null"),
        responses={200: CommentSerializer, **describe_errors(404)},
    ),
    patch=extend_schema(
        summary=gettext_lazy("修改自己的评论，只在发表后的一段时间里"),
        parameters=[IF_MATCH],
        responses={200: CommentSerializer, **describe_errors(404, 412)},
    ),
    delete=extend_schema(
        summary=gettext_lazy("删除自己的评论"),
        parameters=[IF_MATCH],
        responses={204: OpenApiResponse(description=gettext_lazy("已删除")), **describe_errors(404, 412)},
    ),
)
class CommentDetail(ApiView, generics.RetrieveUpdateDestroyAPIView[Comment]):
    allowance = "comments"
    serializer_class = CommentSerializer
    permission_classes = (IsAuthenticatedOrReadOnly, IsAuthorOrReads)
    http_method_names = ("get", "head", "options", "patch", "delete")

    def get_queryset(self) -> CommentQuerySet:
        return with_likes(present_comments().seen_by(self.request.user), Reader(self.request.user))

    def patch(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        with self._held():
            return super().patch(request, *args, **kwargs)

    def delete(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        with self._held():
            return super().delete(request, *args, **kwargs)

    @contextmanager
    def _held(self) -> Iterator[None]:
        """Let nobody else change the comment between looking at its version and changing it."""
        with transaction.atomic():
            list(Comment.objects.select_for_update().filter(pk=self.kwargs["pk"]).values_list("pk"))
            yield

    def get_object(self) -> Comment:
        comment: Comment = super().get_object()
        if self.request.method in ("PATCH", "DELETE"):
            check_precondition(self.request, self.get_serializer(comment).data)
        return comment

    def perform_update(self, serializer: serializers.BaseSerializer[Comment]) -> None:
        comment = serializer.instance
        assert comment is not None
        text = serializer.validated_data.get("text")
        if text is None:
            return
        try:
            services.edit_comment(comment=comment, text=text)
        except CommentRejected as rejection:
            raise _refusal(rejection, "text") from rejection
        serializer.instance = self.get_queryset().get(pk=comment.pk)

    def perform_destroy(self, instance: Comment) -> None:
        services.delete_comment(comment=instance)


class OnComment(ApiView):
    """What readers do with a comment that others can see."""

    permission_classes = (IsAuthenticated,)

    def get_queryset(self) -> CommentQuerySet:
        seen = Comment.objects.seen_by(self.request.user).visible()
        return with_likes(seen.select_related("author"), Reader(self.request.user))


class CommentLike(OnComment):
    allowance = "likes"
    serializer_class = LikeSerializer

    @extend_schema(
        summary=gettext_lazy("给别人的评论点赞，重复也一样"),
        request=None,
        responses={200: LikeSerializer, **describe_errors(401, 403, 404)},
    )
    def put(self, request: Request, pk: int) -> Response:
        comment = self.get_object()
        if comment.author_id == request.user.pk:
            raise PermissionDenied(_("不能给自己的评论点赞"))
        services.like_comment(comment=comment, user=request.user)
        return Response(self.get_serializer(self.get_object()).data)

    @extend_schema(
        summary=gettext_lazy("收回点赞，重复也一样"),
        responses={200: LikeSerializer, **describe_errors(401, 403, 404)},
    )
    def delete(self, request: Request, pk: int) -> Response:
        services.unlike_comment(comment=self.get_object(), user=request.user)
        return Response(self.get_serializer(self.get_object()).data)


class CommentReport(OnComment):
    allowance = "reports"
    serializer_class = ReportSerializer

    @extend_schema(
        summary=gettext_lazy("向审核员举报别人的评论，同一个人重复举报也一样"),
        responses={201: ReportSerializer, **describe_errors(400, 401, 403, 404, 413)},
    )
    def post(self, request: Request, pk: int) -> Response:
        comment = self.get_object()
        said = self.get_serializer(data=request.data)
        said.is_valid(raise_exception=True)
        report = services.report_comment(comment=comment, reporter=request.user, **said.validated_data)
        if report is None:
            raise PermissionDenied(_("这条评论不能举报。"))
        return Response(self.get_serializer(report).data, status=status.HTTP_201_CREATED)


EXPLANATION_EXAMPLE = OpenApiExample(
    "味道好，分量差",
    value={
        "model": "5f3c0a6c5b1f0f6d3f4e3b2a19080706f5e4d3c2b1a09f8e7d6c5b4a39281706",
        "label": "positive",
        "score": 0.9,
        "parts": [
            {"text": "味道", "side": None, "level": 0, "weight": None, "score_without": None},
            {"text": "好", "side": "for", "level": 3, "weight": 2.0, "score_without": 0.549},
            {"text": "，分量", "side": None, "level": 0, "weight": None, "score_without": None},
            {"text": "差", "side": "against", "level": 2, "weight": -1.0, "score_without": 0.961},
        ],
    },
    response_only=True,
    status_codes=["200"],
)


@extend_schema(
    summary=gettext_lazy("模型为什么这样判断一条评论"),
    description=gettext_lazy(
        "把文字分成几段，逐段说明它对判断的作用。新的解释问得太多回答 429，模型不在时回答 503。"
    ),
    responses={200: ExplanationSerializer, **describe_errors(404, 429, 503)},
    examples=[EXPLANATION_EXAMPLE],
)
class CommentExplanation(ApiView):
    serializer_class = ExplanationSerializer

    def get_queryset(self) -> CommentQuerySet:
        return Comment.objects.seen_by(self.request.user).with_predictions()

    def get(self, request: Request, pk: int) -> Response:
        asker = explanations.name_asker(request.user, client_address(request.META))
        try:
            explanation = explanations.explain_comment(comment=self.get_object(), asker=asker)
        except explanations.TooManyAsked as refusal:
            raise Throttled(refusal.retry_after_seconds) from refusal
        except InferenceError as error:
            logger.warning("comment %s: not explained: %s", pk, error)
            raise ModelAway(error.retry_after_seconds) from error
        return Response(self.get_serializer(explanation).data)
