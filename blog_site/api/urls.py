"""Addresses of the API, under /api/v1/."""

from __future__ import annotations

from django.urls import path, re_path

from . import articles, categories, comments, schema, tokens
from .errors import unknown_address

app_name = "api"
# `str`, not `slug`: slugs may be Chinese.
urlpatterns = [
    path("articles/", articles.ArticleList.as_view(), name="articles"),
    path("articles/<str:slug>/", articles.ArticleDetail.as_view(), name="article"),
    path("articles/<str:slug>/comments/", comments.ArticleComments.as_view(), name="article_comments"),
    path("comments/<int:pk>/", comments.CommentDetail.as_view(), name="comment"),
    path("comments/<int:pk>/like/", comments.CommentLike.as_view(), name="comment_like"),
    path("comments/<int:pk>/report/", comments.CommentReport.as_view(), name="comment_report"),
    path("comments/<int:pk>/explanation/", comments.CommentExplanation.as_view(), name="comment_explanation"),
    path("categories/", categories.CategoryList.as_view(), name="categories"),
    path("tags/", categories.TagList.as_view(), name="tags"),
    path("auth/token/", tokens.ObtainToken.as_view(), name="token"),
    path("search/", articles.ArticleSearch.as_view(), name="search"),
    path("schema/", schema.Schema.as_view(), name="schema"),
    re_path("", unknown_address),  # whatever else begins with /api/v1/
]
