"""What schemas do not see: that the objects of a release fit together and keep their promises."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.deploy.helm_tool import Helm, value_sets
from tests.deploy.objects import (
    Manifest,
    containers,
    matching_pods,
    of_kind,
    parse_quantity,
    pod_templates,
    port_names,
    quantities,
    server_pod,
)


def test_names_are_unique(manifests: list[Manifest]) -> None:
    names = [(item["kind"], item["metadata"]["name"]) for item in manifests]
    assert len(names) == len(set(names))


def test_the_longest_names_fit_into_labels(helm: Helm) -> None:
    settings = f"fullnameOverride={35 * 'a'},loadtest.run={10 * 'b'},training.run={10 * 'b'}"
    for item in helm.manifests("--values", value_sets()["everything"], "--set", settings):
        indexed = item["spec"].get("completionMode") == "Indexed" if "spec" in item else False
        longest = item["metadata"]["name"] + ("-999" if indexed else "")
        assert len(longest) <= 63, longest


def test_every_selector_matches_pods(manifests: list[Manifest]) -> None:
    selectors = {item["metadata"]["name"]: item["spec"]["selector"] for item in of_kind(manifests, "Service")}
    for item in of_kind(manifests, "Deployment", "PodDisruptionBudget", "PodMonitor"):
        selectors[f"{item['kind']}/{item['metadata']['name']}"] = item["spec"]["selector"]["matchLabels"]
    for item in of_kind(manifests, "NetworkPolicy"):
        selectors[f"NetworkPolicy/{item['metadata']['name']}"] = item["spec"]["podSelector"]["matchLabels"]
    for where, selector in selectors.items():
        assert matching_pods(manifests, selector), f"{where} selects nothing with {selector}"


def test_no_service_of_the_server_selects_jobs(manifests: list[Manifest]) -> None:
    server = server_pod(manifests)
    for item in of_kind(manifests, "Service"):
        pods = matching_pods(manifests, item["spec"]["selector"])
        if server in pods:
            assert pods == [server], item["metadata"]["name"]


def test_ports_that_are_named_exist(manifests: list[Manifest]) -> None:
    for item in of_kind(manifests, "Service"):
        for pod in matching_pods(manifests, item["spec"]["selector"]):
            wanted = {port["targetPort"] for port in item["spec"]["ports"] if "targetPort" in port}
            assert wanted <= port_names(pod), item["metadata"]["name"]
    for item in of_kind(manifests, "NetworkPolicy"):
        for pod in matching_pods(manifests, item["spec"]["podSelector"]["matchLabels"]):
            ports = [port["port"] for rule in item["spec"]["ingress"] for port in rule.get("ports", [])]
            assert {port for port in ports if isinstance(port, str)} <= port_names(pod)
    for item in of_kind(manifests, "PodMonitor"):
        (pod,) = matching_pods(manifests, item["spec"]["selector"]["matchLabels"])
        assert {endpoint["port"] for endpoint in item["spec"]["podMetricsEndpoints"]} <= port_names(pod)


def test_routes_lead_to_services(manifests: list[Manifest]) -> None:
    services = {item["metadata"]["name"]: item["spec"]["ports"] for item in of_kind(manifests, "Service")}
    for item in of_kind(manifests, "Ingress"):
        for rule in item["spec"]["rules"]:
            for path in rule["http"]["paths"]:
                backend = path["backend"]["service"]
                if backend["name"] in services:
                    assert backend["port"]["name"] in {port["name"] for port in services[backend["name"]]}
                else:
                    assert backend["name"] == "gateway"
    for item in of_kind(manifests, "HTTPRoute"):
        first = item["spec"]["rules"][0]["backendRefs"][0]
        if first["name"] in services:
            assert first["port"] in {port["port"] for port in services[first["name"]]}
        else:
            assert first["name"] == "gateway"


def admitted(release: list[Manifest], service: str) -> list[Any]:
    """Return who may call the pods of a service at the port ``http``, as the sources of its NetworkPolicy."""
    (found,) = [one for one in of_kind(release, "Service") if one["metadata"]["name"] == service]
    pods = matching_pods(release, found["spec"]["selector"])
    return [
        source
        for item in of_kind(release, "NetworkPolicy")
        if matching_pods(release, item["spec"]["podSelector"]["matchLabels"]) == pods
        for rule in item["spec"]["ingress"]
        if {"port": "http"} in rule["ports"]
        for source in rule["from"]
    ]


def controller(name: str) -> dict[str, Any]:
    return {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": name}}}


def test_a_route_gets_through_to_both_releases_that_it_leads_to(helm: Helm) -> None:
    route = value_sets()["multi-gpu-keda"]
    first = helm.manifests("--values", route)
    behind = "httpRoute.enabled=false,networkPolicy.routedByAnotherRelease=true"
    second = helm.manifests("--values", route, "--set", behind, release="llm-canary")
    (item,) = of_kind(first, "HTTPRoute")
    stable, canary = (backend["name"] for backend in item["spec"]["rules"][0]["backendRefs"])
    assert not of_kind(second, "HTTPRoute")
    assert controller("gateways") in admitted(first, stable)
    assert controller("gateways") in admitted(second, canary)


@pytest.mark.parametrize("name", ["gpu", "everything"])
def test_a_server_that_no_route_leads_to_is_closed_to_controllers(helm: Helm, name: str) -> None:
    """The set "everything" has routes, which lead to the gateway in front."""
    sources = admitted(helm.manifests("--values", value_sets()[name]), "llm-trimaran")
    assert controller("ingress-nginx") not in sources


def test_routes_leave_the_admin_api_out(manifests: list[Manifest]) -> None:
    paths: list[tuple[str, str]] = []
    for item in of_kind(manifests, "Ingress"):
        for rule in item["spec"]["rules"]:
            paths += [(path["pathType"], path["path"]) for path in rule["http"]["paths"]]
    for item in of_kind(manifests, "HTTPRoute"):
        for rule in item["spec"]["rules"]:
            paths += [(match["path"]["type"], match["path"]["value"]) for match in rule["matches"]]
    for kind, path in paths:
        if path.startswith("/v2"):
            assert kind == "Exact", path
            assert not any(word in path for word in ("repository", "trace", "logging", "memory", "/load"))
        else:
            assert path == "/v1"


def test_scalers_lead_to_the_deployment(manifests: list[Manifest]) -> None:
    (deployment,) = of_kind(manifests, "Deployment")
    scalers = of_kind(manifests, "HorizontalPodAutoscaler", "ScaledObject")
    assert len(scalers) <= 1
    # A fixed number beside a scaler would reset it at each upgrade.
    assert ("replicas" in deployment["spec"]) == (not scalers)
    for item in scalers:
        target = item["spec"]["scaleTargetRef"]
        assert (target["kind"], target["name"]) == ("Deployment", deployment["metadata"]["name"])


def test_quantities_parse(manifests: list[Manifest]) -> None:
    found = [pair for item in manifests for pair in quantities(item, item["kind"])]
    assert len(found) >= 6
    for where, text in found:
        assert parse_quantity(text) > 0, where


@pytest.mark.parametrize("text", ["4gb", "4 Gi", "-1", "", "1e", "Gi"])
def test_what_is_no_quantity(text: str) -> None:
    with pytest.raises(ValueError, match="not a quantity"):
        parse_quantity(text)


def test_requests_do_not_exceed_limits_and_shm_fits(manifests: list[Manifest]) -> None:
    for where, pod in pod_templates(manifests):
        for container in containers(pod):
            limits, requests = container["resources"]["limits"], container["resources"]["requests"]
            assert {"cpu", "memory"} <= limits.keys() & requests.keys(), where
            for name, text in requests.items():
                assert parse_quantity(text) <= parse_quantity(limits[name]), where
        in_memory = [
            parse_quantity(volume["emptyDir"]["sizeLimit"])
            for volume in pod["spec"]["volumes"]
            if volume.get("emptyDir", {}).get("medium") == "Memory"
        ]
        memory = parse_quantity(pod["spec"]["containers"][0]["resources"]["limits"]["memory"])
        assert sum(in_memory) <= memory / 2, where


def test_mounts_and_volumes_are_the_same(manifests: list[Manifest]) -> None:
    for where, pod in pod_templates(manifests):
        mounted = {mount["name"] for one in containers(pod) for mount in one["volumeMounts"]}
        assert mounted == {volume["name"] for volume in pod["spec"]["volumes"]}, where


def test_pods_meet_the_restricted_standard(manifests: list[Manifest]) -> None:
    """The Pod Security Standard "restricted" of the Kubernetes documentation, and a read-only root."""
    kinds = {"persistentVolumeClaim", "emptyDir", "image"}
    for where, pod in pod_templates(manifests):
        spec, security = pod["spec"], pod["spec"]["securityContext"]
        assert security["runAsNonRoot"] is True, where
        assert security["runAsUser"] == 10001, where
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}, where
        assert spec["automountServiceAccountToken"] is False, where
        assert not {"hostNetwork", "hostPID", "hostIPC", "shareProcessNamespace"} & spec.keys(), where
        for volume in spec["volumes"]:
            assert volume.keys() - {"name"} <= kinds, where
        for container in containers(pod):
            own = container["securityContext"]
            assert own["allowPrivilegeEscalation"] is False, where
            assert own["readOnlyRootFilesystem"] is True, where
            assert own["capabilities"] == {"drop": ["ALL"]}, where
            assert all("hostPort" not in port for port in container.get("ports", [])), where
            # With a read-only root, libraries that write under HOME need one that can be written.
            environment = {item["name"]: item.get("value") for item in container.get("env", [])}
            if container["name"] != "copy-model":
                assert environment["HOME"] == "/tmp", where
                assert "/tmp" in {mount["mountPath"] for mount in container["volumeMounts"]}, where


def test_every_pod_is_under_a_network_policy_that_closes_both_ways(manifests: list[Manifest]) -> None:
    policies = of_kind(manifests, "NetworkPolicy")
    covered: list[Any] = []
    for item in policies:
        assert item["spec"]["policyTypes"] == ["Ingress", "Egress"]
        covered += matching_pods(manifests, item["spec"]["podSelector"]["matchLabels"])
    for where, pod in pod_templates(manifests):
        assert pod in covered, where


def test_load_tests_and_tests_may_call_the_server(manifests: list[Manifest]) -> None:
    name = "llm-trimaran"
    (policy,) = [one for one in of_kind(manifests, "NetworkPolicy") if one["metadata"]["name"] == name]
    selector = policy["spec"]["ingress"][0]["from"][0]["podSelector"]
    (expression,) = selector["matchExpressions"]
    callers = [
        (where, pod) for where, pod in pod_templates(manifests) if "loadtest" in where or "-test" in where
    ]
    assert callers
    for where, pod in callers:
        labels = pod["metadata"]["labels"]
        assert selector["matchLabels"].items() <= labels.items(), where
        assert labels[expression["key"]] in expression["values"], where


def test_dns_may_be_somewhere_else(helm: Helm) -> None:
    """OpenShift's, for each pod that looks for names."""
    rule = {"to": [controller("openshift-dns")], "ports": [{"port": 5353, "protocol": "UDP"}]}
    settings = (
        "--values",
        value_sets()["everything"],
        "--set-json",
        f"networkPolicy.dns={json.dumps([rule])}",
    )
    found = [item["spec"]["egress"] for item in of_kind(helm.manifests(*settings), "NetworkPolicy")]
    assert sum(rule in egress for egress in found) == 3  # test, load test, training
    assert "kube-system" not in str(found)


def test_pods_have_no_label_that_changes_with_the_chart(manifests: list[Manifest]) -> None:
    """A Job's template cannot be changed, and a Deployment's would replace all pods."""
    for where, pod in pod_templates(manifests):
        if not where.startswith("Pod/"):
            labels = pod["metadata"]["labels"]
            assert not {"helm.sh/chart", "app.kubernetes.io/version"} & labels.keys(), where
