"""Runs on tiny mixtures of experts: routers, balance, capacity, adapted experts, and what is written."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import PreTrainedTokenizerFast

from checkpoints.adapters import attach_adapter
from checkpoints.calibration import calibration_batches
from checkpoints.errors import ConfigError
from checkpoints.loading import load_model, load_tokenizer
from checkpoints.manifest import read_manifest
from checkpoints.prompt import PromptEncoder
from tests.training.moe.models import EXPERTS, MODELS, tiny_moe
from tests.training.rows import chat_rows, tiny_config, write_jsonl
from training.config import MergeConfig
from training.merge import merge
from training.methods.lora.config import LoraSettings
from training.moe.config import MoeSettings
from training.run import train


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_jsonl(tmp_path_factory.mktemp("data") / "rows.jsonl", chat_rows(16))


def saved(name: str, tokenizer: PreTrainedTokenizerFast, folder: Path) -> Path:
    tiny_moe(name).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def base(tiny_tokenizer: PreTrainedTokenizerFast, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved("qwen3_moe", tiny_tokenizer, tmp_path_factory.mktemp("base") / "model")


def expert_log(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "experts.jsonl").read_text().splitlines()]


def test_routers_are_released_after_the_warm_up_and_experts_are_logged(
    base: Path, data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    settings = MoeSettings(router="warmup", router_warmup=0.3, expert_capacity_factor=1.0)
    adapter = train(tiny_config(base, data, tmp_path / "run", moe=settings, max_steps=10))
    rows = expert_log(tmp_path / "run")
    assert [row["step"] for row in rows] == list(range(1, 11))
    assert [row["routers_trainable"] for row in rows] == [False] * 3 + [True] * 7
    assert "routers are released at step 4" in caplog.text
    for row in rows:
        assert len(row["layers"]) == MODELS["qwen3_moe"][2]
        for layer in row["layers"].values():
            assert sum(layer["load"]) == pytest.approx(EXPERTS, abs=1e-2)
            assert 0 < layer["entropy"] <= 1
            assert 0 <= layer["dropped"] < 1
    assert any(layer["dropped"] > 0 for row in rows for layer in row["layers"].values())
    assert (tmp_path / "run" / "experts.png").read_bytes().startswith(b"\x89PNG")
    # The adapter carries the trained routers whole, and they have moved.
    before = load_model(base, dtype="fp32").state_dict()
    routers = {
        name: w for name, w in load_file(adapter / "adapter_model.safetensors").items() if ".gate." in name
    }
    assert len(routers) == MODELS["qwen3_moe"][2]
    for name, weight in routers.items():
        assert not torch.equal(weight, before[name.removeprefix("base_model.model.")])


def test_frozen_routers_stay_as_they_are(base: Path, data: Path, tmp_path: Path) -> None:
    adapter = train(tiny_config(base, data, tmp_path / "run", max_steps=2))
    assert not [name for name in load_file(adapter / "adapter_model.safetensors") if ".gate." in name]
    assert not any(row["routers_trainable"] for row in expert_log(tmp_path / "run"))


def test_the_balance_loss_evens_the_load(base: Path, data: Path, tmp_path: Path) -> None:
    lowest = {}
    for coefficient in (0.0, 1.0):
        run = tmp_path / f"run-{coefficient}"
        settings = MoeSettings(router="trainable", load_balance_coefficient=coefficient)
        train(tiny_config(base, data, run, moe=settings, max_steps=24, batch_size=8))
        last = expert_log(run)[-6:]
        lowest[coefficient] = min(layer["entropy"] for row in last for layer in row["layers"].values())
    assert lowest[1.0] > lowest[0.0]
    assert lowest[1.0] > 0.9


def test_accumulation_does_not_change_the_balance_loss(base: Path, data: Path, tmp_path: Path) -> None:
    """It is a mean over the micro-batches, as the token loss is one sum over them."""
    losses = []
    for batch, accumulation in ((8, 1), (4, 2)):
        run = tmp_path / f"run-{batch}"
        settings = MoeSettings(router="trainable", load_balance_coefficient=10.0)
        config = tiny_config(
            base, data, run, moe=settings, max_steps=1, batch_size=batch, gradient_accumulation=accumulation
        )
        train(config)
        (row,) = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        losses.append(row["loss"])
    # Not equal: each micro-batch has shares of its own. But not twice the one either.
    assert losses[1] == pytest.approx(losses[0], rel=0.2)


@pytest.mark.parametrize("name", ["qwen3_moe", "mixtral", "deepseek_v2", "deepseek_v3"])
def test_adapted_experts_and_routers_are_merged_exactly(
    name: str, data: Path, tiny_tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    source = saved(name, tiny_tokenizer, tmp_path / "model")
    lora = LoraSettings(rank=4, alpha=8, experts=True)
    settings = MoeSettings(router="trainable", load_balance_coefficient=0.01)
    adapter = train(
        tiny_config(source, data, tmp_path / "run", lora=lora, moe=settings, max_steps=4, learning_rate=3e-3)
    )
    weights = load_file(adapter / "adapter_model.safetensors")
    assert any(".experts." in key and "lora_A" in key for key in weights)
    merged = merge(MergeConfig(adapter, tmp_path / "merged", dtype="fp32", fidelity=False))
    encoder = PromptEncoder(load_tokenizer(merged), read_manifest(merged).tokens)
    adapted = attach_adapter(load_model(source, dtype="fp32"), adapter).eval()
    plain, after = load_model(source, dtype="fp32"), load_model(merged, dtype="fp32")
    with torch.no_grad():
        for ids in calibration_batches(None, encoder)[:4]:
            wanted = adapted(input_ids=ids[None]).logits
            found = after(input_ids=ids[None]).logits
            assert float((wanted - found).abs().max()) <= 1e-4
            assert float((wanted - plain(input_ids=ids[None]).logits).abs().max()) > 1e-2


def test_a_run_that_was_cut_has_the_rows_of_a_whole_one(base: Path, data: Path, tmp_path: Path) -> None:
    settings = MoeSettings(router="warmup", router_warmup=0.5)
    whole = tiny_config(base, data, tmp_path / "whole", moe=settings, max_steps=6, save_steps=2)
    train(whole)
    cut = replace(whole, output=tmp_path / "cut")
    train(cut)
    # As if it had ended in the middle of step 5: no result, and only the first two states are there.
    run = tmp_path / "cut"
    for path in (run / "adapter", run / "checkpoints" / "checkpoint-6"):
        for file in sorted(path.rglob("*"), reverse=True):
            file.unlink() if file.is_file() else file.rmdir()
        path.rmdir()
    train(cut)
    assert expert_log(run) == expert_log(tmp_path / "whole")


def test_a_dense_model_refuses_what_needs_routers(tiny_llama_dir: Path, data: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="moe are given, but this model has no routers"):
        train(tiny_config(tiny_llama_dir, data, tmp_path / "run", moe=MoeSettings(router="trainable")))
    with pytest.raises(ConfigError, match=r"lora\.experts is true, but this model has no fused experts"):
        train(tiny_config(tiny_llama_dir, data, tmp_path / "run", lora=LoraSettings(experts=True)))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"router_warmup": 1.0}, "router_warmup = 1.0"),
        ({"load_balance_coefficient": math.inf}, "load_balance_coefficient = inf"),
        ({"expert_capacity_factor": 0.0}, "expert_capacity_factor = 0.0"),
    ],
)
def test_settings_out_of_range_are_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        MoeSettings(**settings)


def test_dropout_on_experts_is_refused_with_the_remedy() -> None:
    with pytest.raises(ConfigError, match=r"set lora\.dropout = 0"):
        LoraSettings(experts=True, dropout=0.1)
