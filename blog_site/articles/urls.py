from __future__ import annotations

from django.urls import path

from . import views, writing
from .feeds import ArticleFeed, AuthorFeed, CategoryFeed

app_name = "articles"

# `str`, not `slug`: slugs may be Chinese.
urlpatterns = [
    path("", views.home, name="home"),
    path("articles/<str:slug>/", views.article, name="article"),
    path("articles/<str:slug>/edit/", writing.edit, name="edit"),
    path("articles/<str:slug>/withdraw/", writing.withdraw, name="withdraw"),
    path("articles/<str:slug>/delete/", writing.delete, name="delete"),
    path("categories/<str:slug>/", views.category, name="category"),
    path("tags/<str:slug>/", views.tag, name="tag"),
    path("authors/<str:username>/", views.author, name="author"),
    path("archive/", views.archive, name="archive"),
    path("feed.atom", ArticleFeed(), name="feed"),
    path("categories/<str:slug>/feed.atom", CategoryFeed(), name="category_feed"),
    path("authors/<str:username>/feed.atom", AuthorFeed(), name="author_feed"),
    path("robots.txt", views.robots, name="robots"),
    path("search/", views.search, name="search"),
    path("write/", writing.write, name="write"),
    path("write/preview/", writing.preview, name="preview"),
    path("write/image/", writing.insert_image, name="insert_image"),
    path("write/draft/", writing.autosave, name="autosave_new"),
    path("write/<str:slug>/draft/", writing.autosave, name="autosave"),
    path("write/drafts/<int:draft_id>/discard/", writing.discard, name="discard"),
    path("mine/", writing.mine, name="mine"),
]
