"""Who asks: by token, or by the session of the pages."""

from __future__ import annotations

from typing import Any

from django.utils.translation import gettext as _
from drf_spectacular.extensions import OpenApiAuthenticationExtension
from rest_framework.authentication import BaseAuthentication, get_authorization_header
from rest_framework.exceptions import AuthenticationFailed
from rest_framework.request import Request

from blog_site.users.models import User

from .models import Token
from .services import find_token

KEYWORDS = ("bearer", "token")  # RFC 6750's, and the one that Django REST framework uses


class TokenAuthentication(BaseAuthentication):
    """`Authorization: Bearer <token>`; `Token <token>` is the same."""

    def authenticate(self, request: Request) -> tuple[User, Token] | None:
        keyword, _space, secret = get_authorization_header(request).decode("latin-1").partition(" ")
        if keyword.lower() not in KEYWORDS:
            return None
        token = find_token(secret=secret.strip())
        if token is None:
            raise AuthenticationFailed(_("没有这个令牌，或者它已被吊销"))
        if token.is_expired():
            raise AuthenticationFailed(_("这个令牌已过期，请换一个"))
        if not token.owner.is_active:
            raise AuthenticationFailed(_("这个账号已停用"))
        return token.owner, token

    def authenticate_header(self, request: Request) -> str:
        return "Bearer"


class TokenScheme(OpenApiAuthenticationExtension):
    target_class = TokenAuthentication
    name = "token"

    def get_security_definition(self, auto_schema: Any) -> dict[str, str]:
        return {
            "type": "http",
            "scheme": "bearer",
            "description": _("在“我的资料 → 访问令牌”里创建，或用 POST /api/v1/auth/token/ 换取"),
        }
