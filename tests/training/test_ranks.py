"""Two ranks train what one process trains: DDP and FSDP2, on CPUs with gloo."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from checkpoints.manifest import read_manifest
from tests.tiny_models import save_tiny_llama
from tests.training.rows import chat_rows, tiny_config, write_jsonl
from training.data.config import SamplingSettings
from training.metrics import read_metrics
from training.run import train

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


@pytest.fixture(scope="module")
def runs(tiny_llama_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every run, by name: of two ranks, and of one process."""
    output = tmp_path_factory.mktemp("ranks")
    rows = [{**row, "topic": "rare" if number < 3 else "common"} for number, row in enumerate(chat_rows(13))]
    data = write_jsonl(output / "rows.jsonl", rows)
    untied = save_tiny_llama(output / "untied", tie_word_embeddings=False)
    models = {"lora": tiny_llama_dir, "full": untied, "bf16": tiny_llama_dir}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [
            *command,
            "-m",
            "tests.training.two_ranks",
            str(tiny_llama_dir),
            str(untied),
            str(data),
            str(output),
        ],
        env=environment,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        for method, model in models.items():
            train(tiny_config(model, data, output / method, **settings(method, ranks=1)))
        said, _ = process.communicate(timeout=200)
    finally:
        process.terminate()
        process.communicate()
    assert process.returncode == 0, said
    (output / "said").write_text(said)
    return output


def losses(run: Path) -> list[float]:
    return [row["loss"] for row in read_metrics(run / "metrics.jsonl")]


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
@pytest.mark.parametrize("method", ["lora", "full"])
def test_the_loss_curve_is_that_of_one_process(runs: Path, method: str, strategy: str) -> None:
    alone, together = losses(runs / method), losses(runs / f"{method}-{strategy}")
    assert len(alone) == (STEPS if method == "lora" else 4)
    assert together == pytest.approx(alone, rel=1e-4)
    for key in ("grad_norm", "eval_loss"):
        one, other = (
            [row[key] for row in read_metrics(run / "metrics.jsonl") if key in row]
            for run in (runs / method, runs / f"{method}-{strategy}")
        )
        assert other == pytest.approx(one, rel=1e-3 if key == "grad_norm" else 1e-4)
        assert len(one) == {"grad_norm": len(alone), "eval_loss": 0 if method == "lora" else 2}[key]
        assert method == "lora" or key == "eval_loss" or min(one) > 0.5  # so clipping does something
    result = "adapter/adapter_model" if method == "lora" else "checkpoint/model"
    weights, others = (
        load_file(run / f"{result}.safetensors") for run in (runs / method, runs / f"{method}-{strategy}")
    )
    assert weights.keys() == others.keys()
    for name, tensor in weights.items():
        torch.testing.assert_close(tensor, others[name], atol=1e-4, rtol=1e-3)


def test_sharded_weights_compute_in_bf16_as_one_process_does(runs: Path) -> None:
    alone, together = losses(runs / "bf16"), losses(runs / "bf16-fsdp")
    assert together == pytest.approx(alone, rel=2e-3)
    # The loss is no bf16 number, which accelerate's own policy for FSDP2 makes of it.
    assert any(float(torch.tensor(loss).bfloat16()) != loss for loss in together)


def test_a_loss_that_is_no_number_is_told_by_the_rank_that_has_the_row(runs: Path) -> None:
    said = [(runs / f"nan-{rank}").read_text() for rank in (0, 1)]
    assert said[0] == said[1]
    assert "the loss is nan at step 2" in said[0]
    assert "rows.jsonl:" in said[0]
    assert said[0].count("rows.jsonl:") == 2  # the batch of one pass on one rank


@pytest.mark.parametrize("run", ["lora-ddp", "lora-fsdp", "full-fsdp"])
def test_a_run_of_two_ranks_that_was_cut_off_goes_on(runs: Path, run: str) -> None:
    for key in ("loss", "eval_loss"):  # SIGTERM came before an evaluation, which is made up for
        one, other = (
            [row.get(key) for row in read_metrics(runs / name / "metrics.jsonl")]
            for name in (run, f"{run}-cut")
        )
        assert other == one
    result = "checkpoint/model" if run.startswith("full") else "adapter/adapter_model"
    one, other = (load_file(runs / name / f"{result}.safetensors") for name in (run, f"{run}-cut"))
    assert all(torch.equal(tensor, other[name]) for name, tensor in one.items())


def test_the_checkpoint_of_a_sharded_run_loads_anywhere(runs: Path) -> None:
    checkpoint = runs / "full-fsdp" / "checkpoint"
    manifest = read_manifest(checkpoint, verify=True)
    model = AutoModelForCausalLM.from_pretrained(checkpoint)
    assert model.config.architectures == ["LlamaForCausalLM"]
    assert manifest.parameters == read_manifest(runs / "full" / "checkpoint").parameters
    assert "lm_head.weight" in load_file(checkpoint / "model.safetensors")
    tied = read_manifest(runs / "bf16-fsdp" / "checkpoint", verify=True)
    assert tied.parameters == read_manifest(runs / "bf16" / "checkpoint").parameters < manifest.parameters
    adapter = read_manifest(runs / "lora-fsdp" / "adapter", verify=True)
    assert adapter.parameters == read_manifest(runs / "lora" / "adapter").parameters


def test_a_mistake_is_found_by_all_ranks(runs: Path) -> None:
    said = {(runs / f"refused-{rank}").read_text() for rank in (0, 1)}
    assert len(said) == 1
    assert "learning_rate was 0.01, now it is 1.0" in said.pop()


def test_another_number_of_ranks_is_refused(runs: Path, tiny_llama_dir: Path, tmp_path: Path) -> None:
    from checkpoints.errors import ConfigError
    from training.resume import RunDirectory

    directory = RunDirectory(runs / "lora-ddp")
    with pytest.raises(ConfigError, match=r"parallel.ranks was 2, now it is 1"):
        directory._compare({"parallel": {"ranks": 1, "strategy": "ddp"}})
