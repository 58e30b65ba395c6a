"""Addresses of the API, under /api/v1/."""

from __future__ import annotations

from django.urls import path, re_path

from . import articles, categories, comments, dashboard, description, docs, labels, me, predictions, tokens
from .errors import unknown_address

app_name = "api"
# `str`, not `slug`: slugs may be Chinese.
urlpatterns = [
    path("articles/", articles.ArticleList.as_view(), name="articles"),
    path("articles/<str:slug>/", articles.ArticleDetail.as_view(), name="article"),
    path("articles/<str:slug>/publish/", articles.ArticlePublication.as_view(), name="publish"),
    path("articles/<str:slug>/withdraw/", articles.ArticleWithdrawal.as_view(), name="withdraw"),
    path("articles/<str:slug>/comments/", comments.ArticleComments.as_view(), name="article_comments"),
    path("comments/<int:pk>/", comments.CommentDetail.as_view(), name="comment"),
    path("comments/<int:pk>/like/", comments.CommentLike.as_view(), name="comment_like"),
    path("comments/<int:pk>/report/", comments.CommentReport.as_view(), name="comment_report"),
    path("comments/<int:pk>/explanation/", comments.CommentExplanation.as_view(), name="comment_explanation"),
    path("predictions/", predictions.PredictionList.as_view(), name="predictions"),
    path("predictions/<int:pk>/", predictions.PredictionDetail.as_view(), name="prediction"),
    path("labels/", labels.LabelList.as_view(), name="labels"),
    path("labels/<int:pk>/", labels.LabelDetail.as_view(), name="label"),
    path("categories/", categories.CategoryList.as_view(), name="categories"),
    path("categories/<str:slug>/", categories.CategoryDetail.as_view(), name="category"),
    path("tags/", categories.TagList.as_view(), name="tags"),
    path("tags/<str:slug>/", categories.TagDetail.as_view(), name="tag"),
    path("search/", articles.ArticleSearch.as_view(), name="search"),
    path("auth/token/", tokens.SignIn.as_view(), name="token"),
    path("me/", me.Me.as_view(), name="me"),
    path("me/articles/", me.OwnArticles.as_view(), name="own_articles"),
    path("me/comments/", me.OwnComments.as_view(), name="own_comments"),
    path("me/dashboard/", dashboard.OwnDashboard.as_view(), name="own_dashboard"),
    path("me/tokens/", tokens.OwnTokens.as_view(), name="own_tokens"),
    path("me/tokens/current/", tokens.TokenInUse.as_view(), name="token_in_use"),
    path("me/tokens/<int:pk>/", tokens.OwnToken.as_view(), name="own_token"),
    path("schema/", description.Schema.as_view(), name="schema"),
    path("docs/", docs.documentation, name="docs"),
    re_path("", unknown_address),  # whatever else begins with /api/v1/
]
