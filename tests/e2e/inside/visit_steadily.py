"""Runs in a pod beside the system: asks addresses in turn, each time on a new connection, until it is ended.

Arguments: addresses; one that ends with /v1/predict is asked with a text and INFERENCE_TOKEN. Prints a JSON line for
each failure, and one with the number of good answers every other second.
"""

import json
import os
import sys
import time
import urllib.error
import urllib.request

PAUSE_SECONDS = 0.2
TIMEOUT_SECONDS = 15
TELL_EVERY_SECONDS = 2


def make_request(url):
    if not url.endswith("/v1/predict"):
        return urllib.request.Request(url)
    headers = {
        "Content-Type": "application/json",
        "Authorization": f"Bearer {os.environ.get('INFERENCE_TOKEN', '')}",
    }
    return urllib.request.Request(url, json.dumps({"texts": ["味道不错，下次还来"]}).encode(), headers)


def visit(url):
    """Ask once; gives what was wrong, empty when nothing was."""
    try:
        with urllib.request.urlopen(make_request(url), timeout=TIMEOUT_SECONDS) as answer:
            answer.read()
    except urllib.error.HTTPError as error:
        return f"{url}: {error.code} {error.read()[:200].decode(errors='replace')}"
    except OSError as error:
        return f"{url}: {type(error).__name__}: {error}"
    return ""


answered, told_at = 0, 0.0
while True:
    for address in sys.argv[1:]:
        failed = visit(address)
        if failed:
            print(json.dumps({"failed": failed, "at": time.strftime("%H:%M:%S")}), flush=True)
        else:
            answered += 1
    if answered and time.monotonic() - told_at > TELL_EVERY_SECONDS:
        print(json.dumps({"answered": answered}), flush=True)
        told_at = time.monotonic()
    time.sleep(PAUSE_SECONDS)
