"""The table of docs/training.md: one step of each method, on each family of models, in each precision."""

from __future__ import annotations

import math
import re
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from checkpoints.errors import ConfigError
from checkpoints.manifest import read_manifest
from tests.tiny_families import FAMILIES
from tests.training.rows import chat_rows, tiny_config, write_jsonl
from training.callbacks import loss_curve
from training.config import TrainConfig
from training.methods.bottleneck.config import BottleneckSettings
from training.methods.lora.config import LoraSettings
from training.metrics import read_metrics
from training.run import train

PAGE = Path(__file__).parents[2] / "docs" / "training.md"

LORA: dict[str, dict[str, Any]] = {"lora": {}, "rsLoRA": {"rslora": True}, "DoRA": {"dora": True}}
METHODS = (*LORA, "bottleneck", "full")
PRECISIONS: dict[str, dict[str, Any]] = {
    "fp32": {"dtype": "fp32"},
    "bf16": {"dtype": "bf16"},
    "NF4": {"dtype": "bf16", "base_quantization": "nf4"},
}
CELLS = [
    (method, family, precision)
    for method, family, precision in product(METHODS, FAMILIES, PRECISIONS)
    if (method, precision) != ("full", "NF4")  # refused
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory of each family's model, and ``rows.jsonl``."""
    folder = tmp_path_factory.mktemp("matrix")
    for name, family in FAMILIES.items():
        family.save(folder / name)
    write_jsonl(folder / "rows.jsonl", chat_rows(4))
    return folder


@pytest.fixture(autouse=True)
def without_a_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    """A third of so short a run is its loss curve, which test_metrics looks at."""
    monkeypatch.setattr(loss_curve, "plot_loss", lambda *_: None)


def config_of(folder: Path, output: Path, method: str, family: str, precision: str) -> TrainConfig:
    settings: dict[str, Any] = {"method": method}
    if method in LORA:
        lora = LoraSettings(rank=4, target_modules=list(FAMILIES[family].targets), **LORA[method])
        settings = {"method": "lora", "lora": lora}
    elif method == "bottleneck":
        settings["bottleneck"] = BottleneckSettings(size=8)
    settings |= {"max_steps": 1, "warmup_steps": 0, "batch_size": 2, "rows": {"max_length": 64}}
    return tiny_config(folder / family, folder / "rows.jsonl", output, **settings, **PRECISIONS[precision])


@pytest.mark.parametrize(("method", "family", "precision"), CELLS)
def test_a_step_reaches_every_layer(
    folder: Path, tmp_path: Path, method: str, family: str, precision: str
) -> None:
    result = train(config_of(folder, tmp_path / "run", method, family, precision))
    (row,) = read_metrics(tmp_path / "run" / "metrics.jsonl")
    assert math.isfinite(row["loss"])
    manifest = read_manifest(result, verify=True)
    assert manifest.settings["base_quantization"] == ("nf4" if precision == "NF4" else None)
    assert manifest.settings["dtype"] == ("fp32" if precision == "fp32" else "bf16")
    if method == "full":
        check_weights(folder / family, result)
        return
    weights = load_file(result / "adapter_model.safetensors")
    # What is zero at the start: a gradient has reached it, whatever is packed or chosen on the way.
    learned = {name: value for name, value in weights.items() if "lora_B" in name or "_up." in name}
    layers = {match[1] for name in learned if (match := re.search(r"\.layers\.(\d+)\.", name))}
    assert layers == {"0", "1"}
    if method in LORA:
        assert {name.split(".")[-3] for name in learned} == set(FAMILIES[family].targets)
    assert not [name for name, value in learned.items() if not value.any()]


def check_weights(base: Path, result: Path) -> None:
    """Every weight has moved but those of experts that no token went to."""
    before, after = (load_file(path / "model.safetensors") for path in (base, result))
    assert before.keys() == after.keys()
    same = {name for name, value in before.items() if torch.equal(after[name].float(), value.float())}
    experts = {name for name in before if ".experts." in name}
    # V3 balances by a bias that no gradient moves.
    assert not [name for name in same - experts if not name.endswith("e_score_correction_bias")]
    assert len(same & experts) < len(experts) or not experts


@pytest.mark.parametrize("family", FAMILIES)
def test_the_cell_that_is_not_there_is_refused(folder: Path, tmp_path: Path, family: str) -> None:
    message = "base_quantization = nf4 and method = full clash.* use method = qlora"
    with pytest.raises(ConfigError, match=message):
        train(config_of(folder, tmp_path / "run", "full", family, "NF4"))
    assert not (tmp_path / "run").exists()


def test_the_page_has_these_cells() -> None:
    text = PAGE.read_text(encoding="utf-8")
    (table,) = re.findall(r"^\| precisions \|(.*?)\n\n", text, re.MULTILINE | re.DOTALL)
    head, _, *rows = (line.strip(" |").split(" | ") for line in table.strip().splitlines())
    assert head == [family.title for family in FAMILIES.values()]
    titles = {family.title: name for name, family in FAMILIES.items()}
    found = [
        (method, titles[title], precision)
        for method, *cells in rows
        for title, cell in zip(head, cells, strict=True)
        for precision in cell.split(", ")
    ]
    assert sorted(found) == sorted(CELLS)
