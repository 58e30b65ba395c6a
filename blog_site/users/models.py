"""People: readers, writers, moderators, administrators."""

from __future__ import annotations

from axes.models import AccessAttempt
from django.contrib.auth.models import AbstractUser
from django.db import models
from django.utils.translation import gettext_lazy as _
from django.utils.translation import pgettext_lazy

MODERATORS = "moderators"  # the name of the group that migration 0002 makes


class User(AbstractUser):
    display_name = models.CharField(_("昵称"), max_length=40, blank=True)
    bio = models.CharField(_("简介"), max_length=200, blank=True)

    class Meta(AbstractUser.Meta):
        verbose_name = pgettext_lazy("one", "用户")
        verbose_name_plural = _("用户")

    def __str__(self) -> str:
        return self.display_name or self.username


class FailedSignIn(AccessAttempt):
    """Failures to sign in at one account from one address, as axes keeps them, under a name for administrators."""

    class Meta:
        proxy = True
        app_label = "users"
        verbose_name = _("登录失败记录")
        verbose_name_plural = _("登录失败记录")
