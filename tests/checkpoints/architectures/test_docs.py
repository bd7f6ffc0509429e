"""docs/deepseek.md: its Python runs, its commands parse, its figures are those of the shapes."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from checkpoints.architectures.deepseek import DeepseekConfig
from checkpoints.sizes import parameter_count
from tests.checkpoints.architectures.published import published_config
from trimaran.command_parser import parse_command
from trimaran.command_table import COMMANDS

PAGE = Path(__file__).parents[3] / "docs" / "deepseek.md"
TEXT = PAGE.read_text(encoding="utf-8")

# config.json of deepseek-ai/deepseek-moe-16b-base, where it differs from the tiny one.
SIXTEEN_B = {
    "vocab_size": 102400,
    "hidden_size": 2048,
    "intermediate_size": 10944,
    "moe_intermediate_size": 1408,
    "num_hidden_layers": 28,
    "num_attention_heads": 16,
    "num_key_value_heads": 16,
    "n_routed_experts": 64,
    "num_experts_per_tok": 6,
    "max_position_embeddings": 4096,
}


def blocks(kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)


def test_python_of_the_page_runs(published_dir: Path) -> None:
    (code,) = blocks("python")
    names: dict[str, object] = {}
    exec(code.replace('"deepseek-moe-16b-base"', repr(str(published_dir))), names)
    assert type(names["model"]).__name__ == "DeepseekForCausalLM"


def test_commands_parse(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(PAGE.parents[1])  # where the recipes are
    lines = "".join(blocks("sh")).splitlines()
    assert {line.split()[1] for line in lines} >= {"train", "merge", "quantize", "prune-experts", "export"}
    for line in lines:
        program, name, *arguments = shlex.split(line)
        assert program == "trimaran"
        parse_command(COMMANDS[name], arguments)


@pytest.mark.parametrize(("experts", "column"), [(64, 1), (32, 2)])
def test_sizes_are_those_of_the_published_shapes(experts: int, column: int) -> None:
    config = DeepseekConfig(**published_config(**{**SIXTEEN_B, "n_routed_experts": experts}))
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    parameters = parameter_count(model)
    rows = {row[0].strip(): row for row in (line.split("|")[1:] for line in TEXT.splitlines() if "|" in line)}
    assert rows["parameters"][column].strip() == f"{parameters / 1e9:.1f} billion"
    assert rows["weights in bf16"][column].strip() == f"{2 * parameters / 1e9:.1f} GB"
    if experts == 64:
        assert f"{parameters / 1e9:.1f}" == "16.4"  # the paper's figure, section 5


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", TEXT):
        assert (PAGE.parent / target).exists(), target
