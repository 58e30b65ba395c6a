"""What models said of comments."""

from __future__ import annotations

from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from blog_site.comments.models import Prediction, Sentiment


# Constants instead of an enum: drf-spectacular makes a component of each enum, and warns when fields of two
# names (label, sentiment) share one.
@extend_schema_field({"type": "string", "oneOf": [{"const": value} for value in Sentiment.values]})
class SentimentField(serializers.ChoiceField):
    def __init__(self, **kwargs: Any) -> None:
        super().__init__(choices=Sentiment.choices, **kwargs)


class PredictionSerializer(serializers.ModelSerializer[Prediction]):
    label = SentimentField(read_only=True)
    probabilities = serializers.DictField(child=serializers.FloatField(), read_only=True)
    model = serializers.CharField(source="model_digest", read_only=True)

    class Meta:
        model = Prediction
        fields = ("label", "score", "probabilities", "model", "latency_ms")
