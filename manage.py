#!/usr/bin/env python
"""Django's command line; `python manage.py help` lists the commands."""

from __future__ import annotations

import os
import sys


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "blog_site.settings")
    try:
        from django.core.management import execute_from_command_line
    except ImportError as error:
        advice = "Django is not installed here: run `make setup`, then .venv/bin/python manage.py …"
        raise SystemExit(f"{error}\n{advice}") from error
    execute_from_command_line(sys.argv)


if __name__ == "__main__":
    main()
