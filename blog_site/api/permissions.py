"""Who may do what through the API."""

from __future__ import annotations

from rest_framework.permissions import SAFE_METHODS, BasePermission
from rest_framework.request import Request
from rest_framework.views import APIView

from blog_site.comments.models import Comment


class IsAuthorOrReads(BasePermission):
    """Everybody reads; only its author changes a comment."""

    def has_object_permission(self, request: Request, view: APIView, obj: Comment) -> bool:
        return request.method in SAFE_METHODS or obj.author_id == request.user.pk
