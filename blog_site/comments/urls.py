"""Addresses of comments."""

from __future__ import annotations

from django.urls import path

from . import views

app_name = "comments"
urlpatterns = [
    path("articles/<str:slug>/comments/", views.post_comment, name="post_comment"),
    path("comments/<int:comment_id>/delete/", views.delete_comment, name="delete_comment"),
]
