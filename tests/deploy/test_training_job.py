"""The training Job over several nodes: its command is run here, by one process per node on this machine."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import yaml
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils.launch import prepare_multi_gpu_env

from checkpoints.manifest import read_manifest
from tests.deploy.helm_tool import REPOSITORY, Helm
from tests.deploy.objects import Manifest, of_kind, pod_templates
from tests.training.rows import chat_rows, write_jsonl
from training.metrics import read_metrics

FIRST_NODE = "llm-trimaran-training-1-0.llm-trimaran-training-1"
TWO_NODES = "training.enabled=true,training.nodes=2"
FSDP2 = "training.launcher=accelerate,training.accelerateConfig=/data/fsdp2.yaml"


def command_of_node(manifests: list[Manifest], rank: int) -> list[str]:
    """Return what the pod of a node runs, as the kubelet fills it in."""
    (pod,) = [pod for where, pod in pod_templates(manifests) if where == "Job/llm-trimaran-training-1"]
    (container,) = pod["spec"]["containers"]
    (index,) = [item for item in container["env"] if item["name"] == "NODE_RANK"]
    where = index["valueFrom"]["fieldRef"]["fieldPath"]
    assert where == "metadata.annotations['batch.kubernetes.io/job-completion-index']"
    return [part.replace("$(NODE_RANK)", str(rank)) for part in container["command"]]


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    return port


def run_together(commands: list[list[str]], folder: Path, *, seconds: float) -> list[int | None]:
    """Run the commands at once, each with its output in ``node-N.log``; return their exit codes.

    One that has not ended in time has none, and is killed with all its processes: a launcher gives those a
    session of their own, and alone they would go on training beside the other tests.
    """
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    nodes: list[psutil.Popen] = []
    end = time.monotonic() + seconds
    try:
        for rank, command in enumerate(commands):
            with (folder / f"node-{rank}.log").open("wb") as log:
                nodes.append(
                    psutil.Popen(
                        command, env=environment, cwd=folder,
                        stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
                    )
                )  # fmt: skip
        for node in nodes:
            with contextlib.suppress(psutil.TimeoutExpired):
                node.wait(max(0, end - time.monotonic()))
        return [node.poll() for node in nodes]
    finally:
        for node in nodes:
            kill_with_descendants(node)


def kill_with_descendants(process: psutil.Popen) -> None:
    if process.poll() is not None:
        return
    for one in [*process.children(recursive=True), process]:
        with contextlib.suppress(psutil.NoSuchProcess):
            one.kill()
    process.wait()


def test_a_node_that_hangs_is_killed_with_all_its_processes(tmp_path: Path) -> None:
    hangs = ["sh", "-c", "setsid sleep 600 & echo $! > child; exec sleep 600"]
    child, seconds = tmp_path / "child", 1.0
    # Again on a machine so busy that a shell does not start in that time.
    while not (child.exists() and child.read_text()):
        assert run_together([hangs], tmp_path, seconds=seconds) == [None]
        seconds *= 4
    end = time.monotonic() + 60
    with contextlib.suppress(psutil.NoSuchProcess):
        # Killed, it may wait for somebody to ask how it ended.
        while psutil.Process(int(child.read_text())).status() != psutil.STATUS_ZOMBIE:
            assert time.monotonic() < end, "it goes on"
            time.sleep(0.05)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_two_nodes_train_together(helm: Helm, tiny_llama_dir: Path, tmp_path: Path) -> None:
    settings = {
        "model": str(tiny_llama_dir), "data": {"train": str(tmp_path / "rows.jsonl"), "max_length": 64},
        "method": "full", "dtype": "fp32", "device": "cpu", "threads": 1, "batch_size": 1, "max_steps": 2,
    }  # fmt: skip
    write_jsonl(tmp_path / "rows.jsonl", chat_rows(4))
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    manifests = helm.manifests("--set", TWO_NODES)
    changes = {
        FIRST_NODE: "127.0.0.1", "29500": str(free_port()),
        "/data/": f"{tmp_path}/", "/output/": f"{tmp_path}/",
    }  # fmt: skip
    commands = []
    for rank in (0, 1):
        program, *arguments = command_of_node(manifests, rank)
        assert program == "torchrun"
        line = "\n".join(arguments)
        for there, here in changes.items():
            assert there in line
            line = line.replace(there, here)
        commands.append([sys.executable, "-m", "torch.distributed.run", *line.split("\n")])
    nodes = run_together(commands, tmp_path, seconds=480)
    said = [(tmp_path / f"node-{rank}.log").read_text(errors="replace")[-4000:] for rank in (0, 1)]
    assert nodes == [0, 0], said
    assert len(read_metrics(tmp_path / "run" / "metrics.jsonl")) == 2
    assert read_manifest(tmp_path / "run" / "checkpoint", verify=True).parameters > 0


def test_accelerate_takes_the_arguments(helm: Helm) -> None:
    manifests = helm.manifests("--set", f"{TWO_NODES},training.processesPerNode=4,{FSDP2}")
    program, command, *arguments = command_of_node(manifests, 1)
    assert (program, command) == ("accelerate", "launch")
    recipe = REPOSITORY / "recipes" / "accelerate" / "fsdp2.yaml"  # its own numbers are 1 and 2
    here = [part.replace("/data/fsdp2.yaml", str(recipe)) for part in arguments]
    parsed, *_ = _validate_launch_command(launch_command_parser().parse_args(here))
    assert (parsed.num_machines, parsed.num_processes, parsed.machine_rank) == (2, 8, 1)
    assert (parsed.module, parsed.training_script) == (True, "trimaran")
    assert parsed.training_script_args[0] == "train"
    environment = prepare_multi_gpu_env(parsed)
    assert environment["FSDP_VERSION"] == "2"
    assert (parsed.main_process_ip, parsed.main_process_port) == (FIRST_NODE, 29500)


def test_one_failure_of_all_nodes_counts_once(helm: Helm) -> None:
    """Of five nodes, one that is preempted ends the other four with 1: more than a limit of 3 pods."""
    settings = "training.enabled=true,training.nodes=5,training.backoffLimit=3"
    (job,) = of_kind(helm.manifests("--set", settings), "Job")
    assert job["spec"]["backoffLimit"] == 15
    (runtime,) = of_kind(helm.manifests("--set", f"{settings},training.kind=trainjob"), "TrainingRuntime")
    (replicated,) = runtime["spec"]["template"]["spec"]["replicatedJobs"]
    assert replicated["template"]["spec"]["backoffLimit"] == 15
