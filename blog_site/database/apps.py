from django.apps import AppConfig


class DatabaseConfig(AppConfig):
    name = "blog_site.database"
