"""Pages about oneself."""

from __future__ import annotations

from django.contrib import messages
from django.contrib.auth import login
from django.contrib.auth.decorators import login_required
from django.contrib.auth.views import LoginView, LogoutView, PasswordChangeView, RedirectURLMixin
from django.contrib.messages.views import SuccessMessageMixin
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import redirect, render
from django.urls import reverse_lazy
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.generic import FormView

from .forms import ProfileForm, SignInForm, SignUpForm
from .services import UsernameTaken, sign_up_user


class SignUp(RedirectURLMixin, FormView):
    template_name = "users/sign_up.html"
    form_class = SignUpForm
    next_page = "articles:home"

    def dispatch(self, request: HttpRequest, *args: object, **kwargs: object) -> HttpResponse:
        if request.user.is_authenticated:
            # Not `redirect`, which would take an address for the name of one.
            return HttpResponseRedirect(self.get_success_url())
        return super().dispatch(request, *args, **kwargs)

    def form_valid(self, form: SignUpForm) -> HttpResponse:
        try:
            user = sign_up_user(
                username=form.cleaned_data["username"],
                password=form.cleaned_data["password1"],
                display_name=form.cleaned_data["display_name"],
            )
        except UsernameTaken:
            form.add_error("username", _("这个用户名已经有人用了，换一个吧。"))
            return self.form_invalid(form)
        login(self.request, user, backend="django.contrib.auth.backends.ModelBackend")
        messages.success(self.request, _("欢迎你，%(name)s。") % {"name": user})
        return HttpResponseRedirect(self.get_success_url())


class SignIn(LoginView):
    template_name = "users/sign_in.html"
    authentication_form = SignInForm
    redirect_authenticated_user = True


class SignOut(LogoutView):
    """Answers POST only: a link in a comment must not sign anybody out."""


class ChangePassword(SuccessMessageMixin, PasswordChangeView):
    template_name = "users/change_password.html"
    success_url = reverse_lazy("users:profile")
    success_message = gettext_lazy("密码已修改。")


@login_required
def profile(request: HttpRequest) -> HttpResponse:
    form = ProfileForm(request.POST or None, instance=request.user)
    if request.method == "POST" and form.is_valid():
        form.save()
        messages.success(request, _("资料已保存。"))
        return redirect("users:profile")
    if form.errors:
        request.user.refresh_from_db()  # the page's header must not show a name that was refused
    return render(request, "users/profile.html", {"form": form}, status=400 if form.errors else 200)
