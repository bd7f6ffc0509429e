from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from checkpoints import nf4_report
from checkpoints.loading import empty_model, load_model
from checkpoints.nf4_report import check_packed_size, expected_size, packed_size
from tests.tiny_mixtures import save_tiny_mixture
from tests.tiny_models import save_tiny_llama


def packed(source: Path, **options: Any) -> Any:
    return load_model(source, quantization="nf4", device="cpu", **options)


@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize("name", ["llama", "qwen2_moe", "deepseek_v3"])
def test_the_size_computed_without_weights_is_the_size_measured(
    tmp_path: Path, name: str, double: bool
) -> None:
    folder = tmp_path / name
    source = save_tiny_llama(folder) if name == "llama" else save_tiny_mixture(folder, name)
    expected = expected_size(empty_model(source), double_quantization=double)
    assert packed_size(packed(source, double_quantization=double)) == expected
    assert expected.bytes_per_parameter < (0.54 if double else 0.5626)


def test_a_weight_that_was_left_out_is_found(tmp_path: Path) -> None:
    model = packed(save_tiny_mixture(tmp_path / "model", "mixtral"))
    check_packed_size(model, double_quantization=False)
    experts = model.get_submodule("model.layers.1.mlp.experts")
    fused = experts.unpack(torch.bfloat16)
    model.set_submodule("model.layers.1.mlp.experts", fused)
    with pytest.raises(AssertionError, match=r"not packed: model\.layers\.1\.mlp\.experts"):
        check_packed_size(model, double_quantization=False)
    model.set_submodule("model.layers.1.mlp.experts", experts)
    model.set_submodule("model.layers.0.self_attn.q_proj", torch.nn.Linear(64, 64))
    with pytest.raises(AssertionError, match=r"not packed: model\.layers\.0\.self_attn\.q_proj"):
        check_packed_size(model, double_quantization=False)


def test_weights_that_take_more_than_they_should_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = packed(save_tiny_mixture(tmp_path / "model", "mixtral"))
    with pytest.raises(AssertionError, match=r"0\.5625 bytes each, more than 0\.53"):
        check_packed_size(model, double_quantization=True)
    monkeypatch.setattr(nf4_report, "LIMIT", 0.55)
    with pytest.raises(AssertionError, match=r"more than 0\.55"):
        packed(tmp_path / "model")
