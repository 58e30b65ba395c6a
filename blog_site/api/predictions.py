"""What models said of comments."""

from __future__ import annotations

from typing import Any

from django.db.models import F, QuerySet
from django.utils.translation import gettext_lazy as _
from drf_spectacular.utils import (
    OpenApiExample,
    extend_schema,
    extend_schema_field,
    extend_schema_serializer,
)
from rest_framework import generics, serializers

from blog_site.comments.models import Comment, Prediction, Sentiment

from .endpoint import ApiView
from .fields import QueryIntegerField, StrictStringField
from .pagination import NewestFirst
from .schema import describe_errors


# Constants instead of an enum: drf-spectacular makes a component of each enum, and warns when fields of two
# names (label, sentiment) share one.
@extend_schema_field({"type": "string", "oneOf": [{"const": value} for value in Sentiment.values]})
class SentimentField(serializers.ChoiceField):
    def __init__(self, **kwargs: Any) -> None:
        super().__init__(choices=Sentiment.choices, **kwargs)


MODEL_EXAMPLE = "5f3c0a6c5b1f0f6d3f4e3b2a19080706f5e4d3c2b1a09f8e7d6c5b4a39281706"
PREDICTION_EXAMPLE = {
    "label": "positive",
    "score": 0.94,
    "probabilities": {"negative": 0.02, "neutral": 0.04, "positive": 0.94},
    "model": MODEL_EXAMPLE,
    "latency_ms": 3.2,
}


class PredictionSerializer(serializers.ModelSerializer[Prediction]):
    label = SentimentField(read_only=True)
    probabilities = serializers.DictField(child=serializers.FloatField(), read_only=True)
    model = serializers.CharField(
        source="model_digest", read_only=True, help_text=_("作出预测的模型的摘要值")
    )

    class Meta:
        model = Prediction
        fields = ("label", "score", "probabilities", "model", "latency_ms")
        read_only_fields = fields


@extend_schema_serializer(
    examples=[
        OpenApiExample(
            "positive",
            value={
                "id": 41,
                "comment": 12,
                **PREDICTION_EXAMPLE,
                "created_at": "2026-05-01T08:31:02+08:00",
            },
        )
    ]
)
class ListedPredictionSerializer(PredictionSerializer):
    comment = serializers.IntegerField(source="comment_id", read_only=True)

    class Meta(PredictionSerializer.Meta):
        fields = ("id", "comment", *PredictionSerializer.Meta.fields, "created_at")
        read_only_fields = fields


class PredictionFilter(serializers.Serializer[Any]):
    comment = QueryIntegerField(
        required=False, min_value=1, max_value=2**63 - 1, help_text=_("某一条评论的编号")
    )
    label = SentimentField(required=False, help_text=_("只要这一类"))
    model = StrictStringField(
        required=False, max_length=64, help_text=_("只要这个模型的，用它的摘要值（64 个十六进制字符）")
    )


class PredictionView(ApiView):
    """Predictions of the present texts of those comments that the asker may read."""

    serializer_class = ListedPredictionSerializer

    def get_queryset(self) -> QuerySet[Prediction]:
        readable = Comment.objects.seen_by(self.request.user)
        return Prediction.objects.filter(comment__in=readable, text_digest=F("comment__text_digest"))


@extend_schema(
    summary=_("各个模型对评论的预测，新的在前"),
    description=_("只有读得到的评论，只有现在的文字；一条评论可能有几个模型的预测。"),
    parameters=[PredictionFilter],
    responses={200: ListedPredictionSerializer(many=True), **describe_errors(400)},
)
class PredictionList(PredictionView, generics.ListAPIView[Prediction]):
    pagination_class = NewestFirst

    def get_queryset(self) -> QuerySet[Prediction]:
        asked = self.read_filter(PredictionFilter)
        columns = {"comment": "comment_id", "label": "label", "model": "model_digest"}
        return super().get_queryset().filter(**{columns[name]: value for name, value in asked.items()})


@extend_schema(summary=_("一个预测"), responses={200: ListedPredictionSerializer, **describe_errors(404)})
class PredictionDetail(PredictionView, generics.RetrieveAPIView[Prediction]):
    pass
