"""The API's views: parse, call a service, respond."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from django.db.models import Prefetch, QuerySet
from django.shortcuts import get_object_or_404
from django.utils.translation import gettext as _
from drf_spectacular.utils import (
    OpenApiExample,
    OpenApiParameter,
    OpenApiResponse,
    extend_schema,
    extend_schema_view,
)
from drf_spectacular.views import SpectacularAPIView
from rest_framework import generics, status
from rest_framework.authentication import SessionAuthentication, TokenAuthentication
from rest_framework.authtoken.models import Token
from rest_framework.exceptions import Throttled, ValidationError
from rest_framework.permissions import AllowAny, IsAuthenticatedOrReadOnly
from rest_framework.request import Request
from rest_framework.response import Response

from blog_site.addresses import client_address
from blog_site.articles.models import Article, ArticleQuerySet, Category, Tag
from blog_site.articles.search import search_articles
from blog_site.comments import explanations, services
from blog_site.comments.inference import InferenceError
from blog_site.comments.models import Comment, CommentQuerySet
from blog_site.labels.models import Label

from .errors import ModelAway, handle_exception
from .pagination import BestFirst, ById, NewestArticlesFirst, OldestCommentsFirst
from .parsers import ShallowJSONParser
from .permissions import IsAuthorOrReads
from .serializers import (
    ArticleSerializer,
    ArticleSummarySerializer,
    CategorySerializer,
    CommentSerializer,
    CredentialsSerializer,
    ErrorSerializer,
    ExplanationSerializer,
    TagSerializer,
    TokenSerializer,
)

logger = logging.getLogger(__name__)


def _errors(*codes: int) -> dict[int, OpenApiResponse]:
    return {code: OpenApiResponse(ErrorSerializer) for code in codes}


class ApiView(generics.GenericAPIView[Any]):
    """What all views have in common."""

    # The token first: its answer to somebody unknown is 401 with WWW-Authenticate, the session's is 403.
    authentication_classes = (TokenAuthentication, SessionAuthentication)
    parser_classes = (ShallowJSONParser,)

    def get_exception_handler(self) -> Callable[[Exception, dict[str, Any]], Response | None]:
        return handle_exception


def present_comments() -> CommentQuerySet:
    """Comments with all that a comment's JSON says, in a fixed number of queries."""
    return (
        Comment.objects.with_predictions()
        .select_related("article")
        .defer("article__body_markdown", "article__body_html")
        .prefetch_related(Prefetch("labels", Label.objects.of_present_text(), to_attr="present_labels"))
    )


@extend_schema(
    summary="Published articles, newest first",
    responses={200: ArticleSummarySerializer(many=True), **_errors(404)},
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
    responses={200: ArticleSummarySerializer(many=True), **_errors(400, 404)},
)
class ArticleSearch(ApiView, generics.ListAPIView[Article]):
    serializer_class = ArticleSummarySerializer
    pagination_class = BestFirst

    def get_queryset(self) -> ArticleQuerySet:
        query = self.request.query_params.get("q", "").strip()
        if not query:
            raise ValidationError({"q": [_("要找什么？例如 ?q=豆腐")]})
        return search_articles(query).with_people().defer("body_markdown", "body_html")


@extend_schema(summary="A published article", responses={200: ArticleSerializer, **_errors(404)})
class ArticleDetail(ApiView, generics.RetrieveAPIView[Article]):
    serializer_class = ArticleSerializer
    lookup_field = "slug"

    def get_queryset(self) -> ArticleQuerySet:
        return Article.objects.published().with_people()


@extend_schema_view(
    get=extend_schema(
        summary="An article's visible comments, oldest first",
        responses={200: CommentSerializer(many=True), **_errors(404)},
    ),
    post=extend_schema(
        summary="Post a comment", responses={201: CommentSerializer, **_errors(400, 401, 403, 404, 413)}
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
        responses={200: CommentSerializer, **_errors(404)},
    ),
    delete=extend_schema(
        summary="Delete one's own comment",
        responses={204: OpenApiResponse(description="Deleted"), **_errors(401, 403, 404)},
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
    responses={200: ExplanationSerializer, **_errors(404, 429, 503)},
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


@extend_schema(summary="Categories", responses={200: CategorySerializer(many=True), **_errors(404)})
class CategoryList(ApiView, generics.ListAPIView[Category]):
    serializer_class = CategorySerializer
    pagination_class = ById
    queryset: QuerySet[Category] = Category.objects.all()


@extend_schema(summary="Tags", responses={200: TagSerializer(many=True), **_errors(404)})
class TagList(ApiView, generics.ListAPIView[Tag]):
    serializer_class = TagSerializer
    pagination_class = ById

    def get_queryset(self) -> QuerySet[Tag]:
        return Tag.objects.in_use()


@extend_schema(
    summary="Exchange a username and password for a token",
    description="Send the token as `Authorization: Token <token>`.",
    auth=[],
    responses={200: TokenSerializer, **_errors(400, 413)},
)
class ObtainToken(ApiView):
    serializer_class = CredentialsSerializer
    authentication_classes = ()
    permission_classes = (AllowAny,)

    def post(self, request: Request) -> Response:
        credentials = self.get_serializer(data=request.data)
        credentials.is_valid(raise_exception=True)
        token, _made = Token.objects.get_or_create(user=credentials.validated_data["user"])
        return Response(TokenSerializer({"token": token.key}).data)


class Schema(SpectacularAPIView):
    """The OpenAPI 3.1 description of this API."""

    def get_exception_handler(self) -> Callable[[Exception, dict[str, Any]], Response | None]:
        return handle_exception
