"""Comments, and why a model judges them as it does."""

from __future__ import annotations

import logging
from typing import Any

from django.db.models import Prefetch
from django.shortcuts import get_object_or_404
from drf_spectacular.utils import (
    OpenApiExample,
    OpenApiResponse,
    extend_schema,
    extend_schema_field,
    extend_schema_view,
)
from rest_framework import generics, serializers, status
from rest_framework.exceptions import Throttled
from rest_framework.permissions import IsAuthenticatedOrReadOnly
from rest_framework.request import Request
from rest_framework.response import Response

from blog_site.addresses import client_address
from blog_site.articles.models import Article
from blog_site.comments import explanations, services
from blog_site.comments.explanations import Explanation, Part
from blog_site.comments.inference import InferenceError
from blog_site.comments.models import Comment, CommentQuerySet
from blog_site.comments.text import CommentRejected, clean_comment_text
from blog_site.labels.models import Label
from blog_site.labels.services import best_label

from .endpoint import ApiView, describe_errors
from .errors import ModelAway
from .labels import LabelSerializer
from .pagination import OldestCommentsFirst
from .people import AuthorSerializer
from .permissions import IsAuthorOrReads
from .predictions import PredictionSerializer, SentimentField

logger = logging.getLogger(__name__)


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


class CommentSerializer(serializers.ModelSerializer[Comment]):
    article = serializers.SlugRelatedField(slug_field="slug", read_only=True)
    author = AuthorSerializer(read_only=True)
    text = CommentTextField()
    prediction = serializers.SerializerMethodField()
    label = serializers.SerializerMethodField()

    class Meta:
        model = Comment
        fields = ("id", "article", "author", "text", "created_at", "prediction", "label")
        read_only_fields = ("created_at",)

    @extend_schema_field(PredictionSerializer(allow_null=True))
    def get_prediction(self, comment: Comment) -> dict[str, Any] | None:
        prediction = comment.current_prediction()
        return None if prediction is None else PredictionSerializer(prediction).data

    @extend_schema_field(LabelSerializer(allow_null=True))
    def get_label(self, comment: Comment) -> dict[str, Any] | None:
        label = best_label(comment.present_labels)
        return None if label is None else LabelSerializer(label).data


class ExplanationPartSerializer(serializers.Serializer[Part]):
    text = serializers.CharField()
    side = serializers.SerializerMethodField(
        help_text="What the part speaks for; null where it hardly matters"
    )
    level = serializers.IntegerField(help_text="How strongly, from 1 to 3; 0 where it hardly matters")
    weight = serializers.SerializerMethodField(
        help_text="By how much the log-odds of the label fall without this part"
    )
    score_without = serializers.SerializerMethodField(
        help_text="The probability of the label without this part"
    )

    @extend_schema_field({"oneOf": [{"const": "for"}, {"const": "against"}, {"type": "null"}]})
    def get_side(self, part: Part) -> str | None:
        return part.side or None

    def get_weight(self, part: Part) -> float | None:
        return part.weight if part.side else None

    def get_score_without(self, part: Part) -> float | None:
        return part.score_without if part.side else None


class ExplanationSerializer(serializers.Serializer[Explanation]):
    model = serializers.CharField(help_text="Digest of the model that judged")
    label = SentimentField()
    score = serializers.FloatField()
    parts = ExplanationPartSerializer(many=True, help_text="In order; together the whole text")


def present_comments() -> CommentQuerySet:
    """Comments with all that a comment's JSON says, in a fixed number of queries."""
    return (
        Comment.objects.with_predictions()
        .select_related("article")
        .defer("article__body_markdown", "article__body_html")
        .prefetch_related(Prefetch("labels", Label.objects.of_present_text(), to_attr="present_labels"))
    )


@extend_schema_view(
    get=extend_schema(
        summary="An article's visible comments, oldest first",
        responses={200: CommentSerializer(many=True), **describe_errors(404)},
    ),
    post=extend_schema(
        summary="Post a comment",
        responses={201: CommentSerializer, **describe_errors(400, 401, 403, 404, 413)},
    ),
)
class ArticleComments(ApiView, generics.ListCreateAPIView[Comment]):
    serializer_class = CommentSerializer
    pagination_class = OldestCommentsFirst
    permission_classes = (IsAuthenticatedOrReadOnly,)

    def get_queryset(self) -> CommentQuerySet:
        return present_comments().visible().filter(article=self.get_article())

    def get_article(self) -> Article:
        return get_object_or_404(Article.objects.published(), slug=self.kwargs["slug"])

    def create(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        article = self.get_article()
        posted = self.get_serializer(data=request.data)
        posted.is_valid(raise_exception=True)
        comment = services.post_comment(
            article=article, author=request.user, text=posted.validated_data["text"]
        )
        said = self.get_serializer(present_comments().get(pk=comment.pk))
        return Response(said.data, status=status.HTTP_201_CREATED)


@extend_schema_view(
    get=extend_schema(
        summary="A comment; its prediction is null until a model has seen it",
        responses={200: CommentSerializer, **describe_errors(404)},
    ),
    delete=extend_schema(
        summary="Delete one's own comment",
        responses={204: OpenApiResponse(description="Deleted"), **describe_errors(401, 403, 404)},
    ),
)
class CommentDetail(ApiView, generics.RetrieveDestroyAPIView[Comment]):
    serializer_class = CommentSerializer
    permission_classes = (IsAuthenticatedOrReadOnly, IsAuthorOrReads)

    def get_queryset(self) -> CommentQuerySet:
        return present_comments().seen_by(self.request.user)

    def perform_destroy(self, instance: Comment) -> None:
        services.delete_comment(comment=instance)


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
    summary="Why the model judges a comment as it does",
    description="Its text in parts, and what each does to the judgement. 429 when one asks for too many new ones, 503 "
    "while the model is away; Retry-After says when to come again.",
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
