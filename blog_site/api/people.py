"""People as the API tells of them."""

from __future__ import annotations

from rest_framework import serializers

from blog_site.users.models import User


class AuthorSerializer(serializers.ModelSerializer[User]):
    class Meta:
        model = User
        fields = ("username", "display_name")
