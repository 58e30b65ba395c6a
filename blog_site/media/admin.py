from __future__ import annotations

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy as _
from unfold.admin import ModelAdmin

from .models import Image
from .services import delete_images


@admin.register(Image)
class ImageAdmin(ModelAdmin):
    """Looking at what was uploaded, and removing what must not be shown."""

    list_display = ("picture", "owner", "width", "height", "bytes", "created_at")
    list_select_related = ("owner",)
    search_fields = ("owner__username", "digest")
    readonly_fields = ("picture", "owner", "digest", "width", "height", "bytes", "animated", "created_at")

    @admin.display(description=_("图片"))
    def picture(self, image: Image) -> SafeString:
        return format_html(
            '<img src="{}" alt="{}" width="160" loading="lazy">', image.thumbnail_url(320), str(image)
        )

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def delete_model(self, request: HttpRequest, obj: Image) -> None:
        delete_images(images=[obj])

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[Image]) -> None:
        delete_images(images=queryset)
