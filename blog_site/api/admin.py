from __future__ import annotations

from django.contrib import admin
from django.http import HttpRequest
from unfold.admin import ModelAdmin

from .models import Token


@admin.register(Token)
class TokenAdmin(ModelAdmin):
    """Whose tokens there are, and when each was used; to delete one is to revoke it."""

    list_display = fields = ("name", "owner", "beginning", "created_at", "last_used_at", "expires_at")
    list_filter = ("last_used_at", "expires_at")
    search_fields = ("name", "owner__username", "beginning")
    list_select_related = ("owner",)

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Token | None = None) -> bool:
        return False
