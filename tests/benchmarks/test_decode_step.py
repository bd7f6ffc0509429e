"""Each variation of the torch engine is another engine, and its steps are measured in parts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from benchmarks import decode_step
from benchmarks.decode_step import measure, render
from benchmarks.fast_paths import VARIATIONS, without
from benchmarks.step_parts import parts_of
from serving.engine.config import EngineConfig
from serving.engine.contract import Engine
from serving.engine.torch import loading
from serving.engine.torch.compiled.kernels import Kernel
from tests.serving.endpoint import sealed_llama


def test_operators_are_told_by_their_names() -> None:
    times = [
        ("mkldnn::_linear_pointwise", 3.0),
        ("aten::addmm", 1.0),
        ("aten::_scaled_dot_product_flash_attention_for_cpu", 2.0),
        ("aten::mul", 5.0),
    ]
    assert parts_of(times) == {"linear": 4.0, "attention": 2.0}


def test_every_variation_runs_and_leaves_out_what_it_says(
    tmp_path: Path, tiny_tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch
) -> None:
    kinds: list[set[str]] = []

    def load(*arguments: object) -> Engine:
        engine = loading.load_engine(*arguments)  # type: ignore[arg-type]
        model = engine._runner._model  # type: ignore[attr-defined]
        kinds.append({type(module).__name__ for module in model.modules()})
        kinds[-1].add(model.config._attn_implementation)
        return engine

    ran: dict[str, set[str]] = {name: set() for name in VARIATIONS}
    running = [""]
    compute = Kernel.run

    def note(name: str) -> Any:
        running[0] = name
        return without(name)

    def count(self: Kernel, *arguments: Any, **others: Any) -> Any:
        ran[running[0]].add(self.name)
        return compute(self, *arguments, **others)

    monkeypatch.setattr(decode_step, "without", note)
    monkeypatch.setattr(Kernel, "run", count)
    monkeypatch.setattr(decode_step, "load_engine", load)
    checkpoint = sealed_llama(tmp_path / "checkpoint", tiny_tokenizer)
    config = EngineConfig(
        weights="fp32", kv_dtype="fp32", slots=2, max_context=256, threads=1, device="cpu"
    )  # fmt: skip
    cells = measure(checkpoint, config, [1, 2], steps=3, rounds=1)
    served, uncompiled, one_by_one, by_pytorch, by_onednn, repeated, unfused, unpacked, plain = kinds
    assert one_by_one == by_pytorch == served
    # As served, all kernels run; what is left out does not.
    assert ran["as served"] == {"linear.float", "program", "prompt", "row", "rotary"}
    assert ran["each kernel called from Python"] == {"linear.float", "prompt", "row", "rotary"}
    assert ran["nothing compiled: oneDNN and PyTorch's operators"] == set()
    assert ran["attention by PyTorch"] == {"linear.float", "rotary"}
    assert ran["keys repeated for each query head"] == {"linear.float", "rotary"}
    assert ran["linear layers by oneDNN"] == {"prompt", "row", "rotary"}
    assert {"FusedDecoderLayer", "CompiledLinear", "RMSNorm"} <= served
    assert uncompiled == by_onednn
    assert "PackedLinear" in by_onednn
    assert "CompiledLinear" not in by_onednn
    assert served - repeated == {"trimaran_slots"}
    assert "JoinedLinear" in unfused
    assert "FusedDecoderLayer" not in unfused
    assert not {"PackedLinear", "CompiledLinear", "JoinedLinear"} & unpacked
    assert "RMSNorm" in unpacked
    assert {"LlamaRMSNorm", "sdpa"} <= plain
    assert list(cells) == list(VARIATIONS)
    for found in cells.values():
        for cell in found.values():
            assert min(cell["step"], cell["linear"], cell["attention"]) > 0
    page = render(
        {
            "machine": {"cpu": "A CPU", "cores": 2},
            "floors": {"read_bytes_per_second": 3e10, "matmul_flops_per_second": 4e11},
            "precision": "bf16",
            "threads": 2,
            "rounds": 1,
            "variations": cells,
        }
    )
    assert page.count("\n| 1 | ") == page.count("\n| 2 | ") == len(VARIATIONS)
    assert "reads 30.0 GB/s, multiplies 400 GFLOP/s" in page
