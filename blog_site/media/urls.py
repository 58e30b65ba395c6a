from __future__ import annotations

from django.urls import path

from . import views

app_name = "media"

urlpatterns = [
    path("images/", views.upload, name="upload"),
    path("<path:name>", views.show, name="show"),
]
