"""One story, told in order: the system comes up, is used, trains, changes its model, loses parts and loses nothing."""

from __future__ import annotations

import json
import os
import re
import secrets
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from blog_site.demo.browser import VisitFailed
from infra.k8s.kubectl import kubectl_program
from tests.e2e.clients import INSIDE, Traffic, steady_traffic
from tests.e2e.cluster import NotYet, say, wait_until
from tests.e2e.conftest import ROOT, Story, make
from tests.e2e.system import BLOG, PATIENCE, TRAINING, TROUBLE, Reader, System, label_of, name_of
from tests.operations import LOOKS, read_operations

SITES = 3
# Of the run in which pods are killed: long enough to be in its midst each time, on a fast cluster too.
ROUNDS = int(os.environ.get("E2E_ROUNDS", "200"))
DEPLOYMENTS = ("gateway", "web", "worker", "labeller", "beat")  # inference has no model yet
STATEFUL = ("mysql", "redis", "store")


@pytest.fixture(scope="session")
def reader(system: System) -> Reader:
    return system.sign_up()


@pytest.fixture(scope="session")
def run(system: System) -> int:
    """The first run: begun from the corpus that comes with the product."""
    system.manage("seed_demo", "--quiet", seconds=600)
    assert (
        system.manage("render_articles").strip().startswith("0 ")
    )  # what is new is rendered as this release does
    system.manage("import_samples", "--bootstrap", seconds=600)
    return system.trigger("--sites", str(SITES), "--rounds", str(ROUNDS))


@pytest.fixture
def traffic(system: System) -> Iterator[Traffic]:
    """A pod that reads and asks for predictions all the while; says what went wrong."""
    with steady_traffic(system) as asking:
        yield asking


# -- It comes up -----------------------------------------------------------------------------------------------------


def test_every_workload_comes_up(system: System, story: Story) -> None:
    for name in DEPLOYMENTS:
        system.wait_for_deployment(name, 600)
    for name in STATEFUL:
        found = system.cluster.get("statefulset", BLOG, name)
        if found is None:  # a service of somebody else's stands in for it
            continue
        assert found["status"].get("readyReplicas", 0) == found["spec"]["replicas"], name
    story.tells("up")


def test_no_pod_was_refused_or_restarted_while_coming_up(system: System, story: Story) -> None:
    story.needs("up")
    restarts = {
        f"{name_of(pod)}/{status['name']}": status["restartCount"]
        for pod in system.cluster.list("pods", BLOG)
        if label_of(pod, "app.kubernetes.io/name") != "inference"
        for status in pod["status"].get("containerStatuses", [])
        if status["restartCount"]
    }
    refused = [
        event["message"]
        for namespace in (BLOG, TRAINING)
        for event in system.cluster.list("events", namespace)
        # By Pod Security, a quota, a webhook. No FailedMount, no Failed: in a new namespace a volume may come before
        # the certificates that the cluster puts into it, and a registry may be away; both are tried again.
        if event["reason"] in ("FailedCreate", "FailedValidation")
    ]
    assert (restarts, refused) == ({}, [])


def test_the_inference_service_is_alive_and_says_that_it_has_no_model(system: System, story: Story) -> None:
    story.needs("up")
    if system.status()["champion"]:
        pytest.skip("this installation has a champion already")

    def look() -> dict[str, Any]:
        for pod in system.cluster.list("pods", BLOG, "app.kubernetes.io/name=inference"):
            status = pod["status"]
            statuses = [*status.get("initContainerStatuses", []), *status.get("containerStatuses", [])]
            if any(
                "running" in one["state"] for one in statuses
            ):  # or what fetches the first model waits for it
                return pod
        raise NotYet("no container of it runs")

    pod = wait_until("an inference pod to run", look, 300 * PATIENCE)
    ready = [status["ready"] for status in pod["status"]["containerStatuses"]]
    assert ready == [False]


def test_a_reader_signs_up_and_comments_before_there_is_a_model(
    system: System, run: int, reader: Reader, story: Story
) -> None:
    story.needs("up")
    number = reader.comment("等了两个小时，菜还是凉的，不会再来了。")

    assert reader.read(number)["text"].startswith("等了两个小时")
    system.first_comment = number
    story.tells("commented")


def test_an_operator_makes_a_superuser_who_signs_in_to_the_admin(system: System, story: Story) -> None:
    story.needs("up")
    password = secrets.token_urlsafe(16)
    name = f"operator-{secrets.token_hex(4)}"
    system.cluster.exec(
        BLOG,
        system.worker(),
        *("env", f"DJANGO_SUPERUSER_PASSWORD={password}", "python", "manage.py", "createsuperuser"),
        *("--noinput", "--username", name, "--email", f"{name}@blog.example"),
    )
    with system.visitor() as visitor:
        visitor.sign_in("/admin/login/", name, password)
        assert visitor.open("/admin/training/run/").is_success


# -- A run -----------------------------------------------------------------------------------------------------------


def test_a_run_is_one_aggregator_and_a_trainer_for_each_site(system: System, run: int, story: Story) -> None:
    system.wait_for_run(run, "training", "evaluating", "registered", "promoted", seconds=600)

    def look() -> list[dict[str, Any]]:
        jobs = system.cluster.list("jobs", TRAINING, f"huisheng.io/run=run-{run}")
        if len(jobs) < 1 + SITES:
            raise NotYet(f"{len(jobs)} Jobs")
        return jobs

    jobs = wait_until("the run's Jobs", look, 120 * PATIENCE)
    roles = [label_of(job, "app.kubernetes.io/name") for job in jobs]
    assert sorted(roles) == ["aggregator", *["trainer"] * SITES]
    sites = {label_of(job, "huisheng.io/site") for job in jobs if label_of(job, "huisheng.io/site")}
    assert len(sites) == SITES
    story.tells("training")


def test_a_trainer_reaches_the_aggregator_and_nothing_else(system: System, run: int, story: Story) -> None:
    story.needs("training")
    system.wait_for_round(run, 1, 900)
    selector = system.pods_of_run(run, "trainer")
    pods = system.cluster.running_pods(TRAINING, selector)
    assert len(pods) == SITES, "the run was over before its pods could be looked at"
    shards = f"list(RunSite.objects.filter(run={run}).values_list('shard_digest', flat=True))"
    code = f"import json; from blog_site.training.models import RunSite; print(json.dumps({shards}))"
    digests = json.loads(ask_django(system, code))
    services = {name: system.cluster.get("service", BLOG, name) for name in ("mysql", "redis", "web")}
    api = system.cluster.get("service", "default", "kubernetes")
    assert api is not None

    def address(name: str, service: dict[str, Any]) -> list[Any]:
        where = service["spec"]["clusterIP"]
        return [where if where != "None" else f"{name}.{BLOG}.svc", service["spec"]["ports"][0]["port"]]

    asked = {
        "connect": {
            **{name: address(name, service) for name, service in services.items() if service},
            "kubernetes": address("kubernetes", api),
            "store": [f"store.{BLOG}.svc", 8080],
            "aggregator": [f"run-{run}-aggregator", 9000],
        },
        "fetch": {digest: f"http://store.{BLOG}.svc:8080/shards/{digest}.jsonl" for digest in digests},
        "write": ["/data", "/srv/huisheng", "/"],
        "folder": "/data",
    }
    program = (INSIDE / "look_around.py").read_text(encoding="utf-8")

    told = json.loads(
        system.cluster.exec(TRAINING, name_of(pods[0]), "python", "-", json.dumps(asked), given=program)
    )

    assert told["connect"].pop("aggregator") == "open"
    assert told["connect"].pop("store") == "open"
    assert set(told["fetch"].values()) <= {401, 403}, "a shard can be had without its own signature"
    assert "written" not in told["write"].values()
    assert told["files"] == ["shard.jsonl", "validation.jsonl"]
    assert told["api_token"] is False
    if os.environ.get("E2E_NETWORK_POLICIES") == "0":
        pytest.skip("shards are safe; this cluster's network plugin is said not to enforce NetworkPolicies")
    open_ways = [name for name, outcome in told["connect"].items() if outcome == "open"]
    assert open_ways == [], (
        "NetworkPolicies forbid these and they are open: does the cluster's network plugin enforce policies? "
        "If it is known not to, set E2E_NETWORK_POLICIES=0."
    )


def test_a_killed_trainer_does_not_end_the_run(system: System, run: int, story: Story) -> None:
    story.needs("training")
    closed = system.wait_for_round(run, 3, 900)
    system.cluster.kill_pod(TRAINING, system.pods_of_run(run, "trainer"))

    assert system.wait_for_round(run, closed + 3, 900) >= closed + 3


def test_a_killed_aggregator_goes_on_in_the_round_it_was_in(system: System, run: int, story: Story) -> None:
    story.needs("training")
    before = system.wait_for_round(run, 8, 900)
    killed = system.cluster.kill_pod(TRAINING, system.pods_of_run(run, "aggregator"))

    def look() -> str:
        pods = system.cluster.running_pods(TRAINING, system.pods_of_run(run, "aggregator"))
        others = [name_of(pod) for pod in pods if pod["metadata"]["uid"] != killed]
        if not others:
            raise NotYet("no other pod runs")
        return others[0]

    another = wait_until("another aggregator", look, 300 * PATIENCE)
    after = system.wait_for_round(run, before + 2, 900)
    assert after >= before + 2
    assert "resuming in round" in system.cluster.kubectl("logs", another, "-n", TRAINING)


def test_the_run_ends_with_a_model_that_is_promoted(system: System, run: int, story: Story) -> None:
    story.needs("training")
    told = system.wait_for_run(run, "promoted", seconds=3600)

    assert told["rounds"] == ROUNDS
    assert told["report"]["candidate_evaluation"]["macro_f1"] > 0.5  # guessing gives a third
    assert system.status()["champion"] == told["model"]
    story.tells("promoted")


# -- Its model -------------------------------------------------------------------------------------------------------


def test_the_model_is_rolled_out_and_answers(system: System, run: int, story: Story) -> None:
    story.needs("promoted")
    champion = system.status()["champion"]
    deployment = system.wait_for_deployment("inference", 900)

    annotations = deployment["metadata"].get("annotations", {})
    if rolled_out_by_image(system):
        assert annotations["huisheng.io/model"] == champion
        assert "@sha256:" in deployment["spec"]["template"]["spec"]["containers"][0]["image"]
    answer = ask_inference(system)
    assert answer["model"] == champion
    story.tells("serving")


def rolled_out_by_image(system: System) -> bool:
    return ask_django(system, "from django.conf import settings; print(settings.MODEL_ROLLOUT)") == "image"


def ask_django(system: System, code: str, seconds: float = 180) -> str:
    """Run a program in a worker; gives the last line it prints. As an argument: the shell looks for one on its
    standard input only once, and what comes a moment later it takes for somebody who types."""
    said = system.manage("shell", "--no-imports", "-v", "0", "-c", code, seconds=seconds)
    return said.strip().splitlines()[-1]


def ask_inference(system: System) -> dict[str, Any]:
    """Ask as the worker does: through the service's name, with its token."""
    code = (
        "import json, httpx; from django.conf import settings; "
        "print(httpx.post(settings.INFERENCE_URL + '/v1/predict', json={'texts': ['很好吃']}, timeout=20, "
        "headers={'Authorization': 'Bearer ' + settings.INFERENCE_TOKEN}).raise_for_status().text)"
    )
    told: dict[str, Any] = json.loads(ask_django(system, code))
    return told


def test_the_first_comment_gets_its_prediction(system: System, reader: Reader, story: Story) -> None:
    story.needs("serving", "commented")

    assert reader.wait_for_prediction(system.first_comment, 300) in ("negative", "neutral", "positive")


def test_a_new_comment_gets_its_prediction_while_an_inference_pod_dies(
    system: System, reader: Reader, story: Story
) -> None:
    story.needs("serving")
    numbers = []
    for index in range(6):
        if index == 2:
            system.cluster.kill_pod(BLOG, "app.kubernetes.io/name=inference")
        numbers.append(reader.comment(f"第{index + 1}次来了，味道一直很稳定，老板人也好。"))

    for number in numbers:
        reader.wait_for_prediction(number, 300)
    system.wait_for_deployment("inference", 600)


def test_a_killed_database_loses_nothing(system: System, reader: Reader, story: Story) -> None:
    story.needs("up", "commented")
    if system.cluster.get("statefulset", BLOG, "mysql") is None:
        pytest.skip("this overlay uses a database that is not ours to kill")
    kept = reader.comment("数据库倒下之前写的这一条，必须还在。")
    killed = system.cluster.kill_pod(BLOG, "app.kubernetes.io/name=mysql")

    def look() -> bool:
        pods = system.cluster.running_pods(BLOG, "app.kubernetes.io/name=mysql")
        if not any(pod["metadata"]["uid"] != killed for pod in pods):
            raise NotYet("no other pod runs")
        try:
            return reader.read(kept)["text"].startswith("数据库倒下之前")
        except TROUBLE as error:
            raise NotYet(f"{type(error).__name__}: {str(error)[:120]}") from error

    wait_until("the database to be back with the comment", look, 600 * PATIENCE)
    again = reader.comment("数据库回来之后写的。")
    assert reader.read(again)["text"] == "数据库回来之后写的。"


def test_a_broken_model_is_rolled_back_and_nobody_notices(
    system: System, traffic: Traffic, story: Story
) -> None:
    story.needs("serving")
    good = system.status()["champion"]
    program = (INSIDE / "promote_broken_model.py").read_text(encoding="utf-8")
    broken = ask_django(system, program)
    assert len(broken) == 64
    say(f"promoted the broken model {broken[:12]}")

    def look() -> dict[str, Any]:
        told = system.status()
        assert ask_inference(system)["model"] == good, "the broken model answered"
        if told["champion"] == good and told["rollout"]["state"] == "failed":
            return told
        raise NotYet(f"{told['rollout']['state']} {told['rollout']['reason']}")

    told = wait_until("the rollout to be undone", look, 1200 * PATIENCE)
    version = next(model for model in told["models"] if model["digest"] == broken)
    assert version["state"] == "refused"
    assert version["reason"]
    system.wait_for_deployment("inference", 600)
    assert ask_inference(system)["model"] == good
    assert traffic.failures() == []


def test_training_again_and_rolling_back_by_hand_moves_the_model(
    system: System, traffic: Traffic, story: Story
) -> None:
    story.needs("serving")
    first = system.status()["champion"]
    second_run = system.trigger("--sites", "2", "--rounds", "20")
    told = system.wait_for_run(second_run, "promoted", "refused", seconds=1800)
    if told["state"] == "refused":  # which so short a run may earn; what follows is about the rollouts
        assert told["model"], told["reason"]
        ask_django(system, PROMOTE.format(digest=told["model"]))
    wait_for_answers_of(system, told["model"])
    assert system.status()["champion"] == told["model"] != first

    system.manage("rollback_model", seconds=900)

    assert system.status()["champion"] == first
    wait_for_answers_of(system, first)
    assert traffic.failures() == []


PROMOTE = (
    "from blog_site.training.models import ModelVersion; from blog_site.training.rollout import promote_model; "
    "promote_model(model_version=ModelVersion.objects.get(digest='{digest}'), actor='e2e'); print('promoted')"
)


def wait_for_answers_of(system: System, digest: str) -> None:
    """Wait until no rollout is under way and the service answers with this model."""

    def look() -> bool:
        told, answering = system.status(), ask_inference(system)["model"]
        if told["rollout"]["state"] == "waiting" or answering != digest:
            raise NotYet(
                f"{answering[:12]} answers; {told['rollout']['progress'] or told['rollout']['state']}"
            )
        return True

    wait_until(f"the model {digest[:12]} to answer", look, 900 * PATIENCE)


# -- What operators do, as docs/operations.md has it -----------------------------------------------------------------


def test_a_backup_brings_back_what_was_there(system: System, reader: Reader, story: Story) -> None:
    story.needs("up", "commented")
    if system.cluster.get("cronjob", BLOG, "backup") is None:
        pytest.skip("this overlay's database is backed up by somebody else")
    kept = reader.comment("备份之前写的，恢复之后还在。")
    make("backup")
    assert re.search(r"huisheng-\d{8}T\d{6}Z\.sql\.gz", make("backups")), "the list names no backup"
    later = reader.comment("备份之后写的，恢复之后就没有了。")

    make("restore", "FILE=latest", "CONFIRM=yes")

    for name in DEPLOYMENTS:
        system.wait_for_deployment(name, 600)

    def look() -> str:
        try:
            return str(reader.read(kept)["text"])
        except TROUBLE as error:
            raise NotYet(f"{type(error).__name__}: {str(error)[:120]}") from error

    assert wait_until("the comment that was backed up", look, 120 * PATIENCE).startswith("备份之前写的")
    with pytest.raises(VisitFailed, match="404"):
        reader.read(later)


def test_the_bounds_of_an_autoscaler_move_the_number_of_pods(system: System, story: Story) -> None:
    story.needs("up")
    scaler, deployment = (system.cluster.get(kind, BLOG, "web") for kind in ("hpa", "deployment"))
    assert scaler is not None
    assert deployment is not None
    wanted = deployment["spec"]["replicas"] + 1
    before = {name: scaler["spec"][name] for name in ("minReplicas", "maxReplicas")}
    set_bounds(system, {"minReplicas": wanted, "maxReplicas": max(wanted, before["maxReplicas"])})
    try:

        def look() -> bool:
            found = system.wait_for_deployment("web", 600)
            if found["spec"]["replicas"] < wanted:
                raise NotYet(f"{found['spec']['replicas']} replicas wanted")
            return True

        wait_until(f"{wanted} web pods", look, 600 * PATIENCE)
    finally:
        set_bounds(system, before)


def set_bounds(system: System, bounds: dict[str, int]) -> None:
    system.cluster.kubectl(
        "patch", "hpa", "web", "-n", BLOG, "--type=merge", "-p", json.dumps({"spec": bounds})
    )


def test_an_upgrade_fails_no_request_and_keeps_the_model(
    system: System, traffic: Traffic, story: Story
) -> None:
    story.needs("serving")
    champion, visits = system.status()["champion"], traffic.visits()
    before = pods_of(system, "web") | pods_of(system, "gateway")
    if another := os.environ.get("E2E_NEXT_TAG"):
        os.environ["TAG"] = another  # of all that is deployed from now on
        make("deploy")
    else:  # the same images with another setting: every pod that reads it is replaced as by another release
        make("deploy", f"SETTINGS={os.environ.get('SETTINGS', '')} EXPLANATIONS_PER_MINUTE=31".strip())
        system.cluster.kubectl("rollout", "restart", "deployment/gateway", "-n", BLOG)
    for name in DEPLOYMENTS:
        system.wait_for_deployment(name, 900)
    wait_for_the_champions_image(system, champion)

    assert not (pods_of(system, "web") | pods_of(system, "gateway")) & before, (
        "pods of the release before run"
    )
    assert traffic.failures() == []
    assert traffic.visits() > visits


def pods_of(system: System, name: str) -> set[str]:
    pods = system.cluster.running_pods(BLOG, f"app.kubernetes.io/name={name}")
    return {pod["metadata"]["uid"] for pod in pods}


def wait_for_the_champions_image(system: System, champion: str) -> None:
    """Wait until the worker has put the champion on the base that a release has set, and it answers."""

    def look() -> bool:
        deployment = system.cluster.get("deployment", BLOG, "inference")
        assert deployment is not None
        image = deployment["spec"]["template"]["spec"]["containers"][0]["image"]
        if rolled_out_by_image(system) and "/huisheng-model" not in image:
            raise NotYet(f"the Deployment names {image}")
        return True

    wait_until("the champion's image", look, 600 * PATIENCE)
    wait_for_answers_of(system, champion)
    system.wait_for_deployment("inference", 900)


def test_a_rotated_token_reaches_everybody_who_uses_it(system: System, reader: Reader, story: Story) -> None:
    story.needs("serving")
    if os.environ.get("OVERLAY", "") not in ("", "local", "local-registry"):
        pytest.skip("the secrets of this overlay are not those that `make secrets` writes")
    champion = system.status()["champion"]
    old = ask_django(system, "from django.conf import settings; print(settings.INFERENCE_TOKEN)")
    make("secrets", "ROTATE=INFERENCE_TOKEN SECRET_KEY")
    make("deploy")
    wait_for_the_champions_image(system, champion)

    asked = (
        "import httpx; from django.conf import settings; "
        "print(*(httpx.post(settings.INFERENCE_URL + '/v1/predict', json={'texts': ['好']}, timeout=20, "
        "headers={'Authorization': 'Bearer ' + token}).status_code for token in (settings.INFERENCE_TOKEN, '%s')))"
    )
    assert ask_django(system, asked % old) == "200 401"
    number = reader.comment("换了令牌之后写的这一条，也要有预测。")
    reader.wait_for_prediction(number, 300)


def test_every_command_that_looks_runs_as_the_manual_has_it(system: System, story: Story) -> None:
    story.needs("up")
    commands = [command for command in read_operations() if command.kind == LOOKS]
    assert commands
    kubectl_first = f"{os.path.dirname(kubectl_program())}:{os.environ['PATH']}"
    failed = []
    for command in commands:
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", command.text],
            cwd=ROOT,
            env=os.environ | {"PATH": kubectl_first},
            capture_output=True,
            text=True,
            timeout=300 * PATIENCE,
            check=False,
        )
        if done.returncode:
            failed.append(f"line {command.line}: {command.text}: {done.stderr.strip()[-300:]}")
    assert failed == []


# -- Nothing is left -------------------------------------------------------------------------------------------------


def test_an_aborted_run_leaves_no_object(system: System, story: Story) -> None:
    story.needs("up", "training")
    run = system.trigger("--sites", str(SITES), "--rounds", "200")
    system.wait_for_round(run, 1, 900)
    assert system.objects_of_run(run)

    system.manage("abort_training", str(run))

    def look() -> bool | None:
        left = system.objects_of_run(run)
        if left:
            raise NotYet(", ".join(left))
        return True

    wait_until("nothing of the run to be left", look, 300 * PATIENCE)


def test_a_finished_run_leaves_no_object(system: System, run: int, story: Story) -> None:
    story.needs("promoted")

    def look() -> bool | None:
        left = system.objects_of_run(run)
        if left:
            raise NotYet(", ".join(left))
        return True

    wait_until("nothing of the run to be left", look, 600 * PATIENCE)
