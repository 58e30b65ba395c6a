from __future__ import annotations

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("articles", "0002_search"),
    ]

    operations = [
        migrations.AddField(
            model_name="article",
            name="comments_open",
            field=models.BooleanField(db_default=True, default=True, verbose_name="开放评论"),
        ),
        migrations.AddField(
            model_name="category",
            name="guests_may_comment",
            field=models.BooleanField(
                db_default=False,
                default=False,
                help_text="不登录也能评论；审核规则决定是否先审后发",
                verbose_name="访客可以评论",
            ),
        ),
    ]
