"""The load test's Job: it waits for the model, and reads the server's metrics where there is one server."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from urllib.parse import urlsplit

import pytest

from loadtests.server_metrics.endpoint import metrics_urls
from tests.deploy.helm_tool import Helm, value_sets
from tests.deploy.objects import Manifest, of_kind, pod_templates

METRICS = "http://llm-trimaran-grpc.serving.svc:8002/metrics"


def pods_of_the_load_test(manifests: list[Manifest]) -> list[Manifest]:
    return [pod for where, pod in pod_templates(manifests) if where.startswith("Job/llm-trimaran-loadtest-")]


class LoadingModel(BaseHTTPRequestHandler):
    """Answers 400 twice, as Triton does for a model that is not ready, then 200."""

    asked: list[str]

    def do_GET(self) -> None:
        self.asked.append(self.path)
        self.send_response(200 if len(self.asked) > 2 else 400)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def address(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(LoadingModel, "asked", [], raising=False)
    with HTTPServer(("127.0.0.1", 0), LoadingModel) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def wait(helm: Helm, address: str, seconds: float) -> subprocess.CompletedProcess[str]:
    """Run the init container's command for a server at ``address``."""
    (pod,) = pods_of_the_load_test(helm.manifests("--values", value_sets()["jobs"]))
    (container,) = pod["spec"]["initContainers"]
    python, *arguments = container["command"]
    assert python == "python3"
    environment = {item["name"]: item["value"] for item in container["env"]}
    asked = urlsplit(environment["URL"])
    assert (asked.netloc, environment["READY_SECONDS"]) == ("llm-trimaran.serving.svc:8000", "900")
    changes = {"URL": f"http://{address}{asked.path}", "READY_SECONDS": str(seconds)}
    return subprocess.run(
        [sys.executable, *arguments], env={**os.environ, **environment, **changes, "no_proxy": "*"},
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip


def test_it_waits_until_the_model_is_ready(helm: Helm, address: str) -> None:
    done = wait(helm, address, seconds=20)
    assert done.returncode == 0, done.stderr
    assert LoadingModel.asked == 3 * ["/v2/models/llm/ready"]


def test_it_says_what_was_not_ready_in_time(helm: Helm) -> None:
    done = wait(helm, "127.0.0.1:9", seconds=0.1)
    assert done.returncode == 1
    assert "http://127.0.0.1:9/v2/models/llm/ready was not ready within 0.1 s" in done.stderr
    assert "raise loadtest.readySeconds" in done.stderr


def test_workers_wait_too(helm: Helm) -> None:
    pods = pods_of_the_load_test(helm.manifests("--values", value_sets()["everything"]))
    assert len(pods) == 2
    for pod in pods:
        assert [one["name"] for one in pod["spec"]["initContainers"]] == ["wait-for-model"]


@pytest.mark.parametrize("settings", ["loadtest.url=http://other:8000", "loadtest.readySeconds=0"])
def test_it_does_not_wait_for_another_endpoint_or_when_told_not_to(helm: Helm, settings: str) -> None:
    (pod,) = pods_of_the_load_test(helm.manifests("--values", value_sets()["jobs"], "--set", settings))
    assert "initContainers" not in pod["spec"]


def test_a_job_that_hangs_is_ended(helm: Helm) -> None:
    for job in of_kind(helm.manifests("--values", value_sets()["everything"]), "Job"):
        limit = job["spec"].get("activeDeadlineSeconds")
        # A training takes as long as it takes.
        assert limit == (None if "training" in job["metadata"]["name"] else 21600)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ("replicas=1", [METRICS]),
        ("replicas=2", ["none"]),
        ("autoscaling.mode=cpu,autoscaling.cpu.utilization=70", ["none"]),
        ("loadtest.url=http://other:8000", []),
        ("loadtest.distributed.workers=2", [METRICS]),
        ("loadtest.distributed.workers=2,loadtest.distributed.locustfile=/own.py", []),
    ],
)
def test_metrics_are_asked_of_one_server(helm: Helm, settings: str, expected: list[str]) -> None:
    pods = pods_of_the_load_test(helm.manifests("--set", f"loadtest.enabled=true,{settings}"))
    found = [
        part.removeprefix("--metrics-url=")
        for pod in pods
        for part in pod["spec"]["containers"][0]["command"]
        if part.startswith("--metrics-url=")
    ]
    assert found == expected
    for setting in found:
        assert metrics_urls(setting) == tuple(one for one in expected if one != "none")


def test_the_metrics_port_is_there_and_open(helm: Helm) -> None:
    manifests = helm.manifests("--set", "loadtest.enabled=true")
    (service,) = [
        item for item in of_kind(manifests, "Service") if item["metadata"]["name"] == "llm-trimaran-grpc"
    ]
    assert ("metrics", 8002) in [(port["name"], port["port"]) for port in service["spec"]["ports"]]
    policies = {item["metadata"]["name"]: item["spec"] for item in of_kind(manifests, "NetworkPolicy")}
    assert {"port": "metrics"} in policies["llm-trimaran"]["ingress"][0]["ports"]
    assert {"port": 8002} in policies["llm-trimaran-loadtest-1"]["egress"][-1]["ports"]
