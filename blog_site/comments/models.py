"""Comments and what model versions said of them."""

from __future__ import annotations

from datetime import timedelta

from django.conf import settings
from django.contrib.auth.base_user import AbstractBaseUser
from django.contrib.auth.models import AbstractUser, AnonymousUser
from django.db import models
from django.db.models import Exists, OuterRef, Prefetch, Q
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from blog_site.articles.models import Article
from blog_site.articles.pages import comment_address


class Sentiment(models.TextChoices):
    """The label set, in the order of the model's classes (`ml.label_set.LABELS`; a test holds them equal)."""

    NEGATIVE = "negative", _("负面")
    NEUTRAL = "neutral", _("中性")
    POSITIVE = "positive", _("正面")


class CommentQuerySet(models.QuerySet["Comment"]):
    def visible(self) -> CommentQuerySet:
        return self.filter(status=Comment.Status.VISIBLE)

    def seen_by(self, user: AbstractBaseUser | AnonymousUser) -> CommentQuerySet:
        """What somebody may read: what is shown, their own, what stands under their own articles; moderators all."""
        shown = Q(status=Comment.Status.VISIBLE, article__in=Article.objects.published())
        if not user.is_authenticated:
            return self.filter(shown)
        assert isinstance(user, AbstractUser)
        if user.has_perm("comments.view_comment"):
            return self.all()
        under_own = Q(status=Comment.Status.VISIBLE, article__author=user)
        return self.filter(shown | Q(author=user) | under_own)

    def unscored(self) -> CommentQuerySet:
        """Comments whose present text no model version has seen: the outbox of `score_comment`."""
        return self.filter(
            ~Exists(Prediction.objects.filter(comment=OuterRef("pk"), text_digest=OuterRef("text_digest")))
        )

    def older_than(self, seconds: float) -> CommentQuerySet:
        return self.filter(updated_at__lte=timezone.now() - timedelta(seconds=seconds))

    def with_predictions(self) -> CommentQuerySet:
        return self.select_related("author").prefetch_related(
            Prefetch("predictions", Prediction.objects.order_by("-id"), to_attr="predictions_newest_first")
        )


class Comment(models.Model):
    class Status(models.TextChoices):
        VISIBLE = "visible", _("公开")
        HIDDEN = "hidden", _("隐藏")

    article = models.ForeignKey(
        Article, on_delete=models.CASCADE, related_name="comments", verbose_name=_("文章")
    )
    author = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="comments", verbose_name=_("作者")
    )
    text = models.TextField(_("内容"))
    text_digest = models.CharField(_("内容摘要值"), max_length=64, editable=False)  # ml.text.text_digest
    status = models.CharField(_("状态"), max_length=10, choices=Status.choices, default=Status.VISIBLE)
    created_at = models.DateTimeField(_("发表时间"), default=timezone.now)
    updated_at = models.DateTimeField(_("更新时间"), auto_now=True)

    objects = CommentQuerySet.as_manager()

    class Meta:
        verbose_name = _("评论")
        verbose_name_plural = _("评论")
        ordering = ["created_at", "id"]
        indexes = [models.Index(fields=["article", "status", "created_at"])]

    def __str__(self) -> str:
        return self.text[:40]

    def get_absolute_url(self) -> str:
        return comment_address(self.article, self.pk)

    def current_prediction(self) -> Prediction | None:
        """The newest prediction of the present text, or None while it waits."""
        fetched = getattr(self, "predictions_newest_first", None)
        predictions = self.predictions.order_by("-id") if fetched is None else fetched
        return next((p for p in predictions if p.text_digest == self.text_digest), None)


class Prediction(models.Model):
    """What one model version said of one comment text; a retry finds the row and changes nothing."""

    comment = models.ForeignKey(
        Comment, on_delete=models.CASCADE, related_name="predictions", verbose_name=_("评论")
    )
    text_digest = models.CharField(_("内容摘要值"), max_length=64)
    model_digest = models.CharField(_("模型"), max_length=64)
    label = models.CharField(_("情感"), max_length=10, choices=Sentiment.choices)
    score = models.FloatField(_("把握"))  # probability of the label, 0..1
    probabilities = models.JSONField(_("各类概率"))  # {label: probability}
    latency_ms = models.FloatField(_("耗时（毫秒）"))  # of the HTTP call that brought it
    created_at = models.DateTimeField(_("时间"), auto_now_add=True)

    class Meta:
        verbose_name = _("预测")
        verbose_name_plural = _("预测")
        constraints = [
            models.UniqueConstraint(
                fields=["comment", "text_digest", "model_digest"], name="one_prediction_per_text_and_model"
            )
        ]

    def __str__(self) -> str:
        return f"{self.label} {self.score:.2f}"
