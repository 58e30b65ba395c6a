"""Tokens: what programs show in the place of a password."""

from __future__ import annotations

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.utils import timezone
from django.utils.translation import gettext_lazy as _


class TokenQuerySet(models.QuerySet["Token"]):
    def usable(self) -> TokenQuerySet:
        return self.filter(Q(expires_at=None) | Q(expires_at__gt=timezone.now()))


class Token(models.Model):
    """Stands for its owner. Only the digest of the secret is kept: it was shown once, when it was made."""

    owner = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="api_tokens", verbose_name=_("主人")
    )
    name = models.CharField(_("做什么用"), max_length=60)
    digest = models.CharField(_("摘要值"), max_length=64, unique=True, editable=False)  # SHA-256, hex
    beginning = models.CharField(_("开头"), max_length=8, editable=False)  # tells one's tokens apart
    created_at = models.DateTimeField(_("创建时间"), auto_now_add=True)
    expires_at = models.DateTimeField(_("到期时间"), null=True, blank=True)  # null: never
    last_used_at = models.DateTimeField(_("最近使用"), null=True, editable=False)  # to about a minute

    objects = TokenQuerySet.as_manager()

    class Meta:
        verbose_name = _("访问令牌")
        verbose_name_plural = _("访问令牌")
        ordering = ["-id"]

    def __str__(self) -> str:
        return self.name

    def is_expired(self) -> bool:
        return self.expires_at is not None and self.expires_at <= timezone.now()
