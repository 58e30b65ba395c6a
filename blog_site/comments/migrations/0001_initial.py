from __future__ import annotations

import django.db.models.deletion
import django.utils.timezone
from django.conf import settings
from django.db import migrations, models


class Migration(migrations.Migration):
    initial = True

    dependencies = [
        ("articles", "0001_initial"),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.CreateModel(
            name="Comment",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("text", models.TextField(verbose_name="内容")),
                ("text_digest", models.CharField(editable=False, max_length=64, verbose_name="内容摘要值")),
                (
                    "status",
                    models.CharField(
                        choices=[("visible", "公开"), ("hidden", "隐藏")],
                        default="visible",
                        max_length=10,
                        verbose_name="状态",
                    ),
                ),
                (
                    "created_at",
                    models.DateTimeField(default=django.utils.timezone.now, verbose_name="发表时间"),
                ),
                ("updated_at", models.DateTimeField(auto_now=True, verbose_name="更新时间")),
                (
                    "article",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="comments",
                        to="articles.article",
                        verbose_name="文章",
                    ),
                ),
                (
                    "author",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="comments",
                        to=settings.AUTH_USER_MODEL,
                        verbose_name="作者",
                    ),
                ),
            ],
            options={
                "verbose_name": "评论",
                "verbose_name_plural": "评论",
                "ordering": ["created_at", "id"],
            },
        ),
        migrations.CreateModel(
            name="Prediction",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("text_digest", models.CharField(max_length=64, verbose_name="内容摘要值")),
                ("model_digest", models.CharField(max_length=64, verbose_name="模型")),
                (
                    "label",
                    models.CharField(
                        choices=[("negative", "负面"), ("neutral", "中性"), ("positive", "正面")],
                        max_length=10,
                        verbose_name="情感",
                    ),
                ),
                ("score", models.FloatField(verbose_name="把握")),
                ("probabilities", models.JSONField(verbose_name="各类概率")),
                ("latency_ms", models.FloatField(verbose_name="耗时（毫秒）")),
                ("created_at", models.DateTimeField(auto_now_add=True, verbose_name="时间")),
                (
                    "comment",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="predictions",
                        to="comments.comment",
                        verbose_name="评论",
                    ),
                ),
            ],
            options={
                "verbose_name": "预测",
                "verbose_name_plural": "预测",
            },
        ),
        migrations.AddIndex(
            model_name="comment",
            index=models.Index(
                fields=["article", "status", "created_at"], name="comments_co_article_8f5d2b_idx"
            ),
        ),
        migrations.AddConstraint(
            model_name="prediction",
            constraint=models.UniqueConstraint(
                fields=("comment", "text_digest", "model_digest"), name="one_prediction_per_text_and_model"
            ),
        ),
    ]
