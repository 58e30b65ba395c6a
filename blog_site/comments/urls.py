"""Addresses of comments."""

from __future__ import annotations

from django.urls import path

from . import drafts, live, views

app_name = "comments"
urlpatterns = [
    path("articles/<str:slug>/comments/", views.post_comment, name="post_comment"),
    path("articles/<str:slug>/comments/changes/", live.changes, name="changes"),
    path("comments/draft-sentiment/", drafts.draft_sentiment, name="draft_sentiment"),
    path("comments/<int:comment_id>/like/", views.like_comment, name="like_comment"),
    path("comments/<int:comment_id>/edit/", views.edit_comment, name="edit_comment"),
    path("comments/<int:comment_id>/report/", views.report_comment, name="report_comment"),
    path("comments/<int:comment_id>/delete/", views.delete_comment, name="delete_comment"),
    path("comments/<int:comment_id>/explanation/", views.explain_comment, name="explanation"),
    # The same without the page around it, for the script that shows it in its place.
    path(
        "comments/<int:comment_id>/explanation/part/",
        views.explain_comment,
        {"template": "comments/_explanation.html"},
        name="explanation_part",
    ),
]
