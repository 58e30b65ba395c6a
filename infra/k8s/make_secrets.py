"""Writes the secrets of the overlay `local`, random and strong, into files that git ignores: `make secrets`.

A file that is there stays as it is: its values go into the others, so that one which was removed can be made again.
`make secrets ROTATE="INFERENCE_TOKEN …"` gives a secret another value in every file that it stands in.
"""

from __future__ import annotations

import argparse
import os
import re
import secrets
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

FOLDER = Path(__file__).parent / "overlays" / "local" / "secrets"
Values = Mapping[str, str]

# Hexadecimal: these stand in addresses and in configuration files, where other characters would have to be escaped.
RANDOM: Mapping[str, Callable[[], str]] = {
    "SECRET_KEY": lambda: secrets.token_urlsafe(64),
    "MYSQL_PASSWORD": lambda: secrets.token_hex(24),
    "MYSQL_ROOT_PASSWORD": lambda: secrets.token_hex(24),
    "REDIS_PASSWORD": lambda: secrets.token_hex(24),
    "INFERENCE_TOKEN": lambda: secrets.token_hex(32),
    "ARTIFACT_STORE_TOKEN": lambda: secrets.token_hex(32),
    "ARTIFACT_STORE_RUN_TOKEN": lambda: secrets.token_hex(32),
    "ARTIFACT_STORE_READ_TOKEN": lambda: secrets.token_hex(32),
    "ARTIFACT_STORE_SIGNING_KEY": lambda: secrets.token_hex(32),
}


def web(values: Values) -> dict[str, str]:
    redis = f"redis://:{values['REDIS_PASSWORD']}@redis:6379"
    return {
        "SECRET_KEY": values["SECRET_KEY"],
        "DATABASE_URL": database_url(values),
        "REDIS_URL": f"{redis}/0",
        "CELERY_BROKER_URL": f"{redis}/1",
        "INFERENCE_TOKEN": values["INFERENCE_TOKEN"],
        "ARTIFACT_STORE_TOKEN": values["ARTIFACT_STORE_TOKEN"],
        "ARTIFACT_STORE_RUN_TOKEN": values["ARTIFACT_STORE_RUN_TOKEN"],
        "ARTIFACT_STORE_SIGNING_KEY": values["ARTIFACT_STORE_SIGNING_KEY"],
        # Yours to fill in, where a language model labels and where the registry wants a name.
        "LABELLER_API_KEY": "",
        "REGISTRY_USERNAME": "",
        "REGISTRY_PASSWORD": "",
    }


def migrate(values: Values) -> dict[str, str]:
    return {"SECRET_KEY": values["SECRET_KEY"], "DATABASE_URL": database_url(values)}


def inference(values: Values) -> dict[str, str]:
    return {
        "INFERENCE_TOKEN": values["INFERENCE_TOKEN"],
        "ARTIFACT_STORE_TOKEN": values["ARTIFACT_STORE_READ_TOKEN"],  # it reads, and only what it serves
    }


def store(values: Values) -> dict[str, str]:
    names = [
        "ARTIFACT_STORE_TOKEN",
        "ARTIFACT_STORE_RUN_TOKEN",
        "ARTIFACT_STORE_READ_TOKEN",
        "ARTIFACT_STORE_SIGNING_KEY",
    ]
    return {name: values[name] for name in names}


def mysql(values: Values) -> dict[str, str]:
    return {
        "MYSQL_DATABASE": "huisheng",
        "MYSQL_USER": "huisheng",
        "MYSQL_PASSWORD": values["MYSQL_PASSWORD"],
        "MYSQL_ROOT_PASSWORD": values["MYSQL_ROOT_PASSWORD"],
    }


def redis(values: Values) -> dict[str, str]:
    return {"REDIS_PASSWORD": values["REDIS_PASSWORD"]}


def database_url(values: Values) -> str:
    return f"mysql://huisheng:{values['MYSQL_PASSWORD']}@mysql:3306/huisheng"


FILES: Mapping[str, Callable[[Values], dict[str, str]]] = {
    "web": web,
    "migrate": migrate,
    "inference": inference,
    "store": store,
    "mysql": mysql,
    "redis": redis,
}


def make_secrets(folder: Path) -> list[Path]:
    """Write each file that is missing, readable by its owner alone, and give those."""
    folder.mkdir(parents=True, exist_ok=True)
    given = {name: read_env(path) for name in FILES if (path := folder / f"{name}.env").exists()}  # by file
    values = {name: make() for name, make in RANDOM.items()} | known_values(given)
    made = []
    for name, fill in FILES.items():
        if name not in given:
            made.append(folder / f"{name}.env")
            write_private(made[-1], "".join(f"{key}={value}\n" for key, value in fill(values).items()))
    return made


def rotate_secrets(folder: Path, names: Sequence[str]) -> list[Path]:
    """Give each secret another value wherever it stands, also within an address; gives the files that changed.

    Raises ValueError for a name that none has.
    """
    texts = {
        name: path.read_text(encoding="utf-8") for name in FILES if (path := folder / f"{name}.env").exists()
    }
    known = known_values({name: read_env(folder / f"{name}.env") for name in texts})
    changed = dict(texts)
    for secret in names:
        if secret not in known:
            raise ValueError(
                f"{secret} is no secret of {os.path.relpath(folder)}: there are {', '.join(RANDOM)}"
            )
        value = RANDOM[secret]()
        changed = {name: text.replace(known[secret], value) for name, text in changed.items()}
    paths = [folder / f"{name}.env" for name, text in changed.items() if text != texts[name]]
    for path in paths:
        write_private(path, changed[path.stem])
    return paths


def known_values(given: Mapping[str, Values]) -> dict[str, str]:
    """Collect from the files there are what the missing ones must agree with."""
    known: dict[str, str] = {}
    for name, entries in given.items():
        if name == "inference":
            entries = {
                "INFERENCE_TOKEN": entries.get("INFERENCE_TOKEN", ""),
                "ARTIFACT_STORE_READ_TOKEN": entries.get("ARTIFACT_STORE_TOKEN", ""),
            }
        known |= {key: value for key, value in entries.items() if key in RANDOM and value}
        for key, address in (("MYSQL_PASSWORD", "DATABASE_URL"), ("REDIS_PASSWORD", "REDIS_URL")):
            if found := re.match(r"\w+://\w*:([^@]+)@", entries.get(address, "")):
                known.setdefault(key, found[1])
    return known


def read_env(path: Path) -> dict[str, str]:
    lines = (line.strip() for line in path.read_text(encoding="utf-8").splitlines())
    pairs = (line.partition("=") for line in lines if "=" in line and not line.startswith("#"))
    return {name.strip(): value.strip() for name, _, value in pairs}


def write_private(path: Path, text: str) -> None:
    """Write a file that nobody else can read at any moment, and that is there as a whole or not at all."""
    unfinished = path.with_name(f".{path.name}.unfinished")
    unfinished.unlink(missing_ok=True)
    with os.fdopen(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    os.rename(unfinished, path)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=FOLDER, help="default: %(default)s")
    parser.add_argument("--rotate", default="", metavar="NAMES", help="secrets that get another value")
    options = parser.parse_args(arguments)
    made = make_secrets(options.folder)
    for path in made:
        print(f"made {os.path.relpath(path)}")
    if names := options.rotate.split():
        try:
            rotated = rotate_secrets(options.folder, names)
        except ValueError as error:
            parser.error(str(error))
        for path in rotated:
            print(f"rotated {' '.join(names)} in {os.path.relpath(path)}")
        return 0
    kept = len(FILES) - len(made)
    if kept:
        print(
            f"{kept} kept as they are in {os.path.relpath(options.folder)}; remove one to have it made again"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
