"""``--up`` and ``--down``: what is asked of compose, and what is said when a container does not come up.

The real engine and the real compose are in ``tests/deploy/containers``.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from checkpoints.errors import DeployError
from tests.trimaran.docker_engine import CONTAINER, IMAGE, FakeEngine, fake_compose, fake_engine
from trimaran.cli import main
from trimaran.deploy import containers
from trimaran.deploy.containers import start, stop


def state(health: str | None, status: str = "running", restarts: int = 0, said: str = "") -> dict[str, Any]:
    facts: dict[str, Any] = {"Status": status}
    if health is not None:
        facts["Health"] = {"Status": health, "Log": [{"Output": said}]}
    return {"State": facts, "RestartCount": restarts}


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeEngine]:
    with fake_engine(tmp_path) as running:
        monkeypatch.setenv("DOCKER_HOST", f"unix://{running.socket}")
        monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=os.pathsep)
        monkeypatch.setattr(containers, "_POLL_SECONDS", 0.01)
        monkeypatch.setattr(containers, "_SETTLE_SECONDS", 0.0)
        (tmp_path / "bin").mkdir()
        yield running


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "compose.yaml").touch()
    return tmp_path / "out"


def asked(calls: Path, engine: FakeEngine) -> list[str]:
    lines = calls.read_text().splitlines()
    assert all(
        line.startswith(f"unix://{engine.socket} ") for line in lines
    )  # the engine that was asked, too
    return [line.split(" ", 1)[1] for line in lines]


def test_it_builds_starts_waits_and_starts_the_others(engine: FakeEngine, folder: Path) -> None:
    calls = fake_compose(folder.parent / "bin")
    engine.states = [state("starting"), state("starting"), state("healthy")]
    start(folder, build=True, timeout=5)
    assert len(engine.states) == 1, "it did not wait"
    ups = [line for line in asked(calls, engine) if not line.startswith(("ps", "config"))]
    assert ups == ["build triton", "up -d --no-build triton", "up -d --no-build"]


def test_what_a_profile_left_is_not_looked_at(engine: FakeEngine, folder: Path) -> None:
    """A load test or Locust of before, whose container has ended."""
    calls = fake_compose(folder.parent / "bin")
    engine.states = [state("healthy")]
    start(folder, build=False, timeout=5)
    assert asked(calls, engine)[-1] == "ps -a -q triton prometheus"


def test_only_the_services_asked_for(engine: FakeEngine, folder: Path) -> None:
    calls = fake_compose(folder.parent / "bin")
    engine.states = [state("healthy")]
    start(folder, build=False, timeout=5, services=("prometheus",))
    assert "up -d --no-build triton prometheus" in asked(calls, engine)
    assert "build triton" not in asked(calls, engine)


@pytest.mark.parametrize(
    ("states", "message"),
    [
        (
            [state("starting"), state("unhealthy", said="model llm is not ready")],
            r"unhealthy.*llm is not ready",
        ),
        ([state("starting"), state("starting", restarts=1)], "ended and was started again"),
        ([state("starting", restarts=1)], "ended and was started again"),  # before the first look
        ([state(None, status="exited")], "is exited"),
        ([state("starting")], "not healthy after 0 s"),
    ],
)
def test_what_does_not_come_up_is_told_with_its_log(
    engine: FakeEngine, folder: Path, states: list[dict[str, Any]], message: str
) -> None:
    fake_compose(folder.parent / "bin")
    engine.states = states
    with pytest.raises(DeployError, match=rf"(?s)out_triton_1 .*{message}.*the reason stands here"):
        start(folder, build=False, timeout=5 if len(states) > 1 else 0.05)


def test_a_restart_of_before_is_not_held_against_it(engine: FakeEngine, folder: Path) -> None:
    fake_compose(folder.parent / "bin", running=True)
    engine.states = [state("starting", restarts=3), state("healthy", restarts=3)]
    start(folder, build=False, timeout=5)


def test_a_container_that_vanishes_is_told(engine: FakeEngine, folder: Path) -> None:
    fake_compose(folder.parent / "bin")
    with pytest.raises(DeployError, match=f"was removed while it started.*{CONTAINER[:12]}"):
        start(folder, build=False, timeout=5)


def test_another_container_that_ends_is_told(engine: FakeEngine, folder: Path) -> None:
    fake_compose(folder.parent / "bin")
    engine.states = [state("healthy"), state("healthy", status="restarting")]
    with pytest.raises(DeployError, match=r"(?s)is restarting.*the reason stands here"):
        start(folder, build=False, timeout=5)


def test_an_image_that_is_missing_is_named(engine: FakeEngine, folder: Path) -> None:
    calls = fake_compose(folder.parent / "bin")
    engine.images = set()
    with pytest.raises(
        DeployError, match=rf"image {IMAGE} is not here: `docker pull {IMAGE}`.*--build-context"
    ):
        start(folder, build=False, timeout=5)
    assert not any(line.startswith("up") for line in asked(calls, engine))


def test_a_port_that_is_taken_stops_it_unless_by_itself(engine: FakeEngine, folder: Path) -> None:
    calls = fake_compose(folder.parent / "bin")
    busy = [("http_port", 8000), ("grafana_port", 3000)]
    with pytest.raises(DeployError, match=r"http_port 8000, grafana_port 3000.*--http-port, --grafana-port"):
        start(folder, build=False, timeout=5, busy_ports=busy)
    assert not any(line.startswith("up") for line in asked(calls, engine))
    (folder.parent / "bin" / "running").touch()
    engine.states = [state("healthy")]
    start(folder, build=False, timeout=5, busy_ports=busy)


def test_compose_that_fails_is_told(engine: FakeEngine, folder: Path) -> None:
    fake_compose(folder.parent / "bin", fails="build")
    with pytest.raises(DeployError, match=r"`docker-compose build triton` in .* ended with 1"):
        start(folder, build=True, timeout=5)
    fake_compose(folder.parent / "bin", fails="ps")
    with pytest.raises(DeployError, match="no space left"):
        start(folder, build=False, timeout=5, busy_ports=[("http_port", 8000)])


def test_without_compose_it_says_so(
    engine: FakeEngine, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(folder.parent / "bin"))
    with pytest.raises(DeployError, match="install Docker Compose"):
        start(folder, build=True, timeout=5)


def test_without_an_engine_it_says_so(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{folder}/none.sock")
    with pytest.raises(
        DeployError, match=r"no container engine listens at unix://.*none\.sock; start Docker"
    ):
        start(folder, build=False, timeout=5)
    assert main(["deploy", "compose", "--down", "--output", str(folder)]) == 2
    assert "DOCKER_HOST" in capsys.readouterr().err


def test_the_engine_of_the_current_context_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    monkeypatch.setattr("docker.context.ContextAPI.get_current_context", lambda: None)
    assert containers._address() == "unix:///var/run/docker.sock"

    class Context:
        Host = f"unix://{tmp_path}/docker.sock"

    monkeypatch.setattr("docker.context.ContextAPI.get_current_context", Context)
    assert containers._address() == f"unix://{tmp_path}/docker.sock"


def test_down_needs_no_repository(
    engine: FakeEngine, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    calls = fake_compose(folder.parent / "bin")
    assert main(["deploy", "compose", "--down", "--output", str(folder)]) == 0
    assert asked(calls, engine) == ["--profile loadtest --profile locust down"]
    with pytest.raises(DeployError, match="holds no compose"):
        stop(folder.parent)


def test_up_from_the_command_line(
    engine: FakeEngine, repository: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    calls = fake_compose(tmp_path / "bin", running=True)
    engine.states = [state("healthy")]
    target = tmp_path / "new"
    arguments = ["deploy", "compose", "--repository", str(repository), "--output", str(target), "--up"]
    assert main(arguments) == 0
    said = capsys.readouterr().out
    assert "healthy: http://127.0.0.1:8000/v2/models/llm/generate" in said
    assert f"trimaran deploy compose --down --output {target}" in said
    assert "build triton" in asked(calls, engine)
