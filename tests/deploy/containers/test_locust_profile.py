"""Locust's master and workers by their profile of the compose file, used through the web UI's API."""

from __future__ import annotations

import json
import urllib.parse
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.deploy.containers.conftest import Stack, get
from tests.deploy.monitoring.tools import missing

pytestmark = [pytest.mark.slow, pytest.mark.containers, pytest.mark.timeout(900)]

PROFILE = ("--profile", "locust")
IMAGE = "trimaran-test/locust:fresh"
RESULTS = "/results/locust/results.json"


def test_it_was_brought_up_by_compose_v2(stack: Stack) -> None:
    """``test_compose_v1_says_that_the_repository_holds_no_model`` runs the gate with v1."""
    if not stack.engine.own:
        pytest.skip("the engine is the machine's own, and so is its Compose")
    if stack.engine.plugins is None:
        missing("compose-v2", "the development set-up has not unpacked it")
    labels = stack.inspect(stack.container("triton"))["Config"]["Labels"]
    assert labels["com.docker.compose.version"].startswith("2.")


def test_the_profile_builds_its_image_and_measures(
    stack: Stack, tmp_path: Path, wait_until: Callable[[Callable[[], bool], float], None]
) -> None:
    """As on a fresh machine: an image of this name is not there."""
    stack.engine.docker("rmi", "--force", IMAGE, check=False)  # of an earlier run
    scaled = ("up", "-d", "--scale", "locust-worker=2", "locust-master", "locust-worker")
    stack.compose(*PROFILE, *scaled, timeout=300, TRIMARAN_LOADTEST_IMAGE=IMAGE)
    url = stack.url("locust")

    def workers() -> int:
        try:
            return len(json.loads(get(f"{url}/stats/requests"))["workers"])
        except (OSError, ValueError, KeyError):
            return 0

    wait_until(lambda: workers() == 2, 60)
    form = {"user_count": 2, "spawn_rate": 2, "run_time": "5s", "max_tokens": 8, "host": "http://triton:8000"}
    with urllib.request.urlopen(f"{url}/swarm", urllib.parse.urlencode(form).encode(), timeout=20) as answer:
        assert json.load(answer)["success"]
    read = ("exec", "-T", "locust-master", "cat", RESULTS)
    wait_until(lambda: "requests" in stack.compose(*PROFILE, *read, check=False), 120)
    master = stack.compose(*PROFILE, "ps", "-q", "locust-master").strip()
    stack.engine.docker("cp", f"{master}:/results/locust", str(tmp_path / "results"))
    found: dict[str, Any] = json.loads((tmp_path / "results" / "results.json").read_text(encoding="utf-8"))
    assert found["requests"]["failed"] == 0, found["requests"]
    assert found["requests"]["ok"] > 0
    assert len(found["load_generator"]["workers"]) == 2
