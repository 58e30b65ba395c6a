"""The page on which one makes and revokes one's tokens."""

from __future__ import annotations

from datetime import timedelta

from django import forms
from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_POST

from .models import Token
from .services import MAX_TOKENS, TooManyTokens, make_token, revoke_token, revoke_tokens

LIFETIMES = (
    (30, gettext_lazy("30 天")),
    (90, gettext_lazy("90 天")),
    (365, gettext_lazy("一年")),
    (0, gettext_lazy("一直有效")),
)


class TokenForm(forms.Form):
    name = forms.CharField(
        label=gettext_lazy("做什么用"),
        max_length=60,
        help_text=gettext_lazy("以后靠它认出这个令牌，例如：备份脚本"),
    )
    days = forms.TypedChoiceField(label=gettext_lazy("有效期"), choices=LIFETIMES, coerce=int, initial=90)

    def expires_at(self) -> object:
        days = self.cleaned_data["days"]
        return timezone.now() + timedelta(days=days) if days else None


@never_cache  # it shows a secret once
@login_required
def tokens(request: HttpRequest) -> HttpResponse:
    form = TokenForm(request.POST if request.method == "POST" else None)
    made = None
    if request.method == "POST" and form.is_valid():
        try:
            made = make_token(
                owner=request.user, name=form.cleaned_data["name"], expires_at=form.expires_at()
            )
            form = TokenForm()
        except TooManyTokens:
            form.add_error(None, _("最多 %(limit)d 个令牌：请先吊销一个。") % {"limit": MAX_TOKENS})
    page = {"form": form, "made": made, "tokens": Token.objects.filter(owner=request.user)}
    return render(request, "api/tokens.html", page, status=400 if form.errors else 200)


@require_POST
@login_required
def revoke(request: HttpRequest, pk: int) -> HttpResponse:
    token = get_object_or_404(Token, pk=pk, owner=request.user)
    revoke_token(token=token)
    messages.success(request, _("令牌“%(name)s”已吊销。") % {"name": token.name})
    return redirect("tokens:tokens")


@require_POST
@login_required
def revoke_all(request: HttpRequest) -> HttpResponse:
    revoked = revoke_tokens(owner=request.user)
    messages.success(request, _("已吊销 %(count)d 个令牌。") % {"count": revoked})
    return redirect("tokens:tokens")
