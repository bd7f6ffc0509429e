"""DeepSpeed ZeRO-3: two ranks train what one process trains, on CPUs with gloo; what is refused is named."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from checkpoints.errors import ConfigError
from checkpoints.manifest import read_manifest
from tests.tiny_mixtures import save_tiny_mixture
from tests.tiny_models import save_tiny_llama
from tests.training.rows import chat_rows, tiny_config, write_jsonl
from tests.training.test_ranks import ROOT, losses, settings
from training import zero
from training.metrics import read_metrics
from training.resume import RunDirectory
from training.run import train

# Small weights would stay whole on every rank, and the tiny model's are all small.
SPLIT = {"zero_optimization": {"stage": 3, "stage3_param_persistence_threshold": 0}}

KINDS = ("lora", "full", "mixture", "lora16", "full16")


def zero_settings(kind: str, *, ranks: int, **changes: Any) -> dict[str, Any]:
    """The runs of ``test_ranks``; ``lora16`` and ``full16`` in bf16, ``mixture`` is full on another model."""
    method = "full" if kind == "mixture" else kind.removesuffix("16")
    chosen = settings(method, ranks=ranks, **changes)
    return {**chosen, "dtype": "bf16" if kind.endswith("16") else "fp32"}


@pytest.fixture(scope="module")
def runs(tiny_llama_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every run, by name: of two ranks, and of one process."""
    beside = Path(sys.prefix) / "share" / "deepspeed"  # where the Makefile puts it
    if find_spec("deepspeed") is None and not beside.is_dir():
        pytest.skip("DeepSpeed is not installed")
    output = tmp_path_factory.mktemp("zero")
    rows = [{**row, "topic": "rare" if number < 3 else "common"} for number, row in enumerate(chat_rows(13))]
    data = write_jsonl(output / "rows.jsonl", rows)
    models = {
        "full": save_tiny_llama(output / "untied", tie_word_embeddings=False),
        "mixture": save_tiny_mixture(output / "mixture", "deepseek"),
    }
    launcher = output / "deepspeed.json"
    launcher.write_text(json.dumps(SPLIT))
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(beside), os.environ.get("PYTHONPATH", "")]),
        "OMP_NUM_THREADS": "1",
        "ACCELERATE_USE_DEEPSPEED": "true",
        "ACCELERATE_DEEPSPEED_CONFIG_FILE": str(launcher),
    }
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    process = subprocess.Popen(
        [
            *[*command, "-m", "tests.training.two_ranks_zero"],
            *map(str, (tiny_llama_dir, *models.values(), data, output)),
        ],
        env=environment,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        for kind in KINDS:
            train(
                tiny_config(
                    models.get(kind, tiny_llama_dir), data, output / kind, **zero_settings(kind, ranks=1)
                )
            )
        said, _ = process.communicate(timeout=200)
    finally:
        process.terminate()
        process.communicate()
    assert process.returncode == 0, said
    (output / "said").write_text(said)
    return output


def weights(run: Path) -> dict[str, torch.Tensor]:
    result = "adapter/adapter_model" if (run / "adapter").exists() else "checkpoint/model"
    return load_file(run / f"{result}.safetensors")


@pytest.mark.parametrize("kind", ["lora", "full", "mixture"])
def test_the_loss_curve_is_that_of_one_process(runs: Path, kind: str) -> None:
    alone, together = runs / kind, runs / f"{kind}-zero"
    assert losses(together) == pytest.approx(losses(alone), rel=1e-4)
    for key in ("grad_norm", "eval_loss", "learning_rate"):
        one, other = (
            [row[key] for row in read_metrics(run / "metrics.jsonl") if key in row]
            for run in (alone, together)
        )
        assert other == pytest.approx(one, rel=1e-3 if key == "grad_norm" else 1e-4)
        assert bool(one) == (kind != "lora" or key != "eval_loss")
    expected, found = weights(alone), weights(together)
    assert expected.keys() == found.keys()
    # An expert that few tokens go to has gradients near 0, whose sign is what Adam's first steps go by.
    for name, tensor in expected.items() if kind != "mixture" else ():
        torch.testing.assert_close(tensor, found[name], atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("kind", ["lora16", "full16"])
def test_it_computes_in_bf16_as_one_process_does(runs: Path, kind: str) -> None:
    alone, together = losses(runs / kind), losses(runs / f"{kind}-zero")
    assert together == pytest.approx(alone, rel=2e-3)
    assert together != pytest.approx(losses(runs / f"{kind.removesuffix('16')}-zero"), rel=1e-6)


@pytest.mark.parametrize("kind", ["lora", "full"])
def test_a_run_that_was_cut_off_goes_on(runs: Path, kind: str) -> None:
    for key in ("loss", "eval_loss"):
        one, other = (
            [row.get(key) for row in read_metrics(runs / name / "metrics.jsonl")]
            for name in (f"{kind}-zero", f"{kind}-cut-zero")
        )
        assert other == one
    straight, resumed = weights(runs / f"{kind}-zero"), weights(runs / f"{kind}-cut-zero")
    assert all(torch.equal(tensor, resumed[name]) for name, tensor in straight.items())


def test_the_result_is_whole_and_loads_anywhere(runs: Path) -> None:
    checkpoint = runs / "full-zero" / "checkpoint"
    manifest = read_manifest(checkpoint, verify=True)
    model = AutoModelForCausalLM.from_pretrained(checkpoint)
    assert model.config.architectures == ["LlamaForCausalLM"]
    assert manifest.parameters == read_manifest(runs / "full" / "checkpoint").parameters
    tied = read_manifest(runs / "full16-zero" / "checkpoint", verify=True)
    assert tied.parameters == read_manifest(runs / "full16" / "checkpoint").parameters < manifest.parameters
    adapter = read_manifest(runs / "lora-zero" / "adapter", verify=True)
    assert adapter.parameters == read_manifest(runs / "lora" / "adapter").parameters


def test_a_state_counts_when_every_rank_has_written_its_share(runs: Path, tmp_path: Path) -> None:
    output = tmp_path / "run"
    shutil.copytree(runs / "full-zero", output)
    directory = RunDirectory(output)
    state = directory._last_complete_state()
    assert state is not None
    (share,) = state.glob("global_step*/zero_pp_rank_1_mp_rank_00_optim_states.pt")
    share.write_bytes(share.read_bytes()[: share.stat().st_size // 2])
    assert directory._last_complete_state() != state


def test_a_loss_that_is_no_number_ends_the_run_on_all_ranks(runs: Path) -> None:
    said = [(runs / f"nan-{rank}").read_text() for rank in (0, 1)]
    assert said[0] == said[1]
    assert "the loss is nan at step 2" in said[0]
    assert "rows.jsonl:" in said[0]


def test_bf16_weights_are_refused(runs: Path) -> None:
    assert {(runs / f"refused-{rank}").read_text() for rank in (0, 1)} == {(runs / "refused-0").read_text()}
    assert "full.weights = bf16 and zero clash" in (runs / "refused-0").read_text()


@pytest.mark.parametrize(
    ("stage", "extra", "message"),
    [
        (None, {}, r"zero_stage = 2 .*only ZeRO-3.*zero3\.yaml"),
        (1, {}, r"zero_stage = 1 .*only ZeRO-3"),
        (3, {"optimizer": {"type": "AdamW"}}, r"deepspeed\.json sets optimizer"),
    ],
)
def test_what_the_launcher_may_not_ask_for_is_named(
    stage: int | None, extra: dict[str, Any], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(zero, "find_spec", lambda name: object())
    if stage is not None:
        path = tmp_path / "deepspeed.json"
        path.write_text(json.dumps({"zero_optimization": {"stage": stage}, **extra}))
        monkeypatch.setenv("ACCELERATE_DEEPSPEED_CONFIG_FILE", str(path))
    with pytest.raises(ConfigError, match=message):
        zero.check_launcher()


def test_deepspeed_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zero, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'trimaran\[deepspeed\]'.*fsdp2\.yaml"):
        zero.check_launcher()
