"""Loading the base of a run: what is refused by name, and how its attention is computed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from transformers.models.llama import modeling_llama

import training.base
from checkpoints.errors import ConfigError, UnsupportedCheckpoint
from tests.training.rows import chat_rows, tiny_config, write_jsonl
from training.base import check_attention, load_trainable_base
from training.dry_run import dry_run
from training.run import train


def test_a_base_in_8_bit_floats_is_refused(tiny_llama_dir: Path, tmp_path: Path) -> None:
    """As DeepSeek-V3 is published."""
    base = shutil.copytree(tiny_llama_dir, tmp_path / "fp8")
    settings = json.loads((base / "config.json").read_text(encoding="utf-8"))
    settings["quantization_config"] = {"quant_method": "fp8", "weight_block_size": [128, 128]}
    (base / "config.json").write_text(json.dumps(settings), encoding="utf-8")
    data = write_jsonl(tmp_path / "rows.jsonl", chat_rows(2))
    for method in ("lora", "qlora", "full"):
        config = tiny_config(base, data, tmp_path / "run", method=method)
        for run in (train, dry_run):
            with pytest.raises(UnsupportedCheckpoint, match=r"fp8 is in 8-bit floats .*dequantize=True"):
                run(config)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("attention", "wanted"), [("auto", "sdpa"), ("sdpa", "sdpa"), ("eager", "eager")])
def test_attention_is_computed_as_asked(attention: str, wanted: str, tiny_llama_dir: Path) -> None:
    model = load_trainable_base(
        str(tiny_llama_dir), dtype="fp32", device="cpu", quantization=None,
        attention=attention,  # type: ignore[arg-type]
    )  # fmt: skip
    assert model.config._attn_implementation == wanted


def test_a_run_attends_as_asked_and_learns_the_same(
    tiny_llama_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    own = modeling_llama.eager_attention_forward

    def spy(*arguments: object, **named: object) -> object:
        calls.append(1)
        return own(*arguments, **named)

    monkeypatch.setattr(modeling_llama, "eager_attention_forward", spy)
    data = write_jsonl(tmp_path / "rows.jsonl", chat_rows(4))
    losses = {}
    for attention in ("auto", "eager"):
        run = tmp_path / attention
        train(tiny_config(tiny_llama_dir, data, run, attention=attention, max_steps=2))
        assert bool(calls) == (attention == "eager")
        rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        losses[attention] = [row["loss"] for row in rows if "loss" in row]
    assert losses["eager"] == pytest.approx(losses["auto"], rel=1e-4)


def test_flash_attention_that_is_not_there_is_refused(
    tiny_llama_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = write_jsonl(tmp_path / "rows.jsonl", chat_rows(2))
    with pytest.raises(
        ConfigError, match=r"attention = flash_attention_2 needs a CUDA GPU.*attention = sdpa"
    ):
        train(tiny_config(tiny_llama_dir, data, tmp_path / "run", attention="flash_attention_2"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(training.base, "is_flash_attn_2_available", lambda: False)
    with pytest.raises(ConfigError, match=r"needs the flash-attn package"):
        check_attention("flash_attention_2", "auto", "bf16")
    monkeypatch.setattr(training.base, "is_flash_attn_2_available", lambda: True)
    check_attention("flash_attention_2", "auto", "bf16")
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: False)
    for dtype in ("fp32", "auto"):
        settings = {"attention": "flash_attention_2", "dtype": dtype, "device": "auto"}
        with pytest.raises(ConfigError, match=r"attention = flash_attention_2 and dtype = fp32 clash"):
            train(tiny_config(tiny_llama_dir, data, tmp_path / "run", **settings))


def test_the_dry_run_says_what_it_does_not_count(tiny_llama_dir: Path, tmp_path: Path) -> None:
    plain = tiny_config(tiny_llama_dir, tmp_path, tmp_path / "run")
    said = dry_run(plain)
    assert "not counted" not in said
    assert "liger" not in said
    plain.lora.dora, plain.attention, plain.kernels = True, "eager", "liger"
    said = dry_run(plain)
    assert "lora.dora = true: the norm of a layer's weights takes a few copies" in said
    assert "attention = eager: the scores of all pairs of tokens are kept" in said
    assert "kernels = liger: the table is of our own functions" in said
