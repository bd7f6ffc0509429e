"""A prompt is read by each engine of the comparison, whole and in pieces."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedTokenizerFast

from benchmarks import prefill
from benchmarks.fast_paths import VARIATIONS
from benchmarks.prefill import ENGINES, measure, render
from serving.engine.config import EngineConfig
from serving.engine.torch import attention
from serving.engine.torch.compiled.kernels import Kernel
from tests.serving.endpoint import sealed_llama


def test_every_engine_reads_prompts_as_it_says(
    tmp_path: Path, tiny_tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert set(ENGINES) <= set(VARIATIONS)
    ran: dict[str, set[str]] = {name: set() for name in ENGINES}
    running = [""]
    enter, compute, whole = prefill.without, Kernel.run, attention._attend_prompt
    pieces: set[int] = set()

    def note(name: str) -> Any:
        running[0] = name
        return enter(name)

    def count(self: Kernel, told: Any, threads: int) -> None:
        ran[running[0]].add(self.name)
        if self.name == "prompt":
            pieces.add(told.tokens)
        compute(self, told, threads)

    def by_pytorch(*arguments: Any) -> torch.Tensor:
        ran[running[0]].add("pytorch")
        return whole(*arguments)

    monkeypatch.setattr(prefill, "without", note)
    monkeypatch.setattr(Kernel, "run", count)
    monkeypatch.setattr(attention, "_attend_prompt", by_pytorch)
    config = EngineConfig(weights="fp32", kv_dtype="fp32", slots=1, max_context=64, threads=1, device="cpu")
    checkpoint = sealed_llama(tmp_path / "checkpoint", tiny_tokenizer)
    cells = measure(checkpoint, config, [8, 48], rounds=1)
    served, by_torch, uncompiled, plain = ran.values()
    assert {"linear.float", "prompt", "rotary"} <= served
    assert "pytorch" not in served
    assert by_torch >= {"linear.float", "rotary", "pytorch"}
    assert "prompt" not in by_torch
    assert uncompiled == {"pytorch"}
    assert plain == set()
    assert {8, 16, 48} <= pieces
    assert list(cells) == ["512", "16"]
    assert list(cells["512"]) == list(cells["16"]) == list(ENGINES)
    for engine in (*cells["512"].values(), *cells["16"].values()):
        for cell in engine.values():
            assert min(cell.values()) > 0
    assert [list(cells[piece]["as served"]) for piece in cells] == [["8", "48"], ["48"]]
    page = render(
        {
            "machine": {"cpu": "A CPU", "cores": 2},
            "floors": {"read_bytes_per_second": 3e10, "matmul_flops_per_second": 4e11},
            "precision": "bf16",
            "threads": 2,
            "rounds": 1,
            "pieces": cells,
        }
    )
    assert page.count("\n| 8 | ") == len(ENGINES)
    assert page.count("\n| 48 | ") == 2 * len(ENGINES)
    assert "## In pieces of at most 16 tokens" in page
