"""Tokens: exchanged for a password, listed, revoked."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.conf import settings
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from drf_spectacular.utils import (
    OpenApiExample,
    OpenApiResponse,
    extend_schema,
    extend_schema_serializer,
    extend_schema_view,
)
from rest_framework import generics, serializers, status
from rest_framework.authtoken.serializers import AuthTokenSerializer
from rest_framework.exceptions import NotFound
from rest_framework.permissions import AllowAny, IsAuthenticated
from rest_framework.request import Request
from rest_framework.response import Response

from blog_site.users.models import User

from .endpoint import ApiView
from .errors import Conflict
from .fields import StrictIntegerField, StrictStringField
from .models import Token, TokenQuerySet
from .pagination import NewestFirst
from .schema import describe_errors
from .services import MAX_TOKENS, NewToken, TooManyTokens, make_token, revoke_token

MAX_DAYS = 3650
NO_STORE = {"Cache-Control": "no-store"}  # of answers that hold a secret
SECRET_EXAMPLE = "hs_" + "x" * 43


@extend_schema_serializer(
    component_name="TokenWish",
    examples=[OpenApiExample("script", value={"name": "备份脚本", "expires_in_days": 90})],
)
class NamedSerializer(serializers.Serializer[Any]):
    """What a new token is for and how long it lasts."""

    name = StrictStringField(max_length=60, help_text=gettext_lazy("这个令牌做什么用，以后好认"))
    expires_in_days = StrictIntegerField(
        min_value=1,
        max_value=MAX_DAYS,
        required=False,
        allow_null=True,
        default=None,
        help_text=gettext_lazy("多少天后失效；不填就一直有效"),
    )


def mint(owner: User, wanted: dict[str, Any]) -> NewToken:
    """Make the token that somebody asked for; raises Conflict where they have too many."""
    days = wanted["expires_in_days"]
    expires_at = timezone.now() + timedelta(days=days) if days else None
    try:
        return make_token(owner=owner, name=wanted["name"], expires_at=expires_at)
    except TooManyTokens as error:
        raise Conflict(_("一个账号最多 %(limit)d 个令牌：请先吊销一个") % {"limit": MAX_TOKENS}) from error


TOKEN_EXAMPLE = {
    "id": 7,
    "name": "备份脚本",
    "beginning": "hs_Ab3dE",
    "created_at": "2026-05-01T08:30:00+08:00",
    "expires_at": "2026-07-30T08:30:00+08:00",
    "last_used_at": None,
}


@extend_schema_serializer(examples=[OpenApiExample("token", value=TOKEN_EXAMPLE)])
class TokenSerializer(serializers.ModelSerializer[Token]):
    class Meta:
        model = Token
        fields = ("id", "name", "beginning", "created_at", "expires_at", "last_used_at")
        read_only_fields = fields


@extend_schema_serializer(examples=[OpenApiExample("new", value={**TOKEN_EXAMPLE, "token": SECRET_EXAMPLE})])
class NewTokenSerializer(TokenSerializer):
    token = serializers.CharField(read_only=True, help_text=gettext_lazy("令牌本身，只在这里出现一次"))

    class Meta(TokenSerializer.Meta):
        fields = (*TokenSerializer.Meta.fields, "token")

    def to_representation(self, instance: NewToken) -> dict[str, Any]:
        return {**TokenSerializer(instance.token).data, "token": instance.secret}


@extend_schema_serializer(
    examples=[OpenApiExample("password", value={"username": "laowang", "password": "…", "name": "手机"})]
)
class CredentialsSerializer(AuthTokenSerializer):
    """A username and its password, and what the token is for."""

    username = StrictStringField(write_only=True, max_length=150)
    password = StrictStringField(trim_whitespace=False, write_only=True, max_length=4096)
    name = StrictStringField(max_length=60, required=False, help_text=gettext_lazy("这个令牌做什么用"))
    expires_in_days = StrictIntegerField(
        min_value=1,
        max_value=MAX_DAYS,
        required=False,
        help_text=gettext_lazy("多少天后失效；不填就用站点的设置（API_SIGN_IN_TOKEN_DAYS）"),
    )
    token = None  # AuthTokenSerializer's, which is of the answer


@extend_schema_view(
    post=extend_schema(
        summary=gettext_lazy("用用户名和密码换一个令牌"),
        description=gettext_lazy(
            "以后的请求带上 `Authorization: Bearer <令牌>`。每次换得一个新的，旧的不受影响；"
            "令牌只在这里出现一次。"
        ),
        auth=[],
        responses={200: NewTokenSerializer, **describe_errors(400, 409)},
    ),
)
class SignIn(ApiView):
    serializer_class = CredentialsSerializer
    authentication_classes = ()
    permission_classes = (AllowAny,)
    throttle_classes = ()  # the backends count passwords, whichever door they are tried at

    def post(self, request: Request) -> Response:
        credentials = self.get_serializer(data=request.data)
        credentials.is_valid(raise_exception=True)
        said = credentials.validated_data
        wanted = {
            "name": said.get("name") or _("密码登录"),
            "expires_in_days": said.get("expires_in_days") or settings.API_SIGN_IN_TOKEN_DAYS,
        }
        minted = mint(said["user"], wanted)
        return Response(NewTokenSerializer(minted).data, headers=NO_STORE)


class MayMakeTokens(IsAuthenticated):
    """A token makes no others: one that leaked could not be got rid of."""

    message = gettext_lazy("令牌不能再创建令牌：请登录后创建，或用密码换取")

    def has_permission(self, request: Request, view: Any) -> bool:
        by_token = isinstance(request.auth, Token)
        return super().has_permission(request, view) and not (request.method == "POST" and by_token)


@extend_schema_view(
    get=extend_schema(summary=gettext_lazy("我的令牌"), responses=TokenSerializer(many=True)),
    post=extend_schema(
        summary=gettext_lazy("创建一个令牌"),
        description=gettext_lazy("只凭登录状态（会话）；令牌不能再创建令牌。"),
        request=NamedSerializer,
        responses={201: NewTokenSerializer, **describe_errors(403, 409)},
    ),
)
class OwnTokens(ApiView, generics.ListAPIView[Token]):
    serializer_class = TokenSerializer
    pagination_class = NewestFirst
    permission_classes = (MayMakeTokens,)

    def get_queryset(self) -> TokenQuerySet:
        return Token.objects.filter(owner=self.request.user)

    def post(self, request: Request) -> Response:
        wanted = NamedSerializer(data=request.data)
        wanted.is_valid(raise_exception=True)
        minted = mint(request.user, wanted.validated_data)
        return Response(NewTokenSerializer(minted).data, status=status.HTTP_201_CREATED, headers=NO_STORE)


@extend_schema_view(
    get=extend_schema(
        summary=gettext_lazy("我的一个令牌"), responses={200: TokenSerializer, **describe_errors(404)}
    ),
    delete=extend_schema(
        summary=gettext_lazy("吊销一个令牌"),
        responses={204: OpenApiResponse(description=gettext_lazy("已吊销")), **describe_errors(404)},
    ),
)
class OwnToken(ApiView, generics.RetrieveDestroyAPIView[Token]):
    serializer_class = TokenSerializer
    permission_classes = (IsAuthenticated,)

    def get_queryset(self) -> TokenQuerySet:
        return Token.objects.filter(owner=self.request.user)

    def perform_destroy(self, instance: Token) -> None:
        revoke_token(token=instance)


@extend_schema_view(
    get=extend_schema(summary=gettext_lazy("正在用的令牌")),
    delete=extend_schema(summary=gettext_lazy("吊销正在用的令牌，也就是退出")),
)
class TokenInUse(OwnToken):
    def get_object(self) -> Token:
        if not isinstance(self.request.auth, Token):
            raise NotFound(_("这次请求没有用令牌"))
        return self.request.auth
