from __future__ import annotations

from datetime import datetime

from django.contrib import admin
from django.contrib.auth.admin import GroupAdmin as DjangoGroupAdmin
from django.contrib.auth.admin import UserAdmin as DjangoUserAdmin
from django.contrib.auth.models import Group
from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _
from unfold.admin import ModelAdmin
from unfold.forms import AdminPasswordChangeForm, UserChangeForm, UserCreationForm

from .models import FailedSignIn, User

admin.site.unregister(Group)


@admin.register(User)
class UserAdmin(DjangoUserAdmin, ModelAdmin):
    list_display = ("username", "display_name", "is_staff", "is_active", "date_joined")
    search_fields = ("username", "display_name")
    fieldsets = (*DjangoUserAdmin.fieldsets, (_("公开资料"), {"fields": ("display_name", "bio")}))
    # Django's own forms, with the theme's widgets.
    form = UserChangeForm
    add_form = UserCreationForm
    change_password_form = AdminPasswordChangeForm


@admin.register(Group)
class GroupAdmin(DjangoGroupAdmin, ModelAdmin):
    """As Django has it, in the theme."""


@admin.register(FailedSignIn)
class FailedSignInAdmin(ModelAdmin):
    """Who is locked out of what: to delete a row is to let that address try again."""

    list_display = fields = ("account", "address", "failures", "newest")
    search_fields = ("username", "ip_address")
    ordering = ("-attempt_time",)

    @admin.display(description=_("用户名"), ordering="username")
    def account(self, failed: FailedSignIn) -> str:
        return failed.username or "–"

    @admin.display(description=_("地址"), ordering="ip_address")
    def address(self, failed: FailedSignIn) -> str:
        return failed.ip_address or "–"

    @admin.display(description=_("次数"), ordering="failures_since_start")
    def failures(self, failed: FailedSignIn) -> int:
        return failed.failures_since_start

    @admin.display(description=_("最近一次"), ordering="attempt_time")
    def newest(self, failed: FailedSignIn) -> datetime:
        return failed.attempt_time

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: FailedSignIn | None = None) -> bool:
        return False
