"""Runs in a trainer's pod: what can be reached from there? Prints a JSON object.

Arguments: a JSON object {"connect": {name: [host, port]}, "fetch": {name: URL}, "write": [folder], "folder": path}.
A connection is "open", or the error's name; of a URL the status or the error's name is told; of the folder, its files.
"""

import json
import os
import socket
import sys
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor

SECONDS = 5


def connect(host, port):
    try:
        socket.create_connection((host, port), SECONDS).close()
    except OSError as error:
        return type(error).__name__
    return "open"


def fetch(url):
    try:
        with urllib.request.urlopen(url, timeout=SECONDS) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code
    except OSError as error:
        return type(error).__name__


def may_write(path):
    try:
        open(os.path.join(path, "written"), "w").close()
    except OSError as error:
        return type(error).__name__
    return "written"


asked = json.loads(sys.argv[1])
with ThreadPoolExecutor() as pool:  # what a policy drops is waited for in vain, all at once
    outcomes = list(pool.map(lambda address: connect(*address), asked["connect"].values()))
print(
    json.dumps(
        {
            "connect": dict(zip(asked["connect"], outcomes, strict=True)),
            "fetch": {name: fetch(url) for name, url in asked["fetch"].items()},
            "write": {path: may_write(path) for path in asked["write"]},
            "files": sorted(os.listdir(asked["folder"])),
            "api_token": os.path.exists("/var/run/secrets/kubernetes.io/serviceaccount/token"),
        }
    )
)
