"""The chart's Deployment, rendered by helm and run by ``podman play kube``: real containers, no cluster."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from checkpoints.loading import load_model
from checkpoints.prompt import PromptEncoder
from serving.ports import choose_ports
from tests.deploy.containers.conftest import Stack, get
from tests.deploy.containers.podman import Podman, PodmanMissing, running_podman
from tests.deploy.helm_tool import Helm, value_sets
from tests.deploy.monitoring.tools import missing
from tests.equality import assert_equal_tokens, generate_greedily
from tests.serving.endpoint import post

pytestmark = [pytest.mark.slow, pytest.mark.containers, pytest.mark.timeout(600)]

IMAGE = "localhost/trimaran/serve-cpu:ci"
CONTAINER = "llm-trimaran-pod-0-server"


@pytest.fixture
def podman(tmp_path: Path) -> Iterator[Podman]:
    try:
        with running_podman(tmp_path) as found:
            yield found
    except PodmanMissing as reason:
        missing("podman", str(reason))


def publish_on_loopback(manifest: dict[str, Any]) -> list[int]:
    """Give each port a free one of this machine; podman would publish the same number on every address."""
    declared = manifest["spec"]["template"]["spec"]["containers"][0]["ports"]
    chosen = choose_ports("127.0.0.1", (0,) * len(declared))
    for port, number in zip(declared, chosen, strict=True):
        port.update(hostPort=number, hostIP="127.0.0.1")
    return list(chosen)


def test_the_rendered_deployment_serves(
    podman: Podman,
    stack: Stack,
    checkpoint: Path,
    helm: Helm,
    tmp_path: Path,
    wait_until: Callable[[Callable[[], bool], float], None],
) -> None:
    stack.engine.docker("tag", "trimaran/serve-cpu:0.1.0", IMAGE)
    podman.load(IMAGE, ["docker"], stack.engine.environment)
    podman.run("volume", "create", "trimaran-models")
    volume = Path(podman.run("volume", "inspect", "--format={{.Mountpoint}}", "trimaran-models").strip())
    shutil.copytree(stack.repository, volume, dirs_exist_ok=True)

    rendered = helm.template(
        *("--values", value_sets()["podman"], "--show-only", "templates/deployment.yaml"),
    )
    manifest = yaml.safe_load(rendered)
    http, _, metrics = publish_on_loopback(manifest)
    file = tmp_path / "deployment.yaml"
    file.write_text(yaml.safe_dump(manifest))
    podman.run("play", "kube", "--network=slirp4netns", str(file))
    try:
        url = f"http://127.0.0.1:{http}"
        try:
            wait_until(lambda: ready(f"{url}/v2/models/llm/ready"), 120)
        except AssertionError:
            pytest.fail(podman.run("ps", "--all") + podman.run("logs", CONTAINER, check=False)[-4000:])
        question: dict[str, Any] = {"text_input": "The capital of France is", "max_tokens": 16}
        status, answer = post(f"{url}/v2/models/llm/generate", question, timeout=60)
        assert status == 200, answer
        encoder, model = PromptEncoder.from_checkpoint(checkpoint), load_model(checkpoint, dtype="fp32")
        prompt = encoder.encode(text=question["text_input"])
        offline = generate_greedily(model, prompt, question["max_tokens"], encoder.tokens.stop)
        assert_equal_tokens([offline], [list(answer["output_ids"])])
        assert b"nv_inference_request_success" in get(f"http://127.0.0.1:{metrics}/metrics")

        inside = ("exec", CONTAINER)
        assert podman.run(*inside, "id", "-u").strip() == "10001"
        assert "Read-only file system" in podman.run(*inside, "touch", "/opt/trimaran/x", check=False)
        for path in ("repository/models/llm/unload", "repository/index"):
            assert post(f"{url}/v2/{path}", {})[0] in (401, 403), path
        assert "tritonserver starts" in podman.run("logs", CONTAINER)
    finally:
        stopped = podman.run("play", "kube", "--down", str(file), check=False)
    assert CONTAINER not in podman.run("ps", "--all", "--format={{.Names}}"), stopped


def ready(url: str) -> bool:
    try:
        get(url, timeout=2)
    except OSError:
        return False
    return True
