"""The inference service: answers with the champion, and changes to a new one without dropping a request.

`ml.serve.app` makes the ASGI application, `python -m ml.serve` runs it. Nothing is imported here: the process that
only starts others needs none of it.
"""
