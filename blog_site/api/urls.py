"""Addresses of the API, under /api/v1/."""

from __future__ import annotations

from django.urls import path, re_path

from . import views
from .errors import unknown_address

app_name = "api"
# `str`, not `slug`: slugs may be Chinese.
urlpatterns = [
    path("articles/", views.ArticleList.as_view(), name="articles"),
    path("articles/<str:slug>/", views.ArticleDetail.as_view(), name="article"),
    path("articles/<str:slug>/comments/", views.ArticleComments.as_view(), name="article_comments"),
    path("comments/<int:pk>/", views.CommentDetail.as_view(), name="comment"),
    path("comments/<int:pk>/explanation/", views.CommentExplanation.as_view(), name="comment_explanation"),
    path("categories/", views.CategoryList.as_view(), name="categories"),
    path("tags/", views.TagList.as_view(), name="tags"),
    path("auth/token/", views.ObtainToken.as_view(), name="token"),
    path("search/", views.ArticleSearch.as_view(), name="search"),
    path("schema/", views.Schema.as_view(), name="schema"),
    re_path("", unknown_address),  # whatever else begins with /api/v1/
]
