"""One stack for all container tests, with the real demo model: built and brought up by the gate script."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from serving.ports import choose_ports
from tests.deploy.containers.engine import Engine, EngineMissing, running_engine
from tests.deploy.containers.in_memory import in_memory
from tests.deploy.containers.stand_in import PYTHON, ensure_python, make_prometheus
from tests.deploy.monitoring.tools import missing
from tests.serving.endpoint import exported
from trimaran.demo_stages import make_base

ROOT = Path(__file__).resolve().parents[3]
PROJECT = "trimaran-test"
LIMIT_SECONDS = 480
# Given, so that every build here is of the same image.
SOURCE = {
    "TRIMARAN_SOURCE": "https://example.com/trimaran",
    "TRIMARAN_REVISION": "of-the-tests",
    "TRIMARAN_CREATED": "2026-05-01T12:00:00+00:00",
}


@dataclass(frozen=True)
class Stack:
    """A running compose project."""

    engine: Engine
    repository: Path
    ports: dict[str, int]
    variables: dict[str, str]
    gate_log: str
    compose_command: list[str] = field(default_factory=list)

    def compose(self, *arguments: str, timeout: float = 120, check: bool = True, **changes: str) -> str:
        """Run compose on the project (or on another one, by COMPOSE_PROJECT_NAME in ``changes``)."""
        return self.engine.run(
            [*self.compose_command, *arguments],
            cwd=ROOT,
            timeout=timeout,
            check=check,
            variables={**self.variables, **changes},
        )

    def container(self, service: str) -> str:
        """Id of the service's container."""
        # Without -a Compose v2 shows only those that run.
        return self.compose("ps", "-a", "-q", service).strip().splitlines()[-1]

    def inspect(self, container: str) -> dict[str, Any]:
        """What the engine knows of a container."""
        facts: dict[str, Any] = json.loads(self.engine.docker("inspect", container))[0]
        return facts

    def health(self) -> str:
        """Health of the server's container."""
        status: str = self.inspect(self.container("triton"))["State"]["Health"]["Status"]
        return status

    def url(self, service: str = "http") -> str:
        """Base URL of a published port."""
        return f"http://127.0.0.1:{self.ports[service]}"


@pytest.fixture(scope="session")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """A Docker engine; without one the tests skip, or fail where TRIMARAN_TEST_REQUIRE names containers."""
    folder = tmp_path_factory.mktemp("docker")
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(in_memory(folder, 7))
            found = stack.enter_context(running_engine(folder))
        except EngineMissing as reason:
            missing("containers", str(reason))
        yield found
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_base(tmp_path_factory.mktemp("containers") / "checkpoint")


@pytest.fixture(scope="session")
def stack(engine: Engine, checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The project, up and healthy, brought there by ``deploy/ci/gate.sh``; taken down afterwards."""
    folder = tmp_path_factory.mktemp("stack")
    repository = folder / "models"
    with ThreadPoolExecutor(1) as pool:
        base = pool.submit(ensure_python, engine, folder)
        # In fp32 the texts are comparable: DESIGN's rule of equality is about fp32.
        options = {"engine": "openvino", "weights": "fp32", "max_context": 512, "slots": 4}
        exported(checkpoint, repository, threads=2, **options)
        try:
            base.result()
        except EngineMissing as reason:
            missing("containers", str(reason))
    _readable_by_all(repository)
    names = ("http", "grpc", "metrics", "prometheus", "grafana", "locust")
    ports = dict(zip(names, choose_ports("127.0.0.1", (0,) * len(names)), strict=True))
    variables = {
        "TRIMARAN_REPOSITORY": str(repository),
        "COMPOSE_PROJECT_NAME": PROJECT,
        "BASE_IMAGE": PYTHON,
        **SOURCE,
        "TRIMARAN_PROMETHEUS_IMAGE": make_prometheus(engine, folder),
        "TRIMARAN_EXIT_SECONDS": "10",
        "TRIMARAN_STOP_GRACE": "30s",
        # A wait for a healthy model ends at such a look.
        "TRIMARAN_HEALTH_SECONDS": "2",
        **{f"TRIMARAN_{name.upper()}_PORT": str(port) for name, port in ports.items()},
        # Our own engine has no bridge, and its base image pip settings that know torch for CPUs.
        **({"TORCH_INDEX_URL": "", "TRIMARAN_BUILD_NETWORK": "host"} if engine.own else {}),
    }
    environment = {**engine.environment, **variables}
    done = run_gate("--keep", str(repository), *GATE, environment=environment, timeout=600)
    made = Stack(engine, repository, ports, variables, done.stdout, _compose_command(engine))
    try:
        assert done.returncode == 0, done.stdout[-6000:]
        # A rate needs two scrapes and a rule some time: they pass while the first tests run.
        made.compose("up", "-d", "prometheus")
        yield made
    finally:
        profiles = ("--profile", "loadtest", "--profile", "locust")
        made.compose(*profiles, "down", "--volumes", "--timeout", "2", check=False)


GATE = (
    *("--users", "2", "--duration", "5s", "--max-requests", "8", "--max-tokens", "16"),
    *("--max-failure-rate", "0", "--max-ttft-p95", "30s"),
)


def run_gate(
    *arguments: str, environment: dict[str, str], timeout: float
) -> subprocess.CompletedProcess[str]:
    """Run ``deploy/ci/gate.sh``; both its streams are in ``stdout``."""
    return subprocess.run(
        ["deploy/ci/gate.sh", *arguments],
        cwd=ROOT,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout,
        check=False,
    )


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Say how long the container tests took of the time they are to stay under."""
    seconds = sum(
        report.duration
        for reports in terminalreporter.stats.values()
        for report in reports
        if getattr(report, "nodeid", "").startswith("tests/deploy/containers/")
        and hasattr(report, "duration")
    )
    if seconds > 1:
        terminalreporter.write_line(f"container tests: {seconds:.0f} s of {LIMIT_SECONDS} s")


@pytest.fixture
def wait_until() -> Callable[[Callable[[], bool], float], None]:
    """Wait for something to become true."""

    def wait(condition: Callable[[], bool], seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f"not within {seconds:.0f} s"
            time.sleep(0.5)

    return wait


def get(url: str, *, timeout: float = 10) -> bytes:
    """GET a URL."""
    with urllib.request.urlopen(url, timeout=timeout) as response:
        body: bytes = response.read()
        return body


def _compose_command(engine: Engine) -> list[str]:
    two = subprocess.run(
        ["docker", "compose", "version"], env=engine.environment, capture_output=True, check=False
    )
    return ["docker", "compose"] if two.returncode == 0 else ["docker-compose"]


def _readable_by_all(folder: Path) -> None:
    """The container's user is not ours, and pytest's folders are closed to others."""
    for parent in (folder, *folder.parents):
        if parent == Path("/tmp") or parent.stat().st_uid != os.getuid():
            break
        parent.chmod(parent.stat().st_mode | 0o055)
