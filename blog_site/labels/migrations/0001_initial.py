from __future__ import annotations

import django.db.models.deletion
from django.conf import settings
from django.db import migrations, models


class Migration(migrations.Migration):
    initial = True

    dependencies = [
        ("comments", "0001_initial"),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.CreateModel(
            name="Label",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("text_digest", models.CharField(max_length=64, verbose_name="内容摘要值")),
                (
                    "source",
                    models.CharField(
                        choices=[
                            ("lexicon", "词典"),
                            ("llm", "语言模型"),
                            ("moderator", "审核员"),
                            ("corpus", "语料"),
                        ],
                        max_length=10,
                        verbose_name="来源",
                    ),
                ),
                ("model", models.CharField(blank=True, max_length=100, verbose_name="模型")),
                ("prompt_digest", models.CharField(blank=True, max_length=64, verbose_name="提示词摘要值")),
                (
                    "sentiment",
                    models.CharField(
                        choices=[("negative", "负面"), ("neutral", "中性"), ("positive", "正面")],
                        max_length=10,
                        verbose_name="情感",
                    ),
                ),
                (
                    "intent",
                    models.CharField(
                        blank=True,
                        choices=[
                            ("praise", "称赞"),
                            ("criticism", "批评"),
                            ("question", "提问"),
                            ("suggestion", "建议"),
                            ("chat", "闲聊"),
                            ("spam", "广告或灌水"),
                        ],
                        max_length=20,
                        verbose_name="意图",
                    ),
                ),
                ("toxicity", models.FloatField(blank=True, null=True, verbose_name="攻击性")),
                ("confidence", models.FloatField(verbose_name="把握")),
                ("reason", models.CharField(blank=True, max_length=300, verbose_name="理由")),
                ("cost_tokens", models.PositiveIntegerField(default=0, verbose_name="用量（token）")),
                ("created_at", models.DateTimeField(auto_now_add=True, verbose_name="时间")),
                ("updated_at", models.DateTimeField(auto_now=True, verbose_name="更新时间")),
                (
                    "comment",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="labels",
                        to="comments.comment",
                        verbose_name="评论",
                    ),
                ),
                (
                    "moderator",
                    models.ForeignKey(
                        blank=True,
                        null=True,
                        on_delete=django.db.models.deletion.SET_NULL,
                        related_name="+",
                        to=settings.AUTH_USER_MODEL,
                        verbose_name="审核员",
                    ),
                ),
            ],
            options={
                "verbose_name": "标注",
                "verbose_name_plural": "标注",
                "constraints": [
                    models.UniqueConstraint(
                        fields=("comment", "text_digest", "source", "model", "prompt_digest"),
                        name="one_label_per_text_and_source",
                    )
                ],
            },
        ),
        migrations.CreateModel(
            name="LabelAttempt",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("text_digest", models.CharField(max_length=64, verbose_name="内容摘要值")),
                (
                    "source",
                    models.CharField(
                        choices=[
                            ("lexicon", "词典"),
                            ("llm", "语言模型"),
                            ("moderator", "审核员"),
                            ("corpus", "语料"),
                        ],
                        max_length=10,
                        verbose_name="来源",
                    ),
                ),
                ("model", models.CharField(blank=True, max_length=100, verbose_name="模型")),
                ("prompt_digest", models.CharField(blank=True, max_length=64, verbose_name="提示词摘要值")),
                ("attempts", models.PositiveSmallIntegerField(default=0, verbose_name="次数")),
                ("next_at", models.DateTimeField(blank=True, null=True, verbose_name="下次时间")),
                ("error", models.CharField(blank=True, max_length=500, verbose_name="原因")),
                ("cost_tokens", models.PositiveIntegerField(default=0, verbose_name="用量（token）")),
                (
                    "comment",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="label_attempts",
                        to="comments.comment",
                        verbose_name="评论",
                    ),
                ),
            ],
            options={
                "verbose_name": "标注尝试",
                "verbose_name_plural": "标注尝试",
                "constraints": [
                    models.UniqueConstraint(
                        fields=("comment", "text_digest", "source", "model", "prompt_digest"),
                        name="one_attempt_per_text_and_source",
                    )
                ],
            },
        ),
        migrations.CreateModel(
            name="Sample",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("key", models.CharField(max_length=80, unique=True)),
                ("text", models.TextField(verbose_name="内容")),
                ("text_digest", models.CharField(max_length=64, verbose_name="内容摘要值")),
                (
                    "label",
                    models.CharField(
                        choices=[("negative", "负面"), ("neutral", "中性"), ("positive", "正面")],
                        max_length=10,
                        verbose_name="情感",
                    ),
                ),
                (
                    "source",
                    models.CharField(
                        choices=[
                            ("lexicon", "词典"),
                            ("llm", "语言模型"),
                            ("moderator", "审核员"),
                            ("corpus", "语料"),
                        ],
                        max_length=10,
                        verbose_name="来源",
                    ),
                ),
                ("site", models.SlugField(verbose_name="站点")),
                ("split", models.CharField(max_length=10, verbose_name="用途")),
                ("created_at", models.DateTimeField(auto_now_add=True, verbose_name="时间")),
                ("changed_at", models.DateTimeField(db_index=True, verbose_name="变更时间")),
                (
                    "comment",
                    models.OneToOneField(
                        blank=True,
                        null=True,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="sample",
                        to="comments.comment",
                        verbose_name="评论",
                    ),
                ),
            ],
            options={
                "verbose_name": "样本",
                "verbose_name_plural": "样本",
                "indexes": [models.Index(fields=["site", "split"], name="labels_samp_site_60de84_idx")],
            },
        ),
    ]
