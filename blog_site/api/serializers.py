"""What the API says of rows, and what it accepts."""

from __future__ import annotations

from typing import Any

from django.utils.translation import gettext_lazy as _
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers
from rest_framework.authtoken.serializers import AuthTokenSerializer

from blog_site.articles.models import Article, Category, Tag
from blog_site.comments.explanations import Explanation, Part
from blog_site.comments.models import Comment, Prediction, Sentiment
from blog_site.comments.text import CommentRejected, clean_comment_text
from blog_site.labels.models import Label, Source
from blog_site.labels.services import best_label
from blog_site.users.models import User


class AuthorSerializer(serializers.ModelSerializer[User]):
    class Meta:
        model = User
        fields = ("username", "display_name")


class CategorySerializer(serializers.ModelSerializer[Category]):
    class Meta:
        model = Category
        fields = ("slug", "name", "description")


class TagSerializer(serializers.ModelSerializer[Tag]):
    class Meta:
        model = Tag
        fields = ("slug", "name")


class ArticleSummarySerializer(serializers.ModelSerializer[Article]):
    author = AuthorSerializer(read_only=True)
    category = CategorySerializer(read_only=True)
    tags = TagSerializer(many=True, read_only=True)
    url = serializers.CharField(source="get_absolute_url", read_only=True)

    class Meta:
        model = Article
        fields = (
            "slug",
            "title",
            "summary",
            "author",
            "category",
            "tags",
            "published_at",
            "updated_at",
            "url",
        )


class ArticleSerializer(ArticleSummarySerializer):
    class Meta(ArticleSummarySerializer.Meta):
        fields = (*ArticleSummarySerializer.Meta.fields, "body_markdown", "body_html")


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


class LabelSerializer(serializers.ModelSerializer[Label]):
    sentiment = SentimentField(read_only=True)
    source = serializers.ChoiceField(choices=Source.choices, read_only=True)

    class Meta:
        model = Label
        fields = ("sentiment", "source")


class CommentTextField(serializers.CharField):
    """Text that `clean_comment_text` accepts; unlike DRF's field, it makes no text of a number."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(trim_whitespace=False, **kwargs)
        self.validators = []  # clean_comment_text says it all, in one set of words

    def run_validation(self, data: Any = serializers.empty) -> str:
        _is_empty, value = self.validate_empty_values(data)
        if _is_empty:
            return value
        if not isinstance(value, str):
            self.fail("invalid")
        try:
            return clean_comment_text(value)
        except CommentRejected as rejection:
            raise serializers.ValidationError(rejection.message, code=rejection.code) from rejection


class CommentSerializer(serializers.ModelSerializer[Comment]):
    article = serializers.SlugRelatedField(slug_field="slug", read_only=True)
    author = AuthorSerializer(read_only=True)
    text = CommentTextField()
    prediction = serializers.SerializerMethodField()
    label = serializers.SerializerMethodField()

    class Meta:
        model = Comment
        fields = ("id", "article", "author", "text", "created_at", "prediction", "label")
        read_only_fields = ("created_at",)

    @extend_schema_field(PredictionSerializer(allow_null=True))
    def get_prediction(self, comment: Comment) -> dict[str, Any] | None:
        prediction = comment.current_prediction()
        return None if prediction is None else PredictionSerializer(prediction).data

    @extend_schema_field(LabelSerializer(allow_null=True))
    def get_label(self, comment: Comment) -> dict[str, Any] | None:
        label = best_label(comment.present_labels)
        return None if label is None else LabelSerializer(label).data


class ExplanationPartSerializer(serializers.Serializer[Part]):
    text = serializers.CharField()
    side = serializers.SerializerMethodField(
        help_text="What the part speaks for; null where it hardly matters"
    )
    level = serializers.IntegerField(help_text="How strongly, from 1 to 3; 0 where it hardly matters")
    weight = serializers.SerializerMethodField(
        help_text="By how much the log-odds of the label fall without this part"
    )
    score_without = serializers.SerializerMethodField(
        help_text="The probability of the label without this part"
    )

    @extend_schema_field({"oneOf": [{"const": "for"}, {"const": "against"}, {"type": "null"}]})
    def get_side(self, part: Part) -> str | None:
        return part.side or None

    def get_weight(self, part: Part) -> float | None:
        return part.weight if part.side else None

    def get_score_without(self, part: Part) -> float | None:
        return part.score_without if part.side else None


class ExplanationSerializer(serializers.Serializer[Explanation]):
    model = serializers.CharField(help_text="Digest of the model that judged")
    label = SentimentField()
    score = serializers.FloatField()
    parts = ExplanationPartSerializer(many=True, help_text="In order; together the whole text")


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


class ErrorDetailSerializer(serializers.Serializer[Any]):
    code = serializers.CharField()
    message = serializers.CharField()
    fields = serializers.DictField(child=serializers.ListField(child=serializers.CharField()))  # type: ignore[assignment]


class ErrorSerializer(serializers.Serializer[Any]):
    error = ErrorDetailSerializer()
