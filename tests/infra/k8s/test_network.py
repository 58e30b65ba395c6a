"""The arrows between pods, computed from the NetworkPolicies, are those of the picture in docs/network.md."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import pytest

from infra.k8s.rendering import Release
from tests.infra.k8s.conftest import RENDERINGS, REPOSITORY, Render
from tests.infra.k8s.manifests import NAME, Manifests, Object

Arrow = tuple[str, str, int]  # from, to, port
OUTSIDE, DNS = "outside", "dns"
DNS_PORT = 53
DNS_SERVERS = {
    "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}},
    "podSelector": {"matchLabels": {"k8s-app": "kube-dns"}},
}
# The launcher makes these; only their labels matter here.
OF_RUNS = {"aggregator": 9000, "trainer": None}
SOLID = re.compile(r"^\s*(?P<sources>[\w &]+?)\s+-- (?P<ports>[\d, ]+) --> (?P<targets>[\w &]+?)\s*$", re.M)
DOTTED = re.compile(
    r"^\s*(?P<sources>[\w &]+?)\s+-\. (?P<ports>[\d, ]+) \.-> (?P<targets>[\w &]+?)\s*$", re.M
)


@dataclass(frozen=True)
class Pod:
    name: str
    namespace: str
    labels: Mapping[str, str]
    ports: frozenset[int]


def pods_of(manifests: Manifests) -> list[Pod]:
    found: dict[str, Pod] = {}
    for workload in manifests.workloads:
        if workload.kind == "PodTemplate":
            continue
        name = workload.labels[NAME]
        ports = {
            port["containerPort"] for container in workload.containers for port in container.get("ports", [])
        }
        before = found.get(name)
        known = before.ports if before else frozenset[int]()
        found[name] = Pod(name, workload.namespace, workload.labels, known | ports)
    for name, port in OF_RUNS.items():
        found[name] = Pod(name, "huisheng-training", {NAME: name}, frozenset([port] if port else []))
    return list(found.values())


def selects(selector: Object, labels: Mapping[str, str]) -> bool:
    if not selector.get("matchLabels", {}).items() <= labels.items():
        return False
    for wanted in selector.get("matchExpressions", []):
        assert wanted["operator"] == "In", "this test knows no other"
        if labels.get(wanted["key"]) not in wanted["values"]:
            return False
    return True


def peer_is(peer: Object, pod: Pod, own_namespace: str) -> bool:
    """Whether a peer of a policy is this pod. Addresses are never pods here: those ranges are for DNS alone."""
    if "ipBlock" in peer:
        return False
    namespaces = peer.get("namespaceSelector")
    if namespaces is None:
        if pod.namespace != own_namespace:
            return False
    elif not selects(namespaces, {"kubernetes.io/metadata.name": pod.namespace}):
        return False
    return selects(peer.get("podSelector", {}), pod.labels)


def rules(manifests: Manifests, pod: Pod, direction: str) -> list[Object] | None:
    """All rules that hold for a pod in one direction; None where no policy restricts it."""
    holding = [
        policy["spec"]
        for policy in manifests.of_kind("NetworkPolicy")
        if policy["metadata"]["namespace"] == pod.namespace
        and selects(policy["spec"]["podSelector"], pod.labels)
        and direction.capitalize() in policy["spec"]["policyTypes"]
    ]
    if not holding:
        return None
    return [rule for spec in holding for rule in spec.get(direction, [])]


def allows(found: list[Object] | None, peers: str, other: Pod, port: int, own_namespace: str) -> bool:
    if found is None:
        return True
    return any(
        ("ports" not in rule or port in {entry["port"] for entry in rule["ports"]})
        # A rule without peers is for addresses outside; it allows pods as well, if they have that port.
        and (peers not in rule or any(peer_is(peer, other, own_namespace) for peer in rule[peers]))
        for rule in found
    )


def arrows_of(manifests: Manifests) -> set[Arrow]:
    pods, arrows = pods_of(manifests), set[Arrow]()
    for source in pods:
        leaving = rules(manifests, source, "egress")
        for target in pods:
            entering = rules(manifests, target, "ingress")
            for port in target.ports:
                if allows(leaving, "to", target, port, source.namespace) and allows(
                    entering, "from", source, port, target.namespace
                ):
                    arrows.add((source.name, target.name, port))
        arrows |= outward(source, leaving)
    return arrows | inward(manifests, pods)


def outward(source: Pod, leaving: list[Object] | None) -> set[Arrow]:
    assert leaving is not None, f"{source.name} may speak to everybody"
    arrows = set[Arrow]()
    for rule in leaving:
        if "ports" not in rule:
            assert rule["to"] == [DNS_SERVERS], f"{source.name}: all ports are open of DNS alone"
            arrows.add((source.name, DNS, DNS_PORT))
            continue
        ports = {entry["port"] for entry in rule["ports"]}
        if "to" not in rule:
            arrows |= {(source.name, OUTSIDE, port) for port in ports}
        elif any("ipBlock" in peer for peer in rule["to"]):
            assert ports == {DNS_PORT}, f"{source.name}: addresses are for DNS alone"
            arrows.add((source.name, DNS, DNS_PORT))
    return arrows


def inward(manifests: Manifests, pods: Iterable[Pod]) -> set[Arrow]:
    arrows = set[Arrow]()
    for pod in pods:
        entering = rules(manifests, pod, "ingress")
        assert entering is not None, f"everybody may speak to {pod.name}"
        arrows |= {
            (OUTSIDE, pod.name, entry["port"])
            for rule in entering
            if "from" not in rule
            for entry in rule["ports"]
        }
    return arrows


def drawn(line: re.Pattern[str]) -> set[Arrow]:
    picture = (REPOSITORY / "docs" / "network.md").read_text(encoding="utf-8")
    return {
        (source.strip(), target.strip(), int(port))
        for found in line.finditer(picture)
        for source in found["sources"].split("&")
        for target in found["targets"].split("&")
        for port in found["ports"].split(",")
    }


def test_the_arrows_are_those_of_the_picture(render: Render) -> None:
    assert arrows_of(render(RENDERINGS["production"])) == drawn(SOLID)


def test_models_that_come_through_the_store_need_the_dotted_arrows_too(render: Render) -> None:
    assert drawn(DOTTED)
    assert arrows_of(render(RENDERINGS["local"])) == drawn(SOLID) | drawn(DOTTED)


def test_trainers_reach_nothing_but_the_aggregator_and_the_store(manifests: Manifests) -> None:
    reached = {target for source, target, _ in arrows_of(manifests) if source == "trainer"}
    reaching = {source for source, target, _ in arrows_of(manifests) if target == "trainer"}

    assert reached == {"aggregator", "store", DNS}
    assert reaching == set()


def test_only_the_gateway_is_reached_from_outside(manifests: Manifests) -> None:
    assert {target for source, target, _ in arrows_of(manifests) if source == OUTSIDE} == {"gateway"}


def test_pods_that_no_policy_names_are_silent(manifests: Manifests) -> None:
    for namespace in ("huisheng", "huisheng-training"):
        stranger = Pod("stranger", namespace, {NAME: "stranger"}, frozenset())
        assert rules(manifests, stranger, "ingress") == []
        assert rules(manifests, stranger, "egress") == []


def test_names_are_asked_of_the_cluster_and_not_of_the_internet(manifests: Manifests) -> None:
    for policy in manifests.of_kind("NetworkPolicy"):
        for rule in policy["spec"].get("egress", []):
            for peer in rule.get("to", []):
                if "ipBlock" in peer:
                    network = ipaddress.ip_network(peer["ipBlock"]["cidr"])
                    shared = ipaddress.ip_network("100.64.0.0/10")
                    assert network.is_private or network == shared, policy["metadata"]["name"]
                    protocols = {(entry["protocol"], entry["port"]) for entry in rule["ports"]}
                    assert protocols == {("UDP", DNS_PORT), ("TCP", DNS_PORT)}


def test_dns_is_reached_at_whatever_port_its_service_leads_to(manifests: Manifests) -> None:
    for pod in pods_of(manifests):
        leaving = rules(manifests, pod, "egress") or []
        asks = any("ipBlock" in peer for rule in leaving for peer in rule.get("to", []))
        assert asks is any(rule == {"to": [DNS_SERVERS]} for rule in leaving), pod.name


def test_managed_servers_are_reached_outside_by_those_that_reached_ours(render: Render) -> None:
    arrows = arrows_of(render(RENDERINGS["production-managed"]))

    outside = {(source, port) for source, target, port in arrows if target == OUTSIDE}
    assert {source for source, port in outside if port == 3306} == {
        "web",
        "worker",
        "labeller",
        "beat",
        "migrate",
    }
    assert {source for source, port in outside if port == 6379} == {"web", "worker", "labeller", "beat"}


@pytest.mark.parametrize(
    ("registry", "settings", "port"),
    [
        ("registry:5000", {}, 5000),
        ("registry.example", {}, 443),
        ("registry.example/team", {"REGISTRY_PLAIN_HTTP": "1"}, 80),
        ("localhost:5001", {"MODEL_IMAGE_PUSH": "kind-registry:5000/huisheng-model"}, 5000),
    ],
)
def test_the_worker_reaches_the_registry_it_pushes_to(
    registry: str, settings: dict[str, str], port: int, render: Render
) -> None:
    built = render(Release(overlay="local", registry=registry, tag="1", settings=settings))

    arrows = arrows_of(built)
    assert ("worker", OUTSIDE, port) in arrows
    assert ("worker", OUTSIDE, 5000) in arrows  # to which a Service of another port leads
