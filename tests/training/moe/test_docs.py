"""``docs/moe-training.md``: its settings are ones that ``trimaran train`` takes."""

from __future__ import annotations

import re
from pathlib import Path

from training.config import TrainConfig
from trimaran.command_parser import parse_command
from trimaran.command_table import COMMANDS

PAGE = (Path(__file__).parents[3] / "docs" / "moe-training.md").read_text(encoding="utf-8")


def test_the_example_is_a_run_config(tmp_path: Path) -> None:
    (example,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    (tmp_path / "run.yaml").write_text(example)
    config, _ = parse_command(COMMANDS["train"], ["--config", str(tmp_path / "run.yaml")])
    assert isinstance(config, TrainConfig)
    assert config.lora.experts
    assert (config.moe.router, config.moe.router_warmup) == ("warmup", 0.1)
    assert (config.moe.load_balance_coefficient, config.moe.expert_capacity_factor) == (0.001, 1.2)
