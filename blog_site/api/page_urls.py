"""Addresses of the pages about tokens."""

from __future__ import annotations

from django.urls import path

from . import pages

app_name = "tokens"

urlpatterns = [
    path("me/tokens/", pages.tokens, name="tokens"),
    path("me/tokens/revoke/", pages.revoke_all, name="revoke_all"),
    path("me/tokens/<int:pk>/revoke/", pages.revoke, name="revoke"),
]
