"""docs/operations.md: each command is well formed, names what there is, and is run by somebody."""

from __future__ import annotations

import argparse
import functools
import re
import subprocess
from pathlib import Path

import pytest
from django.core.management import get_commands, load_command_class

from infra.k8s import release
from infra.k8s.make_secrets import make_secrets
from infra.k8s.rendering import Release
from tests.e2e.system import CLUSTER_SCOPED
from tests.infra.k8s.conftest import REPOSITORY, Render
from tests.infra.k8s.manifests import Manifests
from tests.operations import E2E, LOOKS, MANUAL, TEST, Command, read_operations

COMMANDS = read_operations()
CHINESE = MANUAL.with_name("operations.zh-CN.md")
NAMESPACES = {"huisheng", "huisheng-training"}
# What of a command must stand in tests/e2e, where a test does the same. {0} is what the pattern's group found.
DONE_BY_E2E = (
    (r"make (?:secrets|deploy|backups?)$", 'make("{0}"'),
    (r"make (deploy) .*", 'make("deploy"'),
    (r"make secrets (ROTATE)=.*", 'make("secrets", "ROTATE='),
    (r"make (restore) FILE=latest", 'make("restore", "FILE=latest"'),
    (r"make (e2e) .*", "def test_"),
    (r"kubectl -n huisheng exec (?:-it )?deploy/worker -- python manage\.py (createsuperuser)", '"{0}"'),
    (
        r"kubectl -n huisheng exec deploy/worker -- python manage\.py (trigger_training) .*",
        '"{0}", "--noinput"',
    ),
    (r"kubectl -n huisheng exec deploy/worker -- python manage\.py (\w+).*", 'manage("{0}"'),
    (r"kubectl apply -f (\S+)", '"apply", "-f", "{0}"'),
    (r"kubectl -n huisheng patch (hpa) web .*", '"patch", "{0}", "web"'),
    (r"kubectl -n huisheng rollout restart (\S+)", '"rollout", "restart", "{0}"'),
    (r"kubectl -n huisheng delete pod -l (\S+) --grace-period=0 --force", 'kill_pod(BLOG, "{0}")'),
    (
        r"kubectl -n huisheng-training delete pod -l app\.kubernetes\.io/name=(\w+) --grace-period=0 --force",
        'kill_pod(TRAINING, system.pods_of_run(run, "{0}"))',
    ),
)
TAKES_A_VALUE = {"-n", "-l", "-o", "-f", "-p", "-c"}


def of_kind(*kinds: str) -> list[Command]:
    return [command for command in COMMANDS if command.kind in kinds]


def named(commands: list[Command]) -> list[object]:
    return [pytest.param(command, id=f"line-{command.line}") for command in commands]


@pytest.fixture(scope="session")
def rendered(render: Render) -> Manifests:
    return render(Release(overlay="local", registry="registry:5000", tag="1.0"))


def test_the_manual_says_how_to_install_upgrade_back_up_scale_rotate_and_drill() -> None:
    headings = [line for line in MANUAL.read_text(encoding="utf-8").splitlines() if line.startswith("## ")]

    for subject in (
        "Install",
        "Upgrade without downtime",
        "Back up and restore",
        "Scale",
        "Rotate secrets",
        "Drills",
    ):
        assert f"## {subject}" in headings
    assert len(COMMANDS) > 40
    assert of_kind(LOOKS)
    assert of_kind(E2E)
    assert of_kind(TEST)


def test_both_languages_give_the_same_commands_in_as_many_sections() -> None:
    def structure(path: Path) -> list[int]:
        text = path.read_text(encoding="utf-8")
        parts = re.split(r"^## ", text, flags=re.MULTILINE)[1:]
        return [part.count("\n|") for part in parts]

    ours = [(command.kind, command.text) for command in COMMANDS]
    assert [(command.kind, command.text) for command in read_operations(CHINESE)] == ours
    assert structure(CHINESE) == structure(MANUAL)


def test_a_block_that_nobody_is_said_to_run_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# A page\n\n```sh\nls\n```\n", encoding="utf-8")

    with pytest.raises(ValueError, match="say ```sh and one of looks, e2e, test"):
        read_operations(page)


@pytest.mark.parametrize("command", named([one for one in COMMANDS if one.text.startswith("make ")]))
def test_a_target_of_make_is_there_and_reads_its_variables(command: Command) -> None:
    _make, target, *settings = command.words()
    makefile = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    read_by = {
        "images": "infra/docker/build.sh",
        "deploy": "infra/k8s/release.py",
        "manifests": "infra/k8s/release.py",
    }
    sources = makefile + (
        (REPOSITORY / read_by[target]).read_text(encoding="utf-8") if target in read_by else ""
    )

    assert re.search(rf"^(?:\w+ )*{target}(?: \w+)*:", makefile, re.MULTILINE), target
    for setting in settings:
        name, equals, _value = setting.partition("=")
        assert equals, setting
        assert re.search(rf"\b{name}\b", sources), f"nobody reads {name}"


@pytest.mark.parametrize("command", named([one for one in COMMANDS if "manage.py" in one.text]))
def test_a_command_of_the_blog_takes_these_options(command: Command) -> None:
    words = command.words()
    name, *options = words[words.index("manage.py") + 1 :]
    loaded = load_command_class(get_commands()[name], name)
    parser = loaded.create_parser("manage.py", name)

    parsed = parser.parse_args(options)

    assert isinstance(parsed, argparse.Namespace)


@pytest.mark.parametrize("command", named([one for one in COMMANDS if one.text.startswith("kubectl ")]))
def test_a_kubectl_command_is_well_formed_and_names_what_there_is(
    command: Command, rendered: Manifests, kubectl: str
) -> None:
    words = command.words()[1:]
    ours, theirs = (
        (words[: words.index("--")], words[words.index("--") + 1 :]) if "--" in words else (words, [])
    )
    if "-n" in ours:
        assert ours[ours.index("-n") + 1] in NAMESPACES
    known = {
        (kind, found["metadata"]["name"])
        for found in rendered.objects
        for kind in (
            found["kind"].lower(),
            {"Deployment": "deploy", "HorizontalPodAutoscaler": "hpa"}.get(found["kind"]),
        )
        if kind
    }
    for word in ours:
        if re.fullmatch(r"(deploy|deployment|statefulset|job)/\S+", word):
            assert tuple(word.split("/")) in known, word
    verb = verb_of(ours)
    if verb in ("patch", "describe", "get") and len(named_ones := words_after(ours, verb)) > 1:
        assert tuple(named_ones[:2]) in known, named_ones
    if "-l" in ours:
        label, _, value = ours[ours.index("-l") + 1].partition("=")
        assert label == "huisheng.io/run" or value in labelled(rendered)
    if "-f" in ours:
        assert (REPOSITORY / ours[ours.index("-f") + 1]).is_file()
    assert not theirs or theirs[0] == "python"
    assert_parses(kubectl, ours)


def verb_of(words: list[str]) -> str:
    return words_after(words, "")[0]


def words_after(words: list[str], verb: str) -> list[str]:
    """The words that are neither options nor their values, after the verb."""
    found, skip = [], False
    for word in words:
        if skip or word.startswith("-"):
            skip = not skip and word in TAKES_A_VALUE
            continue
        found.append(word)
    return found[found.index(verb) + 1 :] if verb else found


def labelled(manifests: Manifests) -> set[str]:
    """The values of the name label that pods have; those of runs are made by the launcher."""
    return {workload.labels["app.kubernetes.io/name"] for workload in manifests.workloads} | {
        "aggregator",
        "trainer",
    }


def assert_parses(kubectl: str, words: list[str]) -> None:
    """kubectl itself knows the options: with --help it reads all of them and asks no cluster."""
    done = subprocess.run([kubectl, *words, "--help"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    options = {word.partition("=")[0] for word in words if word.startswith("--")}
    shared = shared_options(kubectl)
    for option in options:
        assert re.search(rf"{option}\b", done.stdout + shared), (
            f"{option} is no option of kubectl {' '.join(words)}"
        )


@functools.cache
def shared_options(kubectl: str) -> str:
    return subprocess.run([kubectl, "options"], capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("command", named(of_kind(E2E)))
def test_what_is_said_to_be_done_on_a_cluster_is_done_there(command: Command) -> None:
    sources = "\n".join(
        path.read_text(encoding="utf-8") for path in (REPOSITORY / "tests" / "e2e").glob("*.py")
    )
    compact = re.sub(r"\s+", " ", sources).replace("( ", "(").replace(", )", ")")
    for pattern, wanted in DONE_BY_E2E:
        if found := re.fullmatch(pattern, command.text):
            group = found[1] if found.groups() else command.text.split()[1]
            assert wanted.format(group) in compact, (
                f"{command.text}: tests/e2e holds no {wanted.format(group)}"
            )
            return
    pytest.fail(f"{command.text}: DONE_BY_E2E says nothing about it")


def test_the_cluster_tests_remove_all_that_belongs_to_no_namespace(manifests: Manifests) -> None:
    theirs = {
        (found["kind"], found["metadata"]["name"])
        for found in manifests.objects
        if "namespace" not in found["metadata"]
    }

    assert theirs == {(kind, name) for kind, names in CLUSTER_SCOPED.items() for name in names}


@pytest.mark.parametrize("command", named(of_kind(LOOKS)))
def test_what_is_said_to_look_changes_nothing(command: Command) -> None:
    words = command.words()
    assert words[0] == "kubectl"
    if verb_of(words[1:]) == "exec":
        assert "training_status" in words or "urlopen" in words[-1]
    else:
        assert verb_of(words[1:]) in ("get", "describe", "logs", "rollout")
        assert "restart" not in words


@pytest.mark.parametrize(
    "command", named([one for one in of_kind(E2E, TEST) if re.match(r"make (manifests|deploy)", one.text)])
)
def test_what_is_deployed_renders(
    command: Command,
    k8s: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    variables = dict(word.split("=", 1) for word in command.words()[2:])
    monkeypatch.setattr(release, "WORK", k8s.parents[1] / "var")

    assert release.main(["manifests"], variables) == 0

    made = Manifests(capsys.readouterr().out)
    assert any(found["kind"] == "Job" for found in made.objects)
    if "TAG" in variables:
        assert any(found["metadata"]["name"] == f"migrate-{variables['TAG']}" for found in made.objects)


@pytest.mark.parametrize("command", named([one for one in of_kind(TEST) if "create secret" in one.text]))
def test_a_secret_is_made_as_pods_want_it(
    command: Command, kubectl: str, tmp_path: Path, render: Render
) -> None:
    folder = tmp_path / "infra/k8s/overlays/local/secrets"
    make_secrets(folder)
    done = subprocess.run(
        [kubectl, *command.words()[1:], "--dry-run=client", "-o", "name"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    name = done.stdout.strip().removeprefix("secret/")
    production = render(
        Release(overlay="production", registry="r.example", tag="1", components=("private-registry",))
    )
    assert name in str(production.objects), f"nothing wants {name}"


def test_the_table_of_secrets_is_what_make_secrets_writes(tmp_path: Path) -> None:
    make_secrets(tmp_path)
    text = MANUAL.read_text(encoding="utf-8")
    for file in tmp_path.glob("*.env"):
        row = re.search(rf"^\| `huisheng-{file.stem}` \| (.*) \|$", text, re.MULTILINE)
        assert row, file.stem
        keys = {line.partition("=")[0] for line in file.read_text().splitlines()}
        assert set(re.findall(r"`([A-Z_]+)`", row[1])) == keys


def test_every_other_command_of_the_tests_is_run_by_one() -> None:
    """`make images` and its sizes by the tests of infra/docker, resuming by those of training."""
    rest = [
        one
        for one in of_kind(TEST)
        if not re.match(r"make (manifests|deploy)", one.text) and "create secret" not in one.text
    ]
    run_by = {
        "make images": ("tests/infra/docker/test_build.py", "build.sh"),
        "make image-sizes": ("tests/infra/docker/test_build.py", "sizes"),
        "--resume": ("tests/training/test_trigger_training.py", "resume"),
    }
    for command in rest:
        where = [place for part, place in run_by.items() if part in command.text]
        assert where, command.text
        path, text = where[0]
        assert text in (REPOSITORY / path).read_text(encoding="utf-8"), command.text
