"""DeepSpeed ZeRO-3: two ranks train what one process trains, on CPUs with gloo; what is refused is named."""

from __future__ import annotations

import json
import os
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from checkpoints.errors import ConfigError
from tests.tiny_mixtures import save_tiny_mixture
from tests.tiny_models import save_tiny_llama
from tests.training.rank_runs import (
    assert_close_weights,
    assert_told_of_nan,
    assert_went_on,
    assert_whole,
    column,
    losses,
    settings,
    two_ranks,
    write_rows,
)
from tests.training.rows import tiny_config
from training import zero
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
    data = write_rows(output)
    models = {
        "full": save_tiny_llama(output / "untied", tie_word_embeddings=False),
        "mixture": save_tiny_mixture(output / "mixture", "deepseek"),
    }
    launcher = output / "deepspeed.json"
    launcher.write_text(json.dumps(SPLIT))
    variables = {
        "PYTHONPATH": os.pathsep.join([str(beside), os.environ.get("PYTHONPATH", "")]),
        "ACCELERATE_USE_DEEPSPEED": "true",
        "ACCELERATE_DEEPSPEED_CONFIG_FILE": str(launcher),
    }
    arguments = (tiny_llama_dir, *models.values(), data, output)
    with two_ranks("tests.training.two_ranks_zero", *arguments, **variables):
        for kind in KINDS:
            model = models.get(kind, tiny_llama_dir)
            train(tiny_config(model, data, output / kind, **zero_settings(kind, ranks=1)))
    return output


@pytest.mark.parametrize("kind", ["lora", "full", "mixture"])
def test_the_loss_curve_is_that_of_one_process(runs: Path, kind: str) -> None:
    alone, together = runs / kind, runs / f"{kind}-zero"
    assert losses(together) == pytest.approx(losses(alone), rel=1e-4)
    for key in ("grad_norm", "eval_loss", "learning_rate"):
        one, other = (column(run, key) for run in (alone, together))
        assert other == pytest.approx(one, rel=1e-3 if key == "grad_norm" else 1e-4)
        assert bool(one) == (kind != "lora" or key != "eval_loss")
    # An expert that few tokens go to has gradients near 0, whose sign is what Adam's first steps go by.
    if kind != "mixture":
        assert_close_weights(alone, together)


@pytest.mark.parametrize("kind", ["lora16", "full16"])
def test_it_computes_in_bf16_as_one_process_does(runs: Path, kind: str) -> None:
    alone, together = losses(runs / kind), losses(runs / f"{kind}-zero")
    assert together == pytest.approx(alone, rel=2e-3)
    assert together != pytest.approx(losses(runs / f"{kind.removesuffix('16')}-zero"), rel=1e-6)


@pytest.mark.parametrize("kind", ["lora", "full"])
def test_a_run_that_was_cut_off_goes_on(runs: Path, kind: str) -> None:
    assert_went_on(runs / f"{kind}-zero", runs / f"{kind}-cut-zero")


def test_the_result_is_whole_and_loads_anywhere(runs: Path) -> None:
    assert_whole(runs, "zero", tied="full16")


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
    assert_told_of_nan(runs)


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
