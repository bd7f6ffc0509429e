"""A loss that is no number ends the run before a step is taken with it, and says whose rows they were."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from checkpoints.errors import ConfigError
from tests.training.rows import chat_rows, tiny_config, write_jsonl
from training.metrics import read_metrics
from training.run import train
from training.trainer import build_trainer

POISON = "I am poison"


def poisoned(build: Any) -> Callable[..., Any]:
    """Make the loss NaN wherever a row has the tokens of ``POISON``."""

    def make(config: Any, model: Any, **kwargs: Any) -> Any:
        trainer = build(config, model, **kwargs)
        decode, compute = kwargs["decode"], trainer.compute_loss

        def compute_loss(model: Any, inputs: Any, *args: Any, **more: Any) -> Any:
            loss = compute(model, inputs, *args, **more)
            bad = any(POISON in decode(ids) for ids in inputs["input_ids"])
            return loss * float("nan") if bad and model.training else loss

        trainer.compute_loss = compute_loss
        return trainer

    return make


@pytest.mark.parametrize(
    "settings",
    [{"batch_size": 2, "gradient_accumulation": 2}, {"rows": {"packing": True}, "batch_size": 1}],
    ids=["accumulation", "packing"],
)
def test_it_names_the_row_and_keeps_the_last_state(
    settings: dict[str, Any], tiny_llama_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = chat_rows(12)
    rows[7]["messages"][0]["content"] = POISON
    rows[2]["messages"][0]["content"] = "long " * 200
    data = write_jsonl(tmp_path / "rows.jsonl", rows)
    output = tmp_path / "out"
    monkeypatch.setattr("training.run.build_trainer", poisoned(build_trainer))
    config = tiny_config(tiny_llama_dir, data, output, max_steps=12, save_steps=1, **settings)
    with pytest.raises(ConfigError, match=r"the loss is nan at step \d+") as error:
        train(config)
    text = str(error.value)
    # Row 3 has no answer within the length, so it is dropped: what is named must be the line all the same.
    assert f"{data}:8 " in text
    assert POISON in text
    if "gradient_accumulation" in settings:
        assert text.count(f"{data}:") <= 2  # the micro-batch, not the step
    step = int(text.partition("at step ")[2].partition(",")[0])
    states = sorted(path.name for path in (output / "checkpoints").glob("checkpoint-*"))
    assert all(int(name.rpartition("-")[2]) < step for name in states)
    assert bool(states) == (step > 1)
    for state in states:
        saved = torch.load(output / "checkpoints" / state / "optimizer.pt", weights_only=True)
        assert all(one["exp_avg"].isfinite().all() for one in saved["state"].values())


def test_gradients_that_are_no_numbers_stop_it_too(
    tiny_llama_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def exploding(config: Any, model: Any, **kwargs: Any) -> Any:
        parameter = next(one for one in model.parameters() if one.requires_grad)
        parameter.register_hook(lambda gradient: gradient * float("inf"))
        return build_trainer(config, model, **kwargs)

    monkeypatch.setattr("training.run.build_trainer", exploding)
    data = write_jsonl(tmp_path / "rows.jsonl", chat_rows(6))
    with pytest.raises(ConfigError, match=r"the norm of the gradients is .* at step 1, .*rows\.jsonl:\d"):
        train(tiny_config(tiny_llama_dir, data, tmp_path / "out", max_grad_norm=0))
    assert not (tmp_path / "out" / "metrics.jsonl").exists() or not read_metrics(
        tmp_path / "out" / "metrics.jsonl"
    )
