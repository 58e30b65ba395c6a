"""Making, using and revoking tokens."""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db.models import Q
from django.utils import timezone

from blog_site.users.models import User

from .models import Token

PREFIX = "hs_"  # by which a leaked token is recognised, in a log or a public repository
MAX_TOKENS = 50  # of one account, that can still be used
_USE_IS_NOTED_EVERY = timedelta(minutes=1)


class TooManyTokens(Exception):
    """An account has as many tokens as it may; one of them has to be revoked first."""

    def __init__(self) -> None:
        super().__init__(f"an account may have {MAX_TOKENS} tokens: revoke one first")


@dataclass(frozen=True)
class NewToken:
    """A token with its secret, which can be told this once."""

    token: Token
    secret: str


def make_token(*, owner: User, name: str, expires_at: datetime | None = None) -> NewToken:
    """Make a token for somebody; their expired ones go. Raises TooManyTokens."""
    owner.api_tokens.filter(expires_at__lte=timezone.now()).delete()
    if owner.api_tokens.count() >= MAX_TOKENS:
        raise TooManyTokens
    secret = PREFIX + secrets.token_urlsafe(32)
    token = Token.objects.create(
        owner=owner, name=name, digest=digest_of(secret), beginning=secret[:8], expires_at=expires_at
    )
    return NewToken(token, secret)


def digest_of(secret: str) -> str:
    """A plain hash is enough: 256 random bits are not guessed, with salt or without."""
    return hashlib.sha256(secret.encode(errors="surrogatepass")).hexdigest()


def find_token(*, secret: str) -> Token | None:
    """Find the token of a secret, expired or not, and note that it was used."""
    token = Token.objects.select_related("owner").filter(digest=digest_of(secret)).first()
    if token is not None and not token.is_expired():
        _note_use(token)
    return token


def _note_use(token: Token) -> None:
    """Write at most once a minute: a client that reads a lot must not make a write of every read."""
    now = timezone.now()
    stale = Q(last_used_at=None) | Q(last_used_at__lt=now - _USE_IS_NOTED_EVERY)
    if token.last_used_at is None or token.last_used_at < now - _USE_IS_NOTED_EVERY:
        Token.objects.filter(stale, pk=token.pk).update(last_used_at=now)


def revoke_token(*, token: Token) -> None:
    """End a token at once; twice does no harm."""
    Token.objects.filter(pk=token.pk).delete()


def revoke_tokens(*, owner: User) -> int:
    """End all tokens of an account; gives how many."""
    revoked, _by_model = Token.objects.filter(owner=owner).delete()
    return revoked
