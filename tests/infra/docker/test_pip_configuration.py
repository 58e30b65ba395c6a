from __future__ import annotations

import configparser
from pathlib import Path

from infra.docker.pip_configuration import local_folders, read_configuration, write_configuration

LISTING = """:env:.default-timeout='60'
global.cert='{cert}'
global.extra-index-url='https://one.example/simple https://two.example/simple'
global.index-url='https://global.example/simple'
global.constraint='/etc/constraints.txt'
install.index-url='https://install.example/simple'
:env:.user='1'
freeze.timeout='10'
"""


def test_what_says_where_packages_come_from_is_kept_and_nothing_else() -> None:
    assert read_configuration(LISTING) == {
        "default-timeout": "60",
        "cert": "{cert}",
        "extra-index-url": "https://one.example/simple https://two.example/simple",
        "index-url": "https://install.example/simple",
    }


def test_the_environment_outranks_the_files() -> None:
    listing = (
        ":env:.index-url='https://env.example/simple'\nglobal.index-url='https://global.example/simple'\n"
    )
    assert read_configuration(listing)["index-url"] == "https://env.example/simple"


def test_the_build_gets_a_configuration_that_pip_can_read_and_the_certificates_it_names(
    tmp_path: Path,
) -> None:
    certificates = tmp_path / "corporate.pem"
    certificates.write_text("PEM", encoding="utf-8")
    folder = tmp_path / "given"
    folder.mkdir()
    write_configuration(read_configuration(LISTING.replace("{cert}", str(certificates))), folder)
    written = configparser.RawConfigParser()
    written.read(folder / "pip.conf", encoding="utf-8")
    assert written["global"]["cert"] == "/run/secrets/pip-cert"
    assert written["global"]["extra-index-url"].split() == [
        "https://one.example/simple",
        "https://two.example/simple",
    ]
    assert (folder / "pip-cert").read_text(encoding="utf-8") == "PEM"


def test_without_a_configuration_pip_keeps_its_own_defaults(tmp_path: Path) -> None:
    write_configuration(read_configuration(""), tmp_path)
    assert (tmp_path / "pip.conf").read_text(encoding="utf-8").split() == ["[global]"]
    assert not (tmp_path / "pip-cert").exists()


def test_folders_of_this_machine_are_named_so_that_the_build_can_see_them(tmp_path: Path) -> None:
    wheels, index = tmp_path / "my wheels", tmp_path / "mirror" / "simple"
    wheels.mkdir()
    index.mkdir(parents=True)
    configuration = {
        "find-links": f"file://{str(wheels).replace(' ', '%20')} https://files.example/ /no/such/folder",
        "extra-index-url": index.as_uri(),
    }
    assert local_folders(configuration) == [str(index.parent), str(wheels)]
