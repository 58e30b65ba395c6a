from django.apps import AppConfig
from django.core.signals import request_started

from .connections import trust_recent_connections


class DatabaseConfig(AppConfig):
    name = "blog_site.database"

    def ready(self) -> None:
        request_started.connect(trust_recent_connections)
