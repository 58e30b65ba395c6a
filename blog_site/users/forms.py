"""Forms about oneself: signing up, signing in, the profile."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib.auth.forms import AuthenticationForm, BaseUserCreationForm
from django.utils.translation import gettext_lazy as _

from .models import User
from .names import clean_name


class SignUpForm(BaseUserCreationForm):
    """Whether the name is free is for `sign_up_user` to say: only it can say so without a race."""

    class Meta(BaseUserCreationForm.Meta):
        model = User
        fields = ("username", "display_name")
        help_texts = {
            "username": _("用来登录，也出现在你的主页地址里。可以用汉字、字母、数字和 @ . + - _"),
            "display_name": _("别人看到的名字，可以不填，以后也能改。"),
        }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["username"].widget.attrs.update(autocomplete="username", autocapitalize="none")
        self.fields["display_name"].widget.attrs.update(autocomplete="nickname")

    def clean_display_name(self) -> str:
        return clean_name(self.cleaned_data["display_name"])

    def validate_unique(self) -> None:
        """Say nothing here: `sign_up_user` raises UsernameTaken."""


class SignInForm(AuthenticationForm):
    error_messages = {
        "invalid_login": _("用户名或密码不对。密码区分大小写。"),
        "inactive": _("这个账号已停用。"),
    }


class ProfileForm(forms.ModelForm):
    class Meta:
        model = User
        fields = ("display_name", "bio")
        widgets = {"bio": forms.Textarea(attrs={"rows": 3})}
        help_texts = {
            "display_name": _("不填就显示用户名。"),
            "bio": _("一两句话，出现在你的作者页上，最多 200 字。"),
        }

    def clean_display_name(self) -> str:
        return clean_name(self.cleaned_data["display_name"])
