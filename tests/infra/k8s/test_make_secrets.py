from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

import pytest

from infra.k8s.make_secrets import FILES, main, make_secrets, read_env


def read_all(folder: Path) -> dict[str, dict[str, str]]:
    return {name: read_env(folder / f"{name}.env") for name in FILES}


def test_secrets_are_strong_private_and_of_this_installation_alone(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    make_secrets(first)
    make_secrets(second)

    for name in FILES:
        assert (first / f"{name}.env").stat().st_mode & 0o777 == 0o600
    ours, theirs = read_all(first), read_all(second)
    chosen_by_nobody = {
        "MYSQL_DATABASE",
        "MYSQL_USER",
        "LABELLER_API_KEY",
        "REGISTRY_USERNAME",
        "REGISTRY_PASSWORD",
    }
    for name, entries in ours.items():
        for key, value in entries.items():
            if key not in chosen_by_nobody:
                assert len(value) >= 48, f"{name}: {key}"
                assert value != theirs[name][key]


def test_those_that_speak_to_each_other_know_the_same(tmp_path: Path) -> None:
    make_secrets(tmp_path)
    made = read_all(tmp_path)
    web, store = made["web"], made["store"]

    database = urlsplit(web["DATABASE_URL"])
    assert (database.username, database.password) == (
        made["mysql"]["MYSQL_USER"],
        made["mysql"]["MYSQL_PASSWORD"],
    )
    assert database.path == "/" + made["mysql"]["MYSQL_DATABASE"]
    assert made["migrate"]["DATABASE_URL"] == web["DATABASE_URL"]
    for address, number in (("REDIS_URL", "/0"), ("CELERY_BROKER_URL", "/1")):
        assert urlsplit(web[address]).password == made["redis"]["REDIS_PASSWORD"]
        assert urlsplit(web[address]).path == number
    assert web["INFERENCE_TOKEN"] == made["inference"]["INFERENCE_TOKEN"]
    assert web["ARTIFACT_STORE_TOKEN"] == store["ARTIFACT_STORE_TOKEN"]
    assert web["ARTIFACT_STORE_RUN_TOKEN"] == store["ARTIFACT_STORE_RUN_TOKEN"]
    assert web["ARTIFACT_STORE_SIGNING_KEY"] == store["ARTIFACT_STORE_SIGNING_KEY"]
    assert made["inference"]["ARTIFACT_STORE_TOKEN"] == store["ARTIFACT_STORE_READ_TOKEN"], "it only reads"
    tokens = {store[f"ARTIFACT_STORE_{name}"] for name in ("TOKEN", "RUN_TOKEN", "READ_TOKEN", "SIGNING_KEY")}
    assert len(tokens) == 4


def test_what_is_there_is_never_written_again(tmp_path: Path) -> None:
    make_secrets(tmp_path)
    before = read_all(tmp_path)
    (tmp_path / "web.env").write_text("SECRET_KEY=of mine\n")

    assert make_secrets(tmp_path) == []

    assert (tmp_path / "web.env").read_text() == "SECRET_KEY=of mine\n"
    assert read_all(tmp_path) | {"web": {}} == before | {"web": {}}


@pytest.mark.parametrize("lost", FILES)
def test_one_that_was_lost_is_made_to_fit_the_others(lost: str, tmp_path: Path) -> None:
    make_secrets(tmp_path)
    (tmp_path / f"{lost}.env").unlink()

    (made,) = make_secrets(tmp_path)

    assert made.name == f"{lost}.env"
    all_of_them = read_all(tmp_path)
    assert all_of_them["web"]["DATABASE_URL"] == all_of_them["migrate"]["DATABASE_URL"]
    assert all_of_them["mysql"]["MYSQL_PASSWORD"] in all_of_them["web"]["DATABASE_URL"]
    assert all_of_them["redis"]["REDIS_PASSWORD"] in all_of_them["web"]["REDIS_URL"]
    assert all_of_them["web"]["INFERENCE_TOKEN"] == all_of_them["inference"]["INFERENCE_TOKEN"]
    assert (
        all_of_them["inference"]["ARTIFACT_STORE_TOKEN"] == all_of_them["store"]["ARTIFACT_STORE_READ_TOKEN"]
    )
    for key in ("TOKEN", "RUN_TOKEN", "SIGNING_KEY"):
        name = f"ARTIFACT_STORE_{key}"
        assert all_of_them["web"][name] == all_of_them["store"][name]


def test_a_rotated_secret_is_another_wherever_it_stands_and_nothing_else_changes(tmp_path: Path) -> None:
    make_secrets(tmp_path)
    web = tmp_path / "web.env"
    web.write_text(web.read_text().replace("LABELLER_API_KEY=", "LABELLER_API_KEY=mine"))
    before = read_all(tmp_path)

    assert main(["--folder", str(tmp_path), "--rotate", "REDIS_PASSWORD ARTIFACT_STORE_READ_TOKEN"]) == 0

    after = read_all(tmp_path)
    changed = {(name, key) for name in FILES for key in before[name] if before[name][key] != after[name][key]}
    assert changed == {
        ("web", "REDIS_URL"),
        ("web", "CELERY_BROKER_URL"),
        ("redis", "REDIS_PASSWORD"),
        ("store", "ARTIFACT_STORE_READ_TOKEN"),
        ("inference", "ARTIFACT_STORE_TOKEN"),
    }
    assert urlsplit(after["web"]["REDIS_URL"]).password == after["redis"]["REDIS_PASSWORD"]
    assert after["inference"]["ARTIFACT_STORE_TOKEN"] == after["store"]["ARTIFACT_STORE_READ_TOKEN"]
    assert after["web"]["LABELLER_API_KEY"] == "mine"


def test_a_secret_that_is_none_is_not_rotated(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_secrets(tmp_path)
    before = read_all(tmp_path)

    with pytest.raises(SystemExit):
        main(["--folder", str(tmp_path), "--rotate", "LABELLER_API_KEY"])

    assert "LABELLER_API_KEY is no secret of" in capsys.readouterr().err
    assert read_all(tmp_path) == before
