"""Hand this machine's pip configuration to a build: `python pip_configuration.py FOLDER`.

Writes FOLDER/pip.conf, which a build mounts, and FOLDER/pip-cert, the certificates that it names, and prints each
folder of this machine in which pip looks for packages: the build must see those too. Runs on any Python 3.
"""

from __future__ import annotations

import ast
import configparser
import shutil
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote, urlsplit

CERTIFICATES_IN_BUILD = "/run/secrets/pip-cert"
# Of everything pip may be told, what says where packages come from.
PLACES = ("index-url", "extra-index-url", "find-links", "no-index")
KEPT = (*PLACES, "trusted-host", "proxy", "cert", "default-timeout", "timeout", "retries")
# Later ones win, as in pip. What is set for `pip install` alone counts as well.
PRECEDENCE = ("global", "install", ":env:")


def read_configuration(listing: str) -> dict[str, str]:
    """Give what `pip config list` says, each option once."""
    found: dict[str, tuple[int, str]] = {}
    for line in listing.splitlines():
        name, separator, value = line.partition("=")
        section, _, option = name.rpartition(".")
        if not separator or section not in PRECEDENCE or option not in KEPT:
            continue
        rank = PRECEDENCE.index(section)
        if option not in found or rank >= found[option][0]:
            found[option] = (rank, str(ast.literal_eval(value)))
    return {option: value for option, (_, value) in found.items()}


def local_folders(configuration: dict[str, str]) -> list[str]:
    """Give the folders of this machine that pip is sent to, by path or by file://."""
    folders = []
    for option in PLACES:
        for place in configuration.get(option, "").split():
            path = unquote(urlsplit(place).path) if place.startswith("file:") else place
            if path.startswith("/") and Path(path).is_dir():
                # An index of files links to others beside it.
                folders.append(str(Path(path).parent if place.rstrip("/").endswith("/simple") else path))
    return sorted(set(folders))


def write_configuration(configuration: dict[str, str], folder: Path) -> None:
    written = dict(configuration)
    if certificates := written.pop("cert", ""):
        shutil.copyfile(certificates, folder / "pip-cert")
        written["cert"] = CERTIFICATES_IN_BUILD
    parser = configparser.RawConfigParser()
    # A value of several lines goes on indented.
    parser["global"] = {option: "\n".join(value.split()) for option, value in written.items()}
    with (folder / "pip.conf").open("w", encoding="utf-8") as file:
        parser.write(file)


def main(folder: Path) -> None:
    command = [sys.executable, "-m", "pip", "config", "list"]
    listing = subprocess.run(command, capture_output=True, text=True, check=False)
    configuration = read_configuration(listing.stdout)  # no pip here: nothing configured
    write_configuration(configuration, folder)
    print("\n".join(local_folders(configuration)))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
