"""Labels, and the samples that accepted labels make."""

from __future__ import annotations

from django.conf import settings
from django.db import models
from django.db.models import F, Q
from django.utils.translation import gettext_lazy as _
from django.utils.translation import pgettext_lazy

from blog_site.comments.models import Comment, Sentiment


class Source(models.TextChoices):
    LEXICON = "lexicon", _("词典")
    LLM = "llm", _("语言模型")
    MODERATOR = "moderator", _("审核员")
    CORPUS = "corpus", _("语料")  # imported with its label


class Intent(models.TextChoices):
    """What a comment is for, as the language model sees it."""

    PRAISE = "praise", _("称赞")
    CRITICISM = "criticism", _("批评")
    QUESTION = "question", _("提问")
    SUGGESTION = "suggestion", _("建议")
    CHAT = "chat", _("闲聊")
    SPAM = "spam", _("广告或灌水")


# Whose word counts when several spoke of the same text: the higher rank.
SOURCE_RANK = {Source.LEXICON: 0, Source.LLM: 1, Source.MODERATOR: 2}


# How many times a sample stands in a training shard. What a blog's own moderators say is scarce, and is about the
# comments that the model is for: counted like a review of an imported corpus, thousands of those would drown it.
MODERATOR_WEIGHT = 6


# Comments from which nothing is learnt. What waits for a moderator, or was hidden, is somebody's word all the same.
NEVER_SAMPLES = (Comment.Status.SPAM, Comment.Status.DELETED)


class LabelQuerySet(models.QuerySet["Label"]):
    def of_present_text(self) -> LabelQuerySet:
        return self.filter(text_digest=F("comment__text_digest"))


class Label(models.Model):
    """What one source said of one comment text."""

    comment = models.ForeignKey(
        Comment, on_delete=models.CASCADE, related_name="labels", verbose_name=pgettext_lazy("one", "评论")
    )
    text_digest = models.CharField(_("内容摘要值"), max_length=64)
    source = models.CharField(_("来源"), max_length=10, choices=Source.choices)
    model = models.CharField(
        _("模型"), max_length=100, blank=True
    )  # e.g. "snownlp-0.12.3"; empty for a moderator
    prompt_digest = models.CharField(_("提示词摘要值"), max_length=64, blank=True)
    sentiment = models.CharField(_("情感"), max_length=10, choices=Sentiment.choices)
    intent = models.CharField(_("意图"), max_length=20, choices=Intent.choices, blank=True)
    toxicity = models.FloatField(_("攻击性"), null=True, blank=True)  # 0..1
    confidence = models.FloatField(_("把握"))  # 0..1
    reason = models.CharField(_("理由"), max_length=300, blank=True)
    cost_tokens = models.PositiveIntegerField(_("用量（token）"), default=0)
    moderator = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        null=True,
        blank=True,
        on_delete=models.SET_NULL,
        related_name="+",
        verbose_name=_("审核员"),
    )
    created_at = models.DateTimeField(_("时间"), auto_now_add=True)
    updated_at = models.DateTimeField(_("更新时间"), auto_now=True)

    objects = LabelQuerySet.as_manager()

    class Meta:
        verbose_name = _("标注")
        verbose_name_plural = pgettext_lazy("list", "标注")
        constraints = [
            models.UniqueConstraint(
                fields=["comment", "text_digest", "source", "model", "prompt_digest"],
                name="one_label_per_text_and_source",
            )
        ]
        indexes = [models.Index(fields=["source", "comment"], name="labels_by_source")]  # moderators' are few

    def __str__(self) -> str:
        return f"{self.get_source_display()}：{self.get_sentiment_display()}"

    def rank(self) -> tuple[int, int]:
        """The greater of two labels of one text counts: the better source, then the newer word."""
        return SOURCE_RANK[Source(self.source)], self.pk

    def is_acceptable(self) -> bool:
        """Say whether the label may teach: a moderator's always, another when it is sure enough."""
        return self.source == Source.MODERATOR or self.confidence >= settings.LABEL_MIN_CONFIDENCE

    def weight(self) -> int:
        """How many times its sample stands in a training shard."""
        return MODERATOR_WEIGHT if self.source == Source.MODERATOR else 1


class LabelAttempt(models.Model):
    """A process's claim on asking a labeller about a text and, after a useless answer, when to ask again.

    It exists so that a text is paid for once: overlapping sweeps and nudges see the claim, and a text that
    the labeller cannot answer is not asked about at every sweep. A successful attempt leaves a Label instead.
    """

    comment = models.ForeignKey(
        Comment,
        on_delete=models.CASCADE,
        related_name="label_attempts",
        verbose_name=pgettext_lazy("one", "评论"),
    )
    text_digest = models.CharField(_("内容摘要值"), max_length=64)
    source = models.CharField(_("来源"), max_length=10, choices=Source.choices)
    model = models.CharField(_("模型"), max_length=100, blank=True)
    prompt_digest = models.CharField(_("提示词摘要值"), max_length=64, blank=True)
    attempts = models.PositiveSmallIntegerField(_("次数"), default=0)  # useless answers so far
    next_at = models.DateTimeField(
        _("下次时间"), null=True, blank=True
    )  # null: given up, a moderator has to decide
    error = models.CharField(_("原因"), max_length=500, blank=True)
    cost_tokens = models.PositiveIntegerField(_("用量（token）"), default=0)  # paid for useless answers

    class Meta:
        verbose_name = _("标注尝试")
        verbose_name_plural = pgettext_lazy("list", "标注尝试")
        constraints = [
            models.UniqueConstraint(
                fields=["comment", "text_digest", "source", "model", "prompt_digest"],
                name="one_attempt_per_text_and_source",
            )
        ]

    def __str__(self) -> str:
        return f"{self.get_source_display()} × {self.attempts}"


class SampleQuerySet(models.QuerySet["Sample"]):
    def of_site(self, site: str) -> SampleQuerySet:
        return self.filter(site=site)

    def of_split(self, split: str) -> SampleQuerySet:
        return self.filter(split=split)

    def strayed(self) -> SampleQuerySet:
        """Samples whose comment now has another text, or teaches no longer, or whose article has another category."""
        in_place = Q(text_digest=F("comment__text_digest"), site=F("comment__article__category__slug"))
        return self.filter(comment__isnull=False).exclude(in_place & ~Q(comment__status__in=NEVER_SAMPLES))


class Sample(models.Model):
    """A text with its accepted label, owned by exactly one site. Deleting the comment deletes it."""

    key = models.CharField(max_length=80, unique=True)  # "comment:<id>" or "corpus:<text digest>"
    comment = models.OneToOneField(
        Comment,
        null=True,
        blank=True,
        on_delete=models.CASCADE,
        related_name="sample",
        verbose_name=pgettext_lazy("one", "评论"),
    )
    text = models.TextField(_("内容"))
    text_digest = models.CharField(_("内容摘要值"), max_length=64)
    label = models.CharField(_("情感"), max_length=10, choices=Sentiment.choices)
    source = models.CharField(_("来源"), max_length=10, choices=Source.choices)
    site = models.SlugField(
        _("站点")
    )  # training.Site.slug; a plain value, because labels know nothing of training
    split = models.CharField(_("用途"), max_length=10)  # ml.text.split_of: train | validation | test
    # How many times it stands in a training shard; held out it counts once.
    weight = models.PositiveSmallIntegerField(_("权重"), default=1, db_default=1)
    created_at = models.DateTimeField(_("时间"), auto_now_add=True)
    # Set only when text or label change (labels.services): what "new since the last run" counts.
    changed_at = models.DateTimeField(_("变更时间"), db_index=True)

    objects = SampleQuerySet.as_manager()

    class Meta:
        verbose_name = _("样本")
        verbose_name_plural = _("样本")
        indexes = [models.Index(fields=["site", "split"])]

    def __str__(self) -> str:
        return self.text[:40]
