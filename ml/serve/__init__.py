"""The inference service: answers with the champion, and changes to a new one without dropping a request."""

from ml.serve.app import create_app
from ml.serve.settings import ServeSettings

__all__ = ["ServeSettings", "create_app"]
