"""Liger needs a GPU, which tests have not: what is refused, and what is patched when, on a stand-in."""

from __future__ import annotations

import ast
import sys
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from peft import PeftModel

import training.run as run
from checkpoints.errors import ConfigError
from tests.training.rows import chat_rows, tiny_config, write_jsonl
from training.kernels import check_kernels, put_liger_in


@pytest.fixture
def patched(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The models that a stand-in for the package was given."""
    models: list[Any] = []
    module: Any = ModuleType("liger_kernel.transformers.monkey_patch")
    module.MODEL_TYPE_TO_APPLY_LIGER_FN = {"llama": None}
    module._apply_liger_kernel_to_instance = models.append
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return models


@pytest.mark.parametrize("device", ["auto", "cpu"])
def test_it_is_refused_without_a_gpu(device: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    config = tiny_config(tmp_path, tmp_path / "rows.jsonl", tmp_path / "run", device=device, kernels="liger")
    with pytest.raises(ConfigError, match=r"kernels = liger needs a CUDA GPU.*kernels = own"):
        run.train(config)


def test_it_is_refused_without_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr("training.kernels.find_spec", lambda name: None)
    config = tiny_config(tmp_path, tmp_path / "rows.jsonl", tmp_path / "run", device="auto", kernels="liger")
    with pytest.raises(ConfigError, match=r"pip install 'trimaran\[liger\]'"):
        check_kernels(config)


def test_a_model_it_does_not_know_is_named(patched: list[Any], tmp_path: Path) -> None:
    model: Any = ModuleType("model")
    model.config = ModuleType("config")
    model.config.model_type = "mamba"
    with pytest.raises(ConfigError, match="none for models of type mamba"):
        put_liger_in(tiny_config(tmp_path, tmp_path, tmp_path / "run", kernels="liger"), model)
    assert not patched


def test_it_takes_the_place_of_our_own_functions(
    patched: list[Any], tiny_llama_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: Any) -> None:
        raise AssertionError("our own functions were put in, too")

    monkeypatch.setattr(run, "check_kernels", lambda config: None)
    monkeypatch.setattr("training.kernels.chunked_loss", refuse)
    monkeypatch.setattr("training.kernels.fused_layers", refuse)
    data = write_jsonl(tmp_path / "rows.jsonl", chat_rows(2))
    run.train(tiny_config(tiny_llama_dir, data, tmp_path / "run", kernels="liger", max_steps=1))
    (model,) = patched
    assert type(model).__name__ == "LlamaForCausalLM"
    assert not isinstance(model, PeftModel)


def test_what_we_call_is_in_the_package() -> None:
    """By its text: it cannot be imported without Triton's compiler, which needs a GPU."""
    package = find_spec("liger_kernel")
    if package is None or not package.submodule_search_locations:
        pytest.skip("Liger is not installed")
    (root,) = package.submodule_search_locations
    tree = ast.parse(Path(root, "transformers", "monkey_patch.py").read_text(encoding="utf-8"))
    names = {one.name for one in tree.body if isinstance(one, ast.FunctionDef)}
    for statement in tree.body:
        if isinstance(statement, ast.Assign | ast.AnnAssign):
            targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
            names |= {target.id for target in targets if isinstance(target, ast.Name)}
    assert {"MODEL_TYPE_TO_APPLY_LIGER_FN", "_apply_liger_kernel_to_instance"} <= names
