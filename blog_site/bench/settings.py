"""The blog's settings as they are, with the address of a constant beside its own."""

from blog_site.settings import *  # noqa: F403 - all of them

ROOT_URLCONF = "blog_site.bench.urls"
