"""The images and the compose file, run for real: up by the gate script, used, broken and taken down."""

from __future__ import annotations

import json
import os
import shutil
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from checkpoints.loading import load_model
from checkpoints.prompt import PromptEncoder
from serving.ports import choose_ports
from tests.deploy.compose_tool import compose_program
from tests.deploy.containers.conftest import SOURCE, Stack, get, run_gate
from tests.deploy.monitoring.endpoint import trickle
from tests.deploy.monitoring.promql import GPU_ONLY, dashboard_queries, selectors, substitute
from tests.equality import assert_equal_tokens, generate_greedily
from tests.serving.endpoint import post
from trimaran.cli import main
from trimaran.deploy.config import PORTS
from trimaran.deploy.containers import start

pytestmark = [pytest.mark.slow, pytest.mark.containers, pytest.mark.timeout(900)]

PROMPTS = ["The capital of France is", "def fibonacci(n):\n    ", "长城是"]
TOKENS = 16
ENGINE_VARIABLES = ("DOCKER_HOST", "DOCKER_BUILDKIT", "COMPOSE_DOCKER_CLI_BUILD", "DOCKER_CONFIG")

Wait = Callable[[Callable[[], bool], float], None]


def generate(stack: Stack, text: str, **options: Any) -> tuple[int, dict[str, Any]]:
    return post(
        f"{stack.url()}/v2/models/llm/generate",
        {"text_input": text, "max_tokens": TOKENS, **options},
        timeout=60,
    )


def reachable(url: str) -> bool:
    try:
        get(url, timeout=2)
    except OSError:
        return False
    return True


def test_the_gate_passed_and_measured(stack: Stack) -> None:
    assert "verdict: passed" in stack.gate_log
    assert stack.health() == "healthy"


def test_the_images_say_what_they_were_built_from(stack: Stack) -> None:
    for image in ("trimaran/serve-cpu:0.1.0", "trimaran/loadtest:0.1.0"):
        labels = stack.inspect(image)["Config"]["Labels"]
        for variable, value in SOURCE.items():
            name = variable.removeprefix("TRIMARAN_").lower()
            assert labels[f"org.opencontainers.image.{name}"] == value
        assert labels["org.opencontainers.image.base.name"] == stack.variables["BASE_IMAGE"]


def test_the_text_is_the_offline_text(stack: Stack, checkpoint: Path) -> None:
    encoder = PromptEncoder.from_checkpoint(checkpoint)
    model = load_model(checkpoint, dtype="fp32")
    expected = [
        generate_greedily(model, encoder.encode(text=text), TOKENS, encoder.tokens.stop) for text in PROMPTS
    ]
    answers = [generate(stack, text) for text in PROMPTS]
    assert [status for status, _ in answers] == [200] * len(PROMPTS)
    assert_equal_tokens(expected, [list(answer["output_ids"]) for _, answer in answers])


def test_it_runs_confined(stack: Stack) -> None:
    inside = ["exec", "-T", "triton"]
    assert stack.compose(*inside, "id", "-u").split()[-1] == "10001"
    for place in ("/opt/trimaran/x", "/models/x", "/etc/x"):
        said = stack.compose(*inside, "sh", "-c", f"touch {place}", check=False)
        assert "Read-only file system" in said, place
    stack.compose(*inside, "touch", "/tmp/x")
    facts = stack.inspect(stack.container("triton"))["HostConfig"]
    assert facts["CapDrop"] == ["ALL"]
    assert facts["ReadonlyRootfs"]
    assert facts["ShmSize"] == 2**30
    health = stack.inspect(stack.container("triton"))["Config"]["Healthcheck"]
    assert health["StartPeriod"] == 600 * 10**9
    assert health["Test"] == ["CMD", "trimaran-health"]
    published = [bound["HostIp"] for port in facts["PortBindings"].values() for bound in port]
    assert set(published) == {"127.0.0.1"}


def test_no_compiler_and_no_cache_is_left(stack: Stack) -> None:
    found = stack.compose(
        *("exec", "-T", "triton", "sh", "-c"),
        "command -v gcc cc c++ pip git; ls -d ~root/.cache /var/lib/apt/lists/*_Packages 2>/dev/null; true",
    )
    assert found.strip() == ""


def test_admin_apis_ask_for_the_key(stack: Stack) -> None:
    for path in ("repository/models/llm/unload", "repository/models/llm/load", "repository/index"):
        status, answer = post(f"{stack.url()}/v2/{path}", {})
        assert status in (401, 403), (path, status, answer)
    assert generate(stack, "Still here")[0] == 200
    said = stack.compose(
        *("exec", "-T", "triton", "trimaran", "load", "llm", "--url", "http://127.0.0.1:8000"),
        *("--admin-key-file", "/tmp/admin.key"),
    )
    assert "llm" in said
    assert stack.health() == "healthy"


def test_a_killed_server_comes_back_and_nobody_hangs(stack: Stack, wait_until: Wait) -> None:
    container = stack.container("triton")
    before = stack.inspect(container)["RestartCount"]
    statuses: list[int | str] = []
    over = threading.Event()

    def ask() -> None:
        while not over.is_set():
            try:
                statuses.append(generate(stack, "Are you there?", max_tokens=1)[0])
            except OSError as error:
                statuses.append(type(error).__name__)
            time.sleep(0.2)

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        stack.compose("exec", "-T", "triton", "sh", "-c", "kill -9 $(cat /tmp/triton.pid)", check=False)
        wait_until(lambda: stack.inspect(container)["RestartCount"] > before, 60)
        wait_until(lambda: stack.health() == "healthy", 120)
        wait_until(lambda: statuses[-1:] == [200], 30)
    finally:
        over.set()
        asking.join(70)
    assert not asking.is_alive(), "a request hangs"
    assert any(status != 200 for status in statuses)


def test_compose_v1_says_that_the_repository_holds_no_model(stack: Stack, tmp_path: Path) -> None:
    """The gate takes v1 where `docker compose` is no command; here it is none for it."""
    compose_program("v1")  # else this is skipped, or fails where v1 is required
    docker = tmp_path / "bin" / "docker"
    docker.parent.mkdir()
    docker.write_text(f'#!/bin/sh\n[ "$1" != compose ] || exit 1\nexec {shutil.which("docker")} "$@"\n')
    docker.chmod(0o755)
    empty = tmp_path / "models"
    empty.mkdir()
    tmp_path.chmod(0o755)
    done = run_gate(
        str(empty),
        environment={
            **stack.engine.environment,
            **stack.variables,
            "PATH": f"{docker.parent}:{os.environ['PATH']}",
            "COMPOSE_PROJECT_NAME": f"{stack.variables['COMPOSE_PROJECT_NAME']}-empty",
            **{f"TRIMARAN_{name}_PORT": "0" for name in ("HTTP", "GRPC", "METRICS")},
        },
        timeout=180,
    )
    assert "== compose 1." in done.stdout
    assert done.returncode == 2, done.stdout
    assert "has no model to load" in done.stdout


def test_a_model_that_is_missing_is_said(stack: Stack, wait_until: Wait) -> None:
    """A model that is not the one the health check asks for: it runs, and is unhealthy with the reason."""
    name = "trimaran-test-other"
    stack.engine.docker(
        *("run", "--detach", f"--name={name}", "--env=TRIMARAN_MODEL=other", "--shm-size=256m"),
        *("--health-interval=2s", "--health-start-period=1s", "--health-retries=2"),
        *("--volume", f"{stack.repository}:/models:ro", "trimaran/serve-cpu:0.1.0"),
    )
    try:
        wait_until(lambda: stack.inspect(name)["State"]["Health"]["Status"] == "unhealthy", 60)
        said = stack.inspect(name)["State"]["Health"]["Log"][-1]["Output"]
        assert "model other is not ready" in said or "does not answer" in said
    finally:
        stack.engine.docker("rm", "--force", name, check=False)


def test_deploy_brings_it_up_and_takes_it_down(
    stack: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """``trimaran deploy compose`` writes the folder; what ``--up`` calls builds, starts and waits."""
    shared = (
        *("BASE_IMAGE", "TRIMARAN_PROMETHEUS_IMAGE", "TORCH_INDEX_URL", "TRIMARAN_BUILD_NETWORK"),
        *("TRIMARAN_HEALTH_SECONDS", *SOURCE),
    )
    for name, value in {
        **{name: stack.variables[name] for name in shared if name in stack.variables},
        **{name: value for name, value in stack.engine.environment.items() if name in ENGINE_VARIABLES},
        "COMPOSE_PROJECT_NAME": f"{stack.variables['COMPOSE_PROJECT_NAME']}-up",
    }.items():
        monkeypatch.setenv(name, value)
    folder = tmp_path / "deployment"
    ports = choose_ports("127.0.0.1", (0,) * len(PORTS))
    given = [f"--{name.replace('_', '-')}={port}" for name, port in zip(PORTS, ports, strict=True)]
    command = ["deploy", "compose", "--output", str(folder)]
    assert main([*command, "--repository", str(stack.repository), *given, "--longest-request", "10"]) == 0
    assert "next:" in capsys.readouterr().out
    try:
        # Not Grafana, whose image a machine without a registry does not have.
        start(folder, build=True, timeout=120, services=("prometheus",))
        url = f"http://127.0.0.1:{ports[PORTS.index('http_port')]}"
        answer = post(f"{url}/v2/models/llm/generate", {"text_input": "Hello", "max_tokens": 4})
        assert answer[0] == 200, answer
        # Started again, nothing changes.
        start(folder, build=False, timeout=120, services=("prometheus",))
    finally:
        code = main([*command, "--down"])
    assert code == 0
    assert not reachable(f"{url}/v2/health/live")


def test_prometheus_scrapes_it_and_the_dashboard_has_data(stack: Stack, wait_until: Wait) -> None:
    def query(expression: str) -> list[Any]:
        words = urllib.parse.urlencode({"query": expression})
        found = json.loads(get(f"{stack.url('prometheus')}/api/v1/query?{words}"))
        assert found["status"] == "success", found
        result: list[Any] = found["data"]["result"]
        return result

    def missing() -> list[tuple[str, str]]:
        return [
            (title, expression)
            for title, expression in queries
            # Over 30 days, and computed every few minutes only.
            if "ratio30d" not in expression
            and not GPU_ONLY & {one.name for one in selectors(expression)}
            and not query(expression)
        ]

    queries = [(title, substitute(expression)) for title, expression in dashboard_queries()]
    with trickle(stack.url()):
        wait_until(lambda: reachable(f"{stack.url('prometheus')}/-/ready"), 60)
        wait_until(lambda: not missing(), 120)
    assert query('up{job="trimaran"} == 1')


def test_a_new_version_under_load_fails_no_request(stack: Stack, wait_until: Wait) -> None:
    """A new version is exported into the repository and loaded while requests run."""
    versions = stack.repository / "llm"
    shutil.copytree(versions / "1", versions / "2", copy_function=shutil.copy2)
    failed: list[Any] = []
    answered: list[int] = []
    over = threading.Event()

    def ask() -> None:
        while not over.is_set():
            status, answer = generate(stack, "Go on")
            (answered if status == 200 else failed).append(status)
            if status != 200:
                failed.append(answer)

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        stack.compose(
            *("exec", "-T", "triton", "trimaran", "load", "llm", "--url", "http://127.0.0.1:8000"),
            *("--admin-key-file", "/tmp/admin.key"),
            timeout=180,
        )
        time.sleep(2)
    finally:
        over.set()
        for thread in threads:
            thread.join(90)
        shutil.rmtree(versions / "2")
    assert failed == []
    assert len(answered) > 3


def test_a_request_that_runs_when_it_stops_is_finished(stack: Stack) -> None:
    statuses: list[int] = []
    asking = threading.Thread(
        target=lambda: statuses.append(generate(stack, "Tell a story", max_tokens=64, ignore_eos=True)[0])
    )
    asking.start()
    time.sleep(0.5)
    stack.compose("stop", "--timeout", "25", "triton", timeout=60)
    asking.join(30)
    assert statuses == [200]
    assert stack.inspect(stack.container("triton"))["State"]["ExitCode"] == 0
    with pytest.raises((OSError, urllib.error.URLError)):
        get(f"{stack.url()}/v2/health/live", timeout=2)
