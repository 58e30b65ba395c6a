"""What labellers and moderators said of comments."""

from __future__ import annotations

from typing import Any

from django.db.models import F, QuerySet
from django.urls import reverse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from drf_spectacular.utils import (
    OpenApiExample,
    extend_schema,
    extend_schema_serializer,
    extend_schema_view,
)
from rest_framework import generics, serializers, status
from rest_framework.exceptions import ValidationError
from rest_framework.permissions import SAFE_METHODS, IsAuthenticated
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from blog_site.comments.models import Comment
from blog_site.labels.models import Intent, Label, Source
from blog_site.labels.services import correct_labels

from .endpoint import ApiView
from .fields import DayRangeFilter, QueryBooleanField, QueryIntegerField, StrictIntegerField, begin_of, end_of
from .pagination import NewestFirst
from .people import AuthorSerializer
from .predictions import SentimentField
from .schema import describe_errors

LAST_ID = 2**63 - 1


class LabelSerializer(serializers.ModelSerializer[Label]):
    """What everybody is told: the label that counts, and whose it is."""

    sentiment = SentimentField(read_only=True)
    source = serializers.ChoiceField(choices=Source.choices, read_only=True)

    class Meta:
        model = Label
        fields = ("sentiment", "source")


LABEL_EXAMPLE = {
    "id": 9,
    "comment": 12,
    "text": "豆浆很香，油条有点凉了",
    "sentiment": "neutral",
    "source": "moderator",
    "intent": "",
    "toxicity": None,
    "confidence": 1.0,
    "reason": "",
    "model": "",
    "moderator": {"username": "moderator", "display_name": "值班编辑"},
    "of_present_text": True,
    "created_at": "2026-05-01T09:00:00+08:00",
    "updated_at": "2026-05-01T09:00:00+08:00",
}


@extend_schema_serializer(examples=[OpenApiExample("neutral", value=LABEL_EXAMPLE)])
class FullLabelSerializer(serializers.ModelSerializer[Label]):
    """What moderators are told."""

    comment = serializers.IntegerField(source="comment_id", read_only=True)
    text = serializers.CharField(
        source="comment.text", read_only=True, help_text=gettext_lazy("评论现在的文字")
    )
    sentiment = SentimentField(read_only=True)
    source = serializers.ChoiceField(choices=Source.choices, read_only=True)
    intent = serializers.ChoiceField(choices=Intent.choices, allow_blank=True, read_only=True)
    moderator = AuthorSerializer(read_only=True, allow_null=True)
    of_present_text = serializers.SerializerMethodField(
        help_text=gettext_lazy("说的是不是评论现在的文字；改过的评论要重新标注")
    )

    class Meta:
        model = Label
        fields = (
            "id",
            "comment",
            "text",
            "sentiment",
            "source",
            "intent",
            "toxicity",
            "confidence",
            "reason",
            "model",
            "moderator",
            "of_present_text",
            "created_at",
            "updated_at",
        )
        read_only_fields = fields

    def get_of_present_text(self, label: Label) -> bool:
        return label.text_digest == label.comment.text_digest


@extend_schema_serializer(examples=[OpenApiExample("neutral", value={"comment": 12, "sentiment": "neutral"})])
class CorrectionSerializer(serializers.Serializer[Any]):
    comment = StrictIntegerField(min_value=1, max_value=LAST_ID, help_text=gettext_lazy("评论的编号"))
    sentiment = SentimentField()


class LabelFilter(DayRangeFilter):
    comment = QueryIntegerField(
        required=False, min_value=1, max_value=LAST_ID, help_text=gettext_lazy("某一条评论的编号")
    )
    source = serializers.ChoiceField(
        choices=[source for source in Source.choices if source[0] != Source.CORPUS],
        required=False,
        help_text=gettext_lazy("谁标注的"),
    )
    sentiment = SentimentField(required=False, help_text=gettext_lazy("只要这一类"))
    present = QueryBooleanField(
        required=False,
        help_text=gettext_lazy("true 只要现在文字的标注，false 只要旧文字的"),
    )


class MayLabel(IsAuthenticated):
    """Moderators: the permissions that their group has."""

    def has_permission(self, request: Request, view: APIView) -> bool:
        needed = "labels.view_label" if request.method in SAFE_METHODS else "labels.add_label"
        return super().has_permission(request, view) and request.user.has_perm(needed)


class LabelView(ApiView):
    serializer_class = FullLabelSerializer
    permission_classes = (MayLabel,)

    def get_queryset(self) -> QuerySet[Label]:
        readable = Comment.objects.seen_by(self.request.user)
        return Label.objects.filter(comment__in=readable).select_related("comment", "moderator")


@extend_schema_view(
    get=extend_schema(
        summary=gettext_lazy("评论的标注，新的在前"),
        description=gettext_lazy("审核员可读。"),
        parameters=[LabelFilter],
        responses={200: FullLabelSerializer(many=True), **describe_errors(400, 403)},
    ),
    post=extend_schema(
        summary=gettext_lazy("以审核员的身份标注一条评论"),
        description=gettext_lazy("审核员的话胜过语言模型和词典；已有审核员的标注时改成这一个。"),
        request=CorrectionSerializer,
        responses={201: FullLabelSerializer},
    ),
)
class LabelList(LabelView, generics.ListAPIView[Label]):
    pagination_class = NewestFirst

    def get_queryset(self) -> QuerySet[Label]:
        asked = self.read_filter(LabelFilter)
        labels = super().get_queryset()
        for name in ("comment", "source", "sentiment"):
            if name in asked:
                labels = labels.filter(**{name: asked[name]})
        if "from" in asked:
            labels = labels.filter(created_at__gte=begin_of(asked["from"]))
        if "to" in asked:
            labels = labels.filter(created_at__lt=end_of(asked["to"]))
        if "present" not in asked:
            return labels
        of_present = {"text_digest": F("comment__text_digest")}
        return labels.filter(**of_present) if asked["present"] else labels.exclude(**of_present)

    def post(self, request: Request) -> Response:
        asked = CorrectionSerializer(data=request.data)
        asked.is_valid(raise_exception=True)
        comment, sentiment = asked.validated_data["comment"], asked.validated_data["sentiment"]
        comments = Comment.objects.seen_by(request.user).filter(pk=comment)
        if not correct_labels(comments=comments, sentiment=sentiment, moderator=request.user):
            raise ValidationError({"comment": [_("没有这条评论")]})
        label = self.labels_by_moderators().get(comment=comment)
        address = request.build_absolute_uri(reverse("api:label", args=[label.pk]))
        return Response(
            self.get_serializer(label).data, status=status.HTTP_201_CREATED, headers={"Location": address}
        )

    def labels_by_moderators(self) -> QuerySet[Label]:
        return LabelView.get_queryset(self).filter(
            source=Source.MODERATOR, text_digest=F("comment__text_digest")
        )


@extend_schema(
    summary=gettext_lazy("一个标注"), responses={200: FullLabelSerializer, **describe_errors(403, 404)}
)
class LabelDetail(LabelView, generics.RetrieveAPIView[Label]):
    pass
