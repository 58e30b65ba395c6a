from __future__ import annotations

import django.db.models.deletion
import django.db.models.functions.datetime
import django.utils.timezone
from django.conf import settings
from django.db import migrations, models

import blog_site.comments.deletion


class Migration(migrations.Migration):
    dependencies = [
        ("articles", "0003_comments_open"),
        ("comments", "0001_initial"),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.CreateModel(
            name="BlockedWord",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("word", models.CharField(max_length=40, unique=True, verbose_name="词")),
                (
                    "action",
                    models.CharField(
                        choices=[("hold", "先审后发"), ("spam", "算作垃圾评论")],
                        default="hold",
                        max_length=4,
                        verbose_name="做法",
                    ),
                ),
            ],
            options={
                "verbose_name": "屏蔽词",
                "verbose_name_plural": "屏蔽词",
                "ordering": ["word"],
            },
        ),
        migrations.CreateModel(
            name="Decision",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("excerpt", models.CharField(blank=True, max_length=100, verbose_name="内容摘录")),
                ("at", models.DateTimeField(default=django.utils.timezone.now, verbose_name="时间")),
                (
                    "from_status",
                    models.CharField(
                        blank=True,
                        choices=[
                            ("visible", "公开"),
                            ("pending", "待审核"),
                            ("hidden", "隐藏"),
                            ("spam", "垃圾评论"),
                            ("deleted", "已删除"),
                        ],
                        max_length=10,
                        verbose_name="原状态",
                    ),
                ),
                (
                    "to_status",
                    models.CharField(
                        choices=[
                            ("visible", "公开"),
                            ("pending", "待审核"),
                            ("hidden", "隐藏"),
                            ("spam", "垃圾评论"),
                            ("deleted", "已删除"),
                        ],
                        max_length=10,
                        verbose_name="新状态",
                    ),
                ),
                (
                    "action",
                    models.CharField(
                        choices=[
                            ("hold", "留待审核"),
                            ("approve", "通过"),
                            ("hide", "隐藏"),
                            ("mark_spam", "标为垃圾"),
                            ("restore", "恢复"),
                            ("delete", "删除"),
                        ],
                        max_length=10,
                        verbose_name="决定",
                    ),
                ),
                ("reason", models.CharField(blank=True, max_length=300, verbose_name="理由")),
            ],
            options={
                "verbose_name": "审核记录",
                "verbose_name_plural": "审核记录",
                "ordering": ["-id"],
            },
        ),
        migrations.CreateModel(
            name="Like",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("created_at", models.DateTimeField(auto_now_add=True, verbose_name="时间")),
            ],
            options={
                "verbose_name": "赞",
                "verbose_name_plural": "赞",
            },
        ),
        migrations.CreateModel(
            name="Removal",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("comment_id", models.BigIntegerField(verbose_name="评论")),
                ("at", models.DateTimeField(default=django.utils.timezone.now, verbose_name="时间")),
            ],
            options={
                "verbose_name": "撤下的评论",
                "verbose_name_plural": "撤下的评论",
            },
        ),
        migrations.CreateModel(
            name="Report",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                (
                    "reason",
                    models.CharField(
                        choices=[
                            ("spam", "广告或灌水"),
                            ("abuse", "人身攻击或辱骂"),
                            ("false", "不实信息"),
                            ("off_topic", "与文章无关"),
                            ("other", "其他"),
                        ],
                        max_length=10,
                        verbose_name="理由",
                    ),
                ),
                ("note", models.CharField(blank=True, max_length=300, verbose_name="说明")),
                ("created_at", models.DateTimeField(auto_now_add=True, verbose_name="时间")),
                ("settled_at", models.DateTimeField(blank=True, null=True, verbose_name="处理时间")),
            ],
            options={
                "verbose_name": "举报",
                "verbose_name_plural": "举报",
            },
        ),
        migrations.CreateModel(
            name="Rules",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                (
                    "hold_first_comments",
                    models.PositiveSmallIntegerField(
                        default=0, help_text="0 表示不留", verbose_name="新账号的前几条评论先审后发"
                    ),
                ),
                ("hold_links", models.BooleanField(default=True, verbose_name="带链接的评论先审后发")),
                ("hold_guests", models.BooleanField(default=True, verbose_name="访客的评论先审后发")),
            ],
            options={
                "verbose_name": "审核规则",
                "verbose_name_plural": "审核规则",
            },
        ),
        migrations.AddField(
            model_name="comment",
            name="changed_at",
            field=models.DateTimeField(
                db_default=django.db.models.functions.datetime.Now(),
                default=django.utils.timezone.now,
                editable=False,
            ),
        ),
        migrations.AddField(
            model_name="comment",
            name="constructiveness",
            field=models.FloatField(db_default=0.0, default=0.0, editable=False, verbose_name="建设性"),
        ),
        migrations.AddField(
            model_name="comment",
            name="depth",
            field=models.PositiveSmallIntegerField(
                db_default=0, default=0, editable=False, verbose_name="层级"
            ),
        ),
        migrations.AddField(
            model_name="comment",
            name="edited_at",
            field=models.DateTimeField(blank=True, editable=False, null=True, verbose_name="编辑时间"),
        ),
        migrations.AddField(
            model_name="comment",
            name="guest_name",
            field=models.CharField(
                blank=True, db_default="", default="", max_length=40, verbose_name="访客称呼"
            ),
        ),
        migrations.AddField(
            model_name="comment",
            name="like_count",
            field=models.PositiveIntegerField(db_default=0, default=0, editable=False, verbose_name="赞"),
        ),
        migrations.AddField(
            model_name="comment",
            name="parent",
            field=models.ForeignKey(
                blank=True,
                null=True,
                on_delete=blog_site.comments.deletion.keep_thread,
                related_name="replies",
                to="comments.comment",
                verbose_name="回复的评论",
            ),
        ),
        migrations.AddField(
            model_name="comment",
            name="reply_count",
            field=models.PositiveIntegerField(db_default=0, default=0, editable=False, verbose_name="回复"),
        ),
        migrations.AddField(
            model_name="comment",
            name="report_count",
            field=models.PositiveIntegerField(db_default=0, default=0, editable=False, verbose_name="举报"),
        ),
        migrations.AddField(
            model_name="comment",
            name="shown_replies",
            field=models.PositiveIntegerField(
                db_default=0, default=0, editable=False, verbose_name="显示的回复"
            ),
        ),
        migrations.AlterField(
            model_name="comment",
            name="author",
            field=models.ForeignKey(
                blank=True,
                null=True,
                on_delete=blog_site.comments.deletion.bury_comments,
                related_name="comments",
                to=settings.AUTH_USER_MODEL,
                verbose_name="作者",
            ),
        ),
        migrations.AlterField(
            model_name="comment",
            name="status",
            field=models.CharField(
                choices=[
                    ("visible", "公开"),
                    ("pending", "待审核"),
                    ("hidden", "隐藏"),
                    ("spam", "垃圾评论"),
                    ("deleted", "已删除"),
                ],
                default="visible",
                max_length=10,
                verbose_name="状态",
            ),
        ),
        migrations.AddIndex(
            model_name="comment",
            index=models.Index(
                fields=["article", "parent", "created_at", "id"], name="comments_thread_by_time"
            ),
        ),
        migrations.AddIndex(
            model_name="comment",
            index=models.Index(
                fields=["article", "parent", "constructiveness", "id"], name="comments_thread_by_worth"
            ),
        ),
        migrations.AddIndex(
            model_name="comment",
            index=models.Index(fields=["article", "changed_at"], name="comments_by_change"),
        ),
        migrations.AddIndex(
            model_name="comment",
            index=models.Index(fields=["status", "created_at"], name="comments_by_status"),
        ),
        migrations.AddField(
            model_name="decision",
            name="by",
            field=models.ForeignKey(
                blank=True,
                null=True,
                on_delete=django.db.models.deletion.SET_NULL,
                related_name="+",
                to=settings.AUTH_USER_MODEL,
                verbose_name="决定者",
            ),
        ),
        migrations.AddField(
            model_name="decision",
            name="comment",
            field=models.ForeignKey(
                blank=True,
                null=True,
                on_delete=django.db.models.deletion.SET_NULL,
                related_name="decisions",
                to="comments.comment",
                verbose_name="评论",
            ),
        ),
        migrations.AddField(
            model_name="like",
            name="comment",
            field=models.ForeignKey(
                on_delete=django.db.models.deletion.CASCADE,
                related_name="likes",
                to="comments.comment",
                verbose_name="评论",
            ),
        ),
        migrations.AddField(
            model_name="like",
            name="user",
            field=models.ForeignKey(
                on_delete=django.db.models.deletion.CASCADE,
                related_name="+",
                to=settings.AUTH_USER_MODEL,
                verbose_name="用户",
            ),
        ),
        migrations.AddField(
            model_name="removal",
            name="article",
            field=models.ForeignKey(
                on_delete=django.db.models.deletion.CASCADE,
                related_name="+",
                to="articles.article",
                verbose_name="文章",
            ),
        ),
        migrations.AddField(
            model_name="report",
            name="comment",
            field=models.ForeignKey(
                on_delete=django.db.models.deletion.CASCADE,
                related_name="reports",
                to="comments.comment",
                verbose_name="评论",
            ),
        ),
        migrations.AddField(
            model_name="report",
            name="reporter",
            field=models.ForeignKey(
                on_delete=django.db.models.deletion.CASCADE,
                related_name="+",
                to=settings.AUTH_USER_MODEL,
                verbose_name="举报人",
            ),
        ),
        migrations.AddConstraint(
            model_name="like",
            constraint=models.UniqueConstraint(fields=("comment", "user"), name="one_like_per_reader"),
        ),
        migrations.AddIndex(
            model_name="removal",
            index=models.Index(fields=["article", "at"], name="comments_removed"),
        ),
        migrations.AddConstraint(
            model_name="report",
            constraint=models.UniqueConstraint(fields=("comment", "reporter"), name="one_report_per_reader"),
        ),
    ]
