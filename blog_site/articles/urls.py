from __future__ import annotations

from django.urls import path

from . import views

app_name = "articles"

# `str`, not `slug`: slugs may be Chinese.
urlpatterns = [
    path("", views.home, name="home"),
    path("articles/<str:slug>/", views.article, name="article"),
    path("articles/<str:slug>/edit/", views.edit, name="edit"),
    path("categories/<str:slug>/", views.category, name="category"),
    path("tags/<str:slug>/", views.tag, name="tag"),
    path("authors/<str:username>/", views.author, name="author"),
    path("write/", views.write, name="write"),
    path("mine/", views.mine, name="mine"),
]
