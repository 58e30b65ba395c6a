from __future__ import annotations

import gzip
import hashlib
import json
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from blog_site.training.model_image import Destination, ModelDamaged, push_model_image, write_layer
from blog_site.training.registry import (
    DOCKER_INDEX,
    DOCKER_MANIFEST,
    OCI_INDEX,
    OCI_MANIFEST,
    ImageReference,
    RegistryAccess,
    RegistryClient,
    RegistryError,
)
from ml.artifact import WrittenArtifact
from tests.servers import find_free_port, find_program
from tests.training.concurrency import in_threads
from tests.training.images import extract_image, push_base, push_index, read_image
from tests.training.registry_server import BadRoad, running_registry

pytestmark = pytest.mark.once

QUICK = RegistryAccess(plain_http=True, first_pause_seconds=0.01, timeout_seconds=5, deadline_seconds=60)


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running_registry(tmp_path_factory.mktemp("registry")) as host:
        yield host


@pytest.fixture
def client(registry: str) -> Iterator[RegistryClient]:
    with RegistryClient(registry, QUICK) as opened:
        yield opened


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    return "t" + hashlib.sha256(request.node.nodeid.encode()).hexdigest()[:12]


def destination(registry: str, name: str, *, push: str = "") -> Destination:
    return Destination(
        repository=ImageReference(registry, f"{name}/model"),
        push=ImageReference(push or registry, f"{name}/model"),
        access=QUICK,
    )


def push(
    registry: str, name: str, artifact: WrittenArtifact, *, tag: str = "1", via: str = ""
) -> ImageReference:
    return push_model_image(
        base=ImageReference(registry, f"{name}/base", tag),
        destination=destination(registry, name, push=via),
        folder=artifact.path,
        digest=artifact.digest,
    )


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# -- The layer ---------------------------------------------------------------------------------------------------------


def test_a_layer_has_the_same_bytes_whenever_and_wherever_it_is_written(
    exported: tuple[WrittenArtifact, ...], tmp_path: Path
) -> None:
    copy = shutil.copytree(exported[0].path, tmp_path / "copy", copy_function=shutil.copy)  # of other dates
    (copy / "model.onnx").chmod(0o600)

    one = write_layer(exported[0].path, exported[0].digest, tmp_path / "one")
    two = write_layer(copy, exported[0].digest, tmp_path / "two")

    assert one.path.read_bytes() == two.path.read_bytes()
    assert (one.digest, one.diff_id, one.size_bytes) == (two.digest, two.diff_id, one.path.stat().st_size)
    assert write_layer(exported[1].path, exported[1].digest, tmp_path / "three").digest != one.digest


def test_a_layer_is_gzip_of_a_tar_that_belongs_to_nobody(
    exported: tuple[WrittenArtifact, ...], tmp_path: Path
) -> None:
    artifact = exported[0]
    layer = write_layer(artifact.path, artifact.digest, tmp_path / "layer")

    content = gzip.decompress(layer.path.read_bytes())
    assert layer.digest == f"sha256:{hashlib.sha256(layer.path.read_bytes()).hexdigest()}"
    assert layer.diff_id == f"sha256:{hashlib.sha256(content).hexdigest()}"
    with tarfile.open(layer.path) as tar:
        members = tar.getmembers()
        root = f"srv/model/artifacts/{artifact.digest}"
        names = [member.name for member in members]
        assert names == sorted(names)
        assert names[:4] == ["srv", "srv/model", "srv/model/artifacts", root]
        assert {(m.uid, m.gid, m.mtime, m.uname, m.gname) for m in members} == {(0, 0, 0, "", "")}
        assert {(m.isdir(), m.mode) for m in members} == {(True, 0o755), (False, 0o644)}
        tar.extractall(tmp_path / "out", filter="data")
    assert tree(tmp_path / "out" / root) == tree(artifact.path)
    assert json.loads((tmp_path / "out/srv/model/champion.json").read_bytes()) == {"digest": artifact.digest}


@pytest.mark.parametrize("damage", ["flip", "cut", "remove", "manifest"])
def test_files_that_are_not_what_the_digest_names_become_no_layer(
    damage: str, exported: tuple[WrittenArtifact, ...], tmp_path: Path
) -> None:
    folder = shutil.copytree(exported[0].path, tmp_path / "damaged")
    victim = folder / ("manifest.json" if damage == "manifest" else "model.onnx")
    content = victim.read_bytes()
    if damage == "remove":
        victim.unlink()
    else:
        victim.write_bytes(content[:-1] if damage == "cut" else content[:-1] + bytes([content[-1] ^ 1]))

    with pytest.raises(ModelDamaged, match=victim.name):
        write_layer(folder, exported[0].digest, tmp_path / "layer")


# -- The image ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("media_type", [OCI_MANIFEST, DOCKER_MANIFEST])
def test_the_image_is_the_base_and_the_model(
    media_type: str,
    registry: str,
    client: RegistryClient,
    name: str,
    exported: tuple[WrittenArtifact, ...],
    tmp_path: Path,
) -> None:
    base = push_base(client, f"{name}/base", "1", media_type=media_type)

    image = push(registry, name, exported[0])

    assert image.name() == f"{registry}/{name}/model"
    read = read_image(client, image)
    before, config = json.loads(base.content), read["config"]
    old = json.loads(client.read_document(f"{name}/base", before["config"]["digest"]))
    assert read["media_type"] == media_type
    assert read["manifest"]["layers"][:-1] == before["layers"]
    kind = "docker" if media_type == DOCKER_MANIFEST else "oci"
    assert all(kind in entry["mediaType"] for entry in read["manifest"]["layers"]), "kinds are not mixed"
    assert config["config"].pop("Labels") == {"kept": "yes", "huisheng.io/model": exported[0].digest}
    assert config["config"] == {key: value for key, value in old["config"].items() if key != "Labels"}
    assert [entry["created_by"] for entry in config["history"]] == [
        "COPY base",
        f"model {exported[0].digest}",
    ]
    if media_type == OCI_MANIFEST:
        assert read["manifest"]["annotations"] == {
            "huisheng.io/model": exported[0].digest,
            "org.opencontainers.image.base.digest": base.digest(),
        }
    else:
        assert "annotations" not in read["manifest"]
    extract_image(client, image, tmp_path / "root")
    assert (tmp_path / "root/etc/base").read_text() == "made for amd64"
    assert tree(tmp_path / "root/srv/model/artifacts" / exported[0].digest) == tree(exported[0].path)
    assert client.get_manifest(f"{name}/model", _tag(exported[0], image)).digest() == image.digest


def _tag(artifact: WrittenArtifact, image: ImageReference) -> str:
    assert image.digest is not None
    return f"model-{artifact.digest[:12]}-{image.digest.removeprefix('sha256:')[:12]}"


def test_the_same_weights_on_the_same_base_are_the_same_image_and_nothing_is_sent_again(
    registry: str, client: RegistryClient, name: str, exported: tuple[WrittenArtifact, ...]
) -> None:
    road = BadRoad(registry)
    try:
        push_base(client, f"{name}/base", "1")
        push_base(client, f"{name}/base", "the-same-by-another-name")
        first = push(registry, name, exported[0], via=road.host)
        sent = road.count("PUT", "/blobs/")

        assert push(registry, name, exported[0], via=road.host) == first
        assert push(registry, name, exported[0], tag="the-same-by-another-name", via=road.host) == first
        assert road.count("PUT", "/blobs/") == sent
        assert push(registry, name, exported[1], via=road.host) != first
        push_base(client, f"{name}/base", "2", platform="another")
        assert push(registry, name, exported[0], tag="2", via=road.host) != first
    finally:
        road.stop()


@pytest.mark.parametrize("media_type", [OCI_INDEX, DOCKER_INDEX])
def test_a_base_for_several_platforms_gives_an_image_for_each(
    media_type: str,
    registry: str,
    client: RegistryClient,
    name: str,
    exported: tuple[WrittenArtifact, ...],
    tmp_path: Path,
) -> None:
    push_index(client, f"{name}/base", "1", media_type=media_type)

    image = push(registry, name, exported[0])

    assert image.digest is not None
    index = client.get_manifest(f"{name}/model", image.digest)
    platforms = [entry["platform"]["architecture"] for entry in json.loads(index.content)["manifests"]]
    assert index.media_type == media_type
    assert platforms == ["amd64", "arm64"], "an attestation of the base says nothing of this image"
    for platform in platforms:
        extract_image(client, image, tmp_path / platform, platform=platform)
        assert (tmp_path / platform / "etc/base").read_text() == f"made for {platform}"
        assert (tmp_path / platform / "srv/model/champion.json").is_file()
    assert push(registry, name, exported[0]) == image


def test_a_base_in_another_registry_is_copied_without_the_password(
    registry: str, name: str, exported: tuple[WrittenArtifact, ...], tmp_path: Path
) -> None:
    with running_registry(tmp_path / "other") as other:
        with RegistryClient(other, QUICK) as client:
            push_base(client, "team/base", "1")
        image = push_model_image(
            base=ImageReference(other, "team/base", "1"),
            destination=destination(registry, name),
            folder=exported[0].path,
            digest=exported[0].digest,
        )
    with RegistryClient(registry, QUICK) as client:
        extract_image(client, image, tmp_path / "root")
    assert (tmp_path / "root/etc/base").is_file()


def test_a_base_is_shared_within_a_registry_and_copied_where_that_is_not_allowed(
    registry: str, client: RegistryClient, name: str, exported: tuple[WrittenArtifact, ...], tmp_path: Path
) -> None:
    base = push_base(client, f"{name}/base", "1")
    layer = json.loads(base.content)["layers"][0]["digest"]
    road = BadRoad(registry)
    try:
        push(registry, f"{name}", exported[0], via=road.host)
        assert road.count("PUT", layer) == 0
        assert road.count("POST", "mount=") == 1

        # A mount that is not possible begins an upload instead; here from a repository that is not there.
        unmounted = client.mount_blob

        def refuse(repository: str, digest: str, source: str) -> bool:
            return unmounted(repository, digest, "not/there")

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(RegistryClient, "mount_blob", lambda _, *arguments: refuse(*arguments))
            image = push_model_image(
                base=ImageReference(registry, f"{name}/base", "1"),
                destination=destination(registry, f"{name}-2", push=road.host),
                folder=exported[0].path,
                digest=exported[0].digest,
            )
        assert road.count("PUT", layer) == 1
    finally:
        road.stop()
    extract_image(client, image, tmp_path / "root")


def test_a_registry_that_fails_on_the_way_leaves_nothing_that_a_second_try_would_not_mend(
    registry: str, client: RegistryClient, name: str, exported: tuple[WrittenArtifact, ...], tmp_path: Path
) -> None:
    push_base(client, f"{name}/base", "1")
    road = BadRoad(registry)
    try:
        road.fault = lambda method, path: "500" if method == "PUT" and "/manifests/" in path else None
        with pytest.raises(RegistryError) as caught:
            push(registry, name, exported[0], via=road.host)
        assert not caught.value.permanent
        with pytest.raises(RegistryError, match="404"):
            client.get_manifest(f"{name}/model", "latest")

        road.fault = lambda method, path: None
        image = push(registry, name, exported[0], via=road.host)
    finally:
        road.stop()
    extract_image(client, image, tmp_path / "root")


def test_two_at_once_make_the_same_image(
    registry: str, client: RegistryClient, name: str, exported: tuple[WrittenArtifact, ...], tmp_path: Path
) -> None:
    push_base(client, f"{name}/base", "1")

    images = in_threads(lambda: push(registry, name, exported[0]), 2)

    assert images[0] == images[1]
    extract_image(client, images[0], tmp_path / "root")


def test_a_base_that_has_a_model_already_is_refused(
    registry: str, client: RegistryClient, name: str, exported: tuple[WrittenArtifact, ...]
) -> None:
    push_base(client, f"{name}/base", "1")
    image = push(registry, name, exported[0])

    with pytest.raises(RegistryError, match="holds the model .* already: INFERENCE_BASE_IMAGE") as caught:
        push_model_image(
            base=image,
            destination=destination(registry, name),
            folder=exported[1].path,
            digest=exported[1].digest,
        )
    assert caught.value.permanent


def test_a_base_that_is_not_there_is_named(
    registry: str, name: str, exported: tuple[WrittenArtifact, ...]
) -> None:
    with pytest.raises(RegistryError, match=f"404 when asked for {name}/base:1") as caught:
        push(registry, name, exported[0])
    assert caught.value.permanent


def test_another_tool_can_copy_the_image(
    registry: str, client: RegistryClient, name: str, exported: tuple[WrittenArtifact, ...], tmp_path: Path
) -> None:
    skopeo = find_program("skopeo")
    for tag, media_type in (("oci", OCI_MANIFEST), ("docker", DOCKER_MANIFEST)):
        push_base(client, f"{name}/base", tag, media_type=media_type)
        image = push(registry, name, exported[0], tag=tag)
        command = [skopeo, "copy", "--src-tls-verify=false", "--insecure-policy", "--quiet"]
        copied = subprocess.run(
            [*command, f"docker://{image}", f"dir:{tmp_path / tag}"],
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert copied.returncode == 0, copied.stderr
        written: dict[str, Any] = json.loads((tmp_path / tag / "manifest.json").read_bytes())
        assert len(written["layers"]) == 2


def test_a_registry_that_is_away_is_no_lasting_failure(
    registry: str, name: str, exported: tuple[WrittenArtifact, ...]
) -> None:
    with pytest.raises(RegistryError) as caught:
        push(registry, name, exported[0], via=f"127.0.0.1:{find_free_port()}")
    assert not caught.value.permanent
