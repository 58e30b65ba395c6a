"""What labellers and moderators said of comments."""

from __future__ import annotations

from rest_framework import serializers

from blog_site.labels.models import Label, Source

from .predictions import SentimentField


class LabelSerializer(serializers.ModelSerializer[Label]):
    sentiment = SentimentField(read_only=True)
    source = serializers.ChoiceField(choices=Source.choices, read_only=True)

    class Meta:
        model = Label
        fields = ("sentiment", "source")
