from __future__ import annotations

from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [("axes", "0010_accessattemptexpiration"), ("users", "0002_moderators")]

    operations = [
        migrations.CreateModel(
            name="FailedSignIn",
            fields=[],
            options={
                "verbose_name": "登录失败记录",
                "verbose_name_plural": "登录失败记录",
                "proxy": True,
                "indexes": [],
                "constraints": [],
            },
            bases=("axes.accessattempt",),
        ),
    ]
