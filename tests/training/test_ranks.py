"""Two ranks train what one process trains: DDP and FSDP2, on CPUs with gloo."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.tiny_models import save_tiny_llama
from tests.training.rank_runs import (
    STEPS,
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
from training.run import train


@pytest.fixture(scope="module")
def runs(tiny_llama_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every run, by name: of two ranks, and of one process."""
    output = tmp_path_factory.mktemp("ranks")
    data = write_rows(output)
    untied = save_tiny_llama(output / "untied", tie_word_embeddings=False)
    models = {"lora": tiny_llama_dir, "full": untied, "bf16": tiny_llama_dir}
    with two_ranks("tests.training.two_ranks", tiny_llama_dir, untied, data, output):
        for method, model in models.items():
            train(tiny_config(model, data, output / method, **settings(method, ranks=1)))
    return output


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
@pytest.mark.parametrize("method", ["lora", "full"])
def test_the_loss_curve_is_that_of_one_process(runs: Path, method: str, strategy: str) -> None:
    alone, together = losses(runs / method), losses(runs / f"{method}-{strategy}")
    assert len(alone) == (STEPS if method == "lora" else 4)
    assert together == pytest.approx(alone, rel=1e-4)
    for key in ("grad_norm", "eval_loss"):
        one, other = (column(run, key) for run in (runs / method, runs / f"{method}-{strategy}"))
        assert other == pytest.approx(one, rel=1e-3 if key == "grad_norm" else 1e-4)
        assert len(one) == {"grad_norm": len(alone), "eval_loss": 0 if method == "lora" else 2}[key]
        assert method == "lora" or key == "eval_loss" or min(one) > 0.5  # so clipping does something
    assert_close_weights(runs / method, runs / f"{method}-{strategy}")


def test_sharded_weights_compute_in_bf16_as_one_process_does(runs: Path) -> None:
    alone, together = losses(runs / "bf16"), losses(runs / "bf16-fsdp")
    assert together == pytest.approx(alone, rel=2e-3)
    # The loss is no bf16 number, which accelerate's own policy for FSDP2 makes of it.
    assert any(float(torch.tensor(loss).bfloat16()) != loss for loss in together)


def test_a_loss_that_is_no_number_is_told_by_the_rank_that_has_the_row(runs: Path) -> None:
    said = assert_told_of_nan(runs)
    assert said.count("rows.jsonl:") == 2  # the batch of one pass on one rank


@pytest.mark.parametrize("run", ["lora-ddp", "lora-fsdp", "full-fsdp"])
def test_a_run_of_two_ranks_that_was_cut_off_goes_on(runs: Path, run: str) -> None:
    assert_went_on(runs / run, runs / f"{run}-cut")


def test_the_checkpoint_of_a_sharded_run_loads_anywhere(runs: Path) -> None:
    assert_whole(runs, "fsdp", tied="bf16")


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
