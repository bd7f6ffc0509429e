"""Probes, grace periods and rollouts: nothing kills a model that loads or a request that runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from serving.config import ServeConfig
from tests.deploy.helm_tool import Helm, value_sets
from tests.deploy.objects import Manifest, flags, of_kind, server_pod

GUARD_SECONDS = 10  # serving.triton_server: after --exit-timeout it kills what is left


def budget(probe: dict[str, int]) -> int:
    return probe["periodSeconds"] * probe["failureThreshold"]


def test_times_leave_room_for_each_other(manifests: list[Manifest]) -> None:
    pod = server_pod(manifests)
    (server,) = pod["spec"]["containers"]
    drain = int(server["lifecycle"]["preStop"]["exec"]["command"][1])
    exit_timeout = int(flags(server)["exit-timeout"])
    assert drain + exit_timeout + GUARD_SECONDS < pod["spec"]["terminationGracePeriodSeconds"]
    start_timeout = int(flags(server)["start-timeout"])
    # The server gives up first, with the reason in its log; the kubelet's kill would say nothing.
    assert start_timeout < budget(server["startupProbe"])
    (deployment,) = of_kind(manifests, "Deployment")
    grace = pod["spec"]["terminationGracePeriodSeconds"]
    assert budget(server["startupProbe"]) + grace < deployment["spec"]["progressDeadlineSeconds"]


def test_grpc_clients_have_left_when_the_signal_comes(helm: Helm) -> None:
    """Their connection was replaced since, and they asked a cache that had forgotten the pod."""
    (server,) = server_pod(helm.manifests())["spec"]["containers"]
    drain = int(server["lifecycle"]["preStop"]["exec"]["command"][1])
    age = float(flags(server).get("grpc-connection-age", ServeConfig(Path("models")).grpc_connection_age))
    # gRPC spreads the age by a tenth, and resolves a name at most every 30 s; DNS in Kubernetes says that an
    # answer is good for 30 s.
    assert drain >= 1.1 * age + 30 + 30


def test_routes_wait_for_the_longest_request(manifests: list[Manifest]) -> None:
    (server,) = server_pod(manifests)["spec"]["containers"]
    longest = flags(server)["exit-timeout"]
    for item in of_kind(manifests, "Ingress"):
        notes = item["metadata"]["annotations"]
        assert notes["nginx.ingress.kubernetes.io/proxy-read-timeout"] == longest
        assert notes["nginx.ingress.kubernetes.io/proxy-buffering"] == "off"
    for item in of_kind(manifests, "HTTPRoute"):
        assert item["spec"]["rules"][0]["timeouts"]["request"] == f"{longest}s"


def test_probes_ask_what_they_mean(manifests: list[Manifest]) -> None:
    (server,) = server_pod(manifests)["spec"]["containers"]
    path = {name: server[f"{name}Probe"]["httpGet"]["path"] for name in ("startup", "readiness", "liveness")}
    assert path["startup"] == path["readiness"] == "/v2/models/llm/ready"
    if path["liveness"] == path["readiness"]:
        # It may only act when a load has certainly failed.
        assert budget(server["livenessProbe"]) > int(flags(server)["start-timeout"])
    else:
        assert path["liveness"] == "/v2/health/live"
    ports = {port["containerPort"] for port in server["ports"] if port["name"] == "http"}
    assert {server[f"{name}Probe"]["httpGet"]["port"] for name in path} == ports


@pytest.mark.parametrize(("start", "period", "expected"), [(600, 5, 132), (600, 7, 95), (30, 60, 2)])
def test_the_start_up_probe_never_asks_too_few_times(
    helm: Helm, start: int, period: int, expected: int
) -> None:
    settings = f"server.startSeconds={start},probes.startup.periodSeconds={period}"
    (server,) = server_pod(helm.manifests("--set", settings))["spec"]["containers"]
    assert server["startupProbe"]["failureThreshold"] == expected
    assert budget(server["startupProbe"]) >= start + 60


def test_strategies(helm: Helm) -> None:
    rolling = of_kind(helm.manifests(), "Deployment")[0]["spec"]["strategy"]
    assert rolling == {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}
    recreate = of_kind(helm.manifests("--set", "strategy=Recreate"), "Deployment")[0]["spec"]["strategy"]
    assert recreate == {"type": "Recreate"}


def test_a_copy_is_verified_before_the_server_starts(helm: Helm) -> None:
    for name in ("gpu", "multi-gpu-keda"):
        pod = server_pod(helm.manifests("--values", value_sets()[name]))
        copy, verify = pod["spec"]["initContainers"]
        assert (copy["name"], verify["name"]) == ("copy-model", "verify-model")
        assert "trimaran inspect --verify" in verify["command"][2]
        (server,) = pod["spec"]["containers"]
        for container in (verify, server):
            (mount,) = [one for one in container["volumeMounts"] if one["name"] == "models"]
            assert mount == {"name": "models", "mountPath": "/models", "readOnly": True}
