"""Tokens that stand for their owners."""

from __future__ import annotations

from typing import Any

from django.utils.translation import gettext_lazy as _
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.authtoken.models import Token
from rest_framework.authtoken.serializers import AuthTokenSerializer
from rest_framework.permissions import AllowAny
from rest_framework.request import Request
from rest_framework.response import Response

from .endpoint import ApiView, describe_errors


class CredentialsSerializer(AuthTokenSerializer):
    """A username and its password; both must be strings already."""

    def to_internal_value(self, data: Any) -> Any:
        wrong = [
            name
            for name in ("username", "password")
            if isinstance(data, dict) and not isinstance(data.get(name, ""), str)
        ]
        if wrong:
            raise serializers.ValidationError({name: [_("应为字符串")] for name in wrong})
        return super().to_internal_value(data)


class TokenSerializer(serializers.Serializer[Any]):
    token = serializers.CharField()


@extend_schema(
    summary="Exchange a username and password for a token",
    description="Send the token as `Authorization: Token <token>`.",
    auth=[],
    responses={200: TokenSerializer, **describe_errors(400, 413)},
)
class ObtainToken(ApiView):
    serializer_class = CredentialsSerializer
    authentication_classes = ()
    permission_classes = (AllowAny,)

    def post(self, request: Request) -> Response:
        credentials = self.get_serializer(data=request.data)
        credentials.is_valid(raise_exception=True)
        token, _made = Token.objects.get_or_create(user=credentials.validated_data["user"])
        return Response(TokenSerializer({"token": token.key}).data)
