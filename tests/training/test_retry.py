"""Out of memory: the same rows in fewer passes of fewer rows, and the losses of the run that had memory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from checkpoints.errors import ConfigError
from tests.tiny_mixtures import save_tiny_mixture
from tests.training.rows import chat_rows, tiny_config, write_jsonl
from training.metrics import read_metrics
from training.run import train
from training.trainer import build_trainer

# As PyTorch's allocator for CPUs says it.
TEXT = (
    "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to"
)


def short_of_memory(build: Any, most: int, where: str) -> Callable[..., Any]:
    """Let a pass over more than ``most`` sequences fail, in its forward or in the midst of its backward."""

    class Fails(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, value: torch.Tensor) -> torch.Tensor:
            return value.clone()

        @staticmethod
        def backward(ctx: Any, *gradients: torch.Tensor) -> torch.Tensor:
            raise RuntimeError(TEXT)

    def make(config: Any, model: Any, **kwargs: Any) -> Any:
        trainer = build(config, model, **kwargs)
        layer = model.get_base_model().model.layers[0]
        layer.register_forward_hook(hook)
        return trainer

    def hook(layer: Any, inputs: Any, output: Any) -> Any:
        if len(output) <= most or not layer.training:
            return output
        if where == "forward":
            raise RuntimeError(TEXT)
        return Fails.apply(output)

    return make


def losses(tiny_llama_dir: Path, output: Path, data: Path, **settings: Any) -> tuple[list[Any], list[Any]]:
    train(tiny_config(tiny_llama_dir, data, output, max_steps=6, **settings))
    rows = read_metrics(output / "metrics.jsonl")
    return [row["loss"] for row in rows], [row.get("grad_norm") for row in rows]


@pytest.mark.parametrize("where", ["forward", "backward"])
@pytest.mark.parametrize(
    "settings",
    [{"batch_size": 8}, {"batch_size": 4, "gradient_accumulation": 2}],
    ids=["batch", "accumulation"],
)
def test_the_losses_are_those_of_the_run_that_had_memory(
    where: str,
    settings: dict[str, Any],
    tiny_llama_dir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data = write_jsonl(tmp_path / "rows.jsonl", chat_rows(20))
    straight = losses(tiny_llama_dir, tmp_path / "straight", data, **settings)
    monkeypatch.setattr("training.run.build_trainer", short_of_memory(build_trainer, 3, where))
    with pytest.raises(RuntimeError, match="can't allocate memory"):
        losses(tiny_llama_dir, tmp_path / "failed", data, **settings)
    found = losses(tiny_llama_dir, tmp_path / "short", data, retry_out_of_memory=True, **settings)
    for one, other in zip(straight, found, strict=True):
        assert len(one) == 6
        assert other == pytest.approx(one, rel=1e-4)


def test_packs_are_halved_like_rows(
    tiny_llama_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = write_jsonl(tmp_path / "rows.jsonl", chat_rows(30))
    settings: dict[str, Any] = {"batch_size": 4, "rows": {"packing": True, "max_length": 96}}
    straight = losses(tiny_llama_dir, tmp_path / "straight", data, **settings)
    monkeypatch.setattr("training.run.build_trainer", short_of_memory(build_trainer, 1, "forward"))
    found = losses(tiny_llama_dir, tmp_path / "short", data, retry_out_of_memory=True, **settings)
    assert found[0] == pytest.approx(straight[0], rel=1e-4)


def test_where_one_row_is_too_much_the_remedies_are_named(
    tiny_llama_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = write_jsonl(tmp_path / "rows.jsonl", chat_rows(8))
    monkeypatch.setattr("training.run.build_trainer", short_of_memory(build_trainer, 0, "forward"))
    with pytest.raises(ConfigError, match=r"single sequence.*max_length.*gradient_checkpointing.*qlora"):
        losses(tiny_llama_dir, tmp_path / "out", data, retry_out_of_memory=True)


def test_a_mixture_of_experts_is_refused(tmp_path: Path) -> None:
    base = save_tiny_mixture(tmp_path / "base", "deepseek_v2")
    data = write_jsonl(tmp_path / "rows.jsonl", chat_rows(4))
    with pytest.raises(ConfigError, match=r"retry_out_of_memory = true, but the model is a mixture"):
        train(tiny_config(base, data, tmp_path / "out", retry_out_of_memory=True))
