"""What the chart takes for granted about our programs: flags, paths and names that really exist."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from loadtests.config import LoadTestConfig
from serving import triton_metrics
from serving.config import ServeConfig
from tests.deploy.helm_tool import CHART, REPOSITORY, Helm, value_sets
from tests.deploy.objects import Manifest, of_kind, pod_templates, server_pod
from trimaran.command_parser import parse_command
from trimaran.command_table import COMMANDS

TRITON_PENDING = "nv_inference_pending_request_count"


def job_command(manifests: list[Manifest], name: str) -> list[str]:
    (pod,) = [pod for where, pod in pod_templates(manifests) if where == f"Job/{name}"]
    command: list[str] = pod["spec"]["containers"][0]["command"]
    return [part.replace("$(POD_NAME)", "pod") for part in command]


def test_serve_takes_the_arguments(manifests: list[Manifest]) -> None:
    (server,) = server_pod(manifests)["spec"]["containers"]
    config, level = parse_command(COMMANDS["serve"], ["/models", *server["args"]])
    assert isinstance(config, ServeConfig)
    assert config.repository == Path("/models")
    assert config.address == "0.0.0.0"
    assert level == "info"
    ports = {port["name"]: port["containerPort"] for port in server["ports"]}
    assert ports == {"http": config.http_port, "grpc": config.grpc_port, "metrics": config.metrics_port}
    # Triton's log and the process id beside it are all that the server writes.
    assert config.log_file == Path("/tmp/triton.log")


def test_the_image_serves_models_by_its_entry_point() -> None:
    text = (REPOSITORY / "Dockerfile").read_text(encoding="utf-8")
    assert re.search(r'ENTRYPOINT \[.*"trimaran", "serve", "/models"\]', text)
    assert "10001" in text


def test_loadtest_takes_the_arguments(helm: Helm) -> None:
    manifests = helm.manifests("--values", value_sets()["jobs"])
    program, command, *arguments = job_command(manifests, "llm-trimaran-loadtest-1")
    assert (program, command) == ("trimaran", "loadtest")
    config, _ = parse_command(COMMANDS["loadtest"], arguments)
    assert isinstance(config, LoadTestConfig)
    assert config.url == "http://llm-trimaran.serving.svc:8000"
    assert config.max_ttft_p95 == "800ms"
    assert config.max_failure_rate == 0


# In a process of its own: Locust patches the standard library when it is imported.
PARSE = """
import json, sys
from pathlib import Path
from locust.argument_parser import get_parser
if "own" in sys.argv[1]:
    import loadtests.locustfile
    from loadtests.stock_options import config_from_options
options = get_parser().parse_args(sys.argv[2:])
config = config_from_options(options) if "own" in sys.argv[1] else None
print(json.dumps({**vars(options), "limits": str(config and config.latency_limits())}, default=str))
"""


def parsed_by_locust(locustfile: str, arguments: list[str]) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-c", PARSE, locustfile, *arguments],
        capture_output=True, check=False, cwd=REPOSITORY,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr.decode()
    found: dict[str, Any] = json.loads(done.stdout)
    return found


MASTER, WORKERS = "llm-trimaran-loadtest-1", "llm-trimaran-loadtest-1-workers"


def test_master_and_workers_use_our_locustfile_and_judge_by_limits(helm: Helm) -> None:
    manifests = helm.manifests("--values", value_sets()["everything"])
    (program, *arguments), (of_workers, *rest) = (
        job_command(manifests, MASTER),
        job_command(manifests, WORKERS),
    )
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert program == of_workers == "trimaran-locust"
    assert project["scripts"][program] == "loadtests.locust_command:main"
    master, worker = parsed_by_locust("own", arguments), parsed_by_locust("own", rest)
    assert master["master"]
    assert master["headless"]
    assert (master["expect_workers"], master["run_time"], master["stop_timeout"]) == (3, 120, 30)
    assert (master["model"], master["results"]) == ("llm", "/results/pod")
    assert master["limits"] == "{('ttft', 'p95'): 800000000}"
    # A failed request is for --max-failure-rate to judge, as in a load test of one process.
    assert (master["exit_code_on_error"], float(master["max_failure_rate"])) == (0, 0.0)
    assert worker["worker"]
    assert worker["master_host"] == MASTER
    assert worker["master_port"] == 5557


def test_master_and_workers_use_a_locustfile_of_the_user(helm: Helm) -> None:
    own = "loadtest.enabled=true,loadtest.distributed.workers=2,loadtest.distributed.locustfile=/opt/load.py"
    manifests = helm.manifests("--set", own)
    for name in (MASTER, WORKERS):
        program, *arguments = job_command(manifests, name)
        assert program == "locust"
        options = parsed_by_locust("user's", arguments)
        assert options["locustfile"] == "/opt/load.py"
        assert options["exit_code_on_error"] == 1


def test_torchrun_takes_the_arguments(helm: Helm) -> None:
    run = pytest.importorskip("torch.distributed.run")
    manifests = helm.manifests("--values", value_sets()["everything"])
    program, *arguments = job_command(manifests, "llm-trimaran-training-1")
    assert program == "torchrun"
    parsed = run.get_args_parser().parse_args([part.replace("$(NODE_RANK)", "1") for part in arguments])
    assert (parsed.nnodes, parsed.nproc_per_node, parsed.node_rank) == ("2", "8", 1)
    assert parsed.master_addr == "llm-trimaran-training-1-0.llm-trimaran-training-1"
    assert parsed.module is True
    assert [parsed.training_script, *parsed.training_script_args][:2] == ["trimaran", "train"]


def test_training_nodes_find_each_other(helm: Helm) -> None:
    manifests = helm.manifests("--values", value_sets()["everything"])
    (job,) = [item for item in of_kind(manifests, "Job") if "training" in item["metadata"]["name"]]
    (service,) = [
        item for item in of_kind(manifests, "Service") if item["metadata"]["name"] == job["metadata"]["name"]
    ]
    assert job["spec"]["completionMode"] == "Indexed"
    assert job["spec"]["completions"] == job["spec"]["parallelism"] == 2
    assert job["spec"]["template"]["spec"]["subdomain"] == service["metadata"]["name"]
    assert service["spec"]["clusterIP"] == "None"
    assert service["spec"]["publishNotReadyAddresses"] is True


def test_trainjob_uses_its_own_runtime(helm: Helm) -> None:
    manifests = helm.manifests("--values", value_sets()["jobs"])
    (runtime,), (job,) = of_kind(manifests, "TrainingRuntime"), of_kind(manifests, "TrainJob")
    assert job["spec"]["runtimeRef"]["name"] == runtime["metadata"]["name"]
    (replicated,) = runtime["spec"]["template"]["spec"]["replicatedJobs"]
    # The names that Kubeflow Trainer looks for.
    label = replicated["template"]["metadata"]["labels"]["trainer.kubeflow.org/trainjob-ancestor-step"]
    assert (replicated["name"], label) == ("node", "trainer")
    (container,) = replicated["template"]["spec"]["template"]["spec"]["containers"]
    assert container["name"] == "node"
    assert container["command"][:2] == ["trimaran", "train"]


def names_of_metrics(text: str) -> set[str]:
    return set(re.findall(r"\b(?:trimaran|nv)_[a-z_]+\b", text))


def test_autoscaling_asks_for_gauges_that_are_published(helm: Helm) -> None:
    (scaler,) = of_kind(helm.manifests("--values", value_sets()["everything"]), "HorizontalPodAutoscaler")
    asked = {one["pods"]["metric"]["name"] for one in scaler["spec"]["metrics"]}
    assert asked == {"trimaran_running_requests", "trimaran_waiting_requests", TRITON_PENDING}
    (scaled,) = of_kind(helm.manifests("--values", value_sets()["multi-gpu-keda"]), "ScaledObject")
    assert names_of_metrics(scaled["spec"]["triggers"][0]["metadata"]["query"]) == asked
    assert asked - {TRITON_PENDING} <= triton_metrics._GAUGES.keys()


def test_adapter_example_offers_what_the_autoscaler_asks_for() -> None:
    text = (CHART / "examples" / "prometheus-adapter-values.yaml").read_text(encoding="utf-8")
    rules: list[dict[str, Any]] = yaml.safe_load(text)["rules"]["custom"]
    series = [rule["seriesQuery"] for rule in rules]
    for name in ("trimaran_running_requests", "trimaran_waiting_requests", TRITON_PENDING):
        patterns = [
            re.findall(r'__name__=~"([^"]+)"', query) or [query.partition("{")[0]] for query in series
        ]
        assert any(re.fullmatch(pattern, name) for (pattern,) in patterns), name


def test_keda_query_selects_the_pods_of_this_release_only(helm: Helm) -> None:
    (scaled,) = of_kind(helm.manifests("--values", value_sets()["multi-gpu-keda"]), "ScaledObject")
    (pattern,) = set(re.findall(r'pod=~"([^"]+)"', scaled["spec"]["triggers"][0]["metadata"]["query"]))
    assert re.fullmatch(pattern, "llm-trimaran-5d8f9c7b6d-x2x7q")
    assert not re.fullmatch(pattern, "llm-trimaran-canary-5d8f9c7b6d-x2x7q")
    assert not re.fullmatch(pattern, "llm-trimaran-loadtest-1-x2x7q-y")
