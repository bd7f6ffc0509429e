"""Runs of two ranks and of one process, as the tests of DDP, FSDP2 and ZeRO-3 make and compare them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from checkpoints.manifest import read_manifest
from tests.training.rows import chat_rows, write_jsonl
from training.data.config import SamplingSettings
from training.metrics import read_metrics

ROOT = Path(__file__).parents[2]
STEPS = 7


def settings(method: str, *, ranks: int, **changes: Any) -> dict[str, Any]:
    """A run of two epochs, whose last step of each has fewer rows: 13 rows, 8 a step, in 2 passes.

    ``full`` has the rest of what could differ: recomputed activations, clipped gradients, evaluation.
    """
    rows = {"sampling": SamplingSettings(by="topic")} if method == "lora" else {"packing": True}
    if method == "full":
        more = {"gradient_checkpointing": True, "max_grad_norm": 0.5, "eval_steps": 2}
        rows["eval_fraction"] = 0.4
        changes = {**more, **changes}
    return {
        "method": "full" if method == "bf16" else method,
        "learning_rate": 1e-2 if method == "lora" else 1e-3,
        "max_steps": STEPS if method == "lora" else 4,
        "batch_size": 4 // ranks,
        "gradient_accumulation": 2,
        "rows": {**rows, "max_length": 128},
        "dtype": "bf16" if method == "bf16" else "fp32",
        **changes,
    }


def write_rows(folder: Path) -> Path:
    """Write the rows of ``settings``; a few of them have a rare topic."""
    rows = [{**row, "topic": "rare" if number < 3 else "common"} for number, row in enumerate(chat_rows(13))]
    return write_jsonl(folder / "rows.jsonl", rows)


@contextmanager
def two_ranks(module: str, *arguments: Path, **variables: str) -> Iterator[None]:
    """Run a module of ours on two ranks beside the block; at its end both must have ended well.

    What they said is in the file ``said`` beside their results, whose folder is the last argument.
    """
    path = os.pathsep.join([str(ROOT), variables.pop("PYTHONPATH", "")])
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    process = subprocess.Popen(
        [*command, "-m", module, *map(str, arguments)],
        env={**os.environ, "OMP_NUM_THREADS": "1", **variables, "PYTHONPATH": path},
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield
        said, _ = process.communicate(timeout=200)
    finally:
        process.terminate()
        process.communicate()
    assert process.returncode == 0, said
    (arguments[-1] / "said").write_text(said)


def column(run: Path, key: str) -> list[float]:
    """Return what the log has under ``key``, of the rows that have it."""
    return [row[key] for row in read_metrics(run / "metrics.jsonl") if key in row]


def losses(run: Path) -> list[float]:
    return column(run, "loss")


def weights(run: Path) -> dict[str, torch.Tensor]:
    """Return what a run made: its adapter's tensors or its model's."""
    result = "adapter/adapter_model" if (run / "adapter").exists() else "checkpoint/model"
    return load_file(run / f"{result}.safetensors")


def assert_close_weights(one: Path, other: Path) -> None:
    """Hold what two runs made against each other."""
    expected, found = weights(one), weights(other)
    assert expected.keys() == found.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(tensor, found[name], atol=1e-4, rtol=1e-3)


def assert_went_on(straight: Path, resumed: Path) -> None:
    """Hold a run that was cut off and went on against one that was not: equal to the bit."""
    log, other = (read_metrics(run / "metrics.jsonl") for run in (straight, resumed))
    for key in ("loss", "eval_loss"):  # SIGTERM came before an evaluation, which is made up for
        assert [row.get(key) for row in other] == [row.get(key) for row in log]
    found = weights(resumed)
    assert all(torch.equal(tensor, found[name]) for name, tensor in weights(straight).items())


def assert_whole(runs: Path, suffix: str, tied: str) -> None:
    """Check that what split runs left is as whole as what one process leaves, and loads without ranks.

    Args:
        runs: the folder of all runs.
        suffix: what the names of split runs end in.
        tied: full run of a model whose head is its embedding.
    """
    checkpoint = runs / f"full-{suffix}" / "checkpoint"
    manifest = read_manifest(checkpoint, verify=True)
    model = AutoModelForCausalLM.from_pretrained(checkpoint)
    assert model.config.architectures == ["LlamaForCausalLM"]
    assert manifest.parameters == read_manifest(runs / "full" / "checkpoint").parameters
    assert "lm_head.weight" in load_file(checkpoint / "model.safetensors")
    found = read_manifest(runs / f"{tied}-{suffix}" / "checkpoint", verify=True)
    assert found.parameters == read_manifest(runs / tied / "checkpoint").parameters < manifest.parameters
    adapter = read_manifest(runs / f"lora-{suffix}" / "adapter", verify=True)
    assert adapter.parameters == read_manifest(runs / "lora" / "adapter").parameters


def assert_told_of_nan(runs: Path) -> str:
    """Check that both ranks said of a loss that is no number where it was; return what they said."""
    said = [(runs / f"nan-{rank}").read_text() for rank in (0, 1)]
    assert said[0] == said[1]
    assert "the loss is nan at step 2" in said[0]
    assert "rows.jsonl:" in said[0]
    return said[0]
