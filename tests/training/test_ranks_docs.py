"""``docs/distributed-training.md`` and ``recipes/accelerate``: what they name is there, launchers take it."""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils.launch import prepare_deepspeed_cmd_env, prepare_multi_gpu_env

from checkpoints.errors import ConfigError
from tests.training.rows import tiny_config
from training.ewc.config import EwcSettings
from training.moe.config import MoeSettings
from training.ranks import check_ranks, join_ranks
from trimaran.command_parser import parse_command
from trimaran.command_table import COMMANDS

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "distributed-training.md").read_text(encoding="utf-8")
LAUNCHES = re.findall(r"^accelerate launch (.*)$", PAGE, re.MULTILINE)


@pytest.mark.parametrize("line", re.findall(r"trimaran (train .*)$", PAGE, re.MULTILINE))
def test_a_command_is_one_we_take(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    command, *arguments = shlex.split(line)
    parse_command(COMMANDS[command], arguments)


@pytest.mark.parametrize("name", ["ddp", "fsdp2", "zero3"])
def test_accelerate_takes_the_file(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    path = f"recipes/accelerate/{name}.yaml"
    (line,) = [line for line in LAUNCHES if path in line]
    assert f"accelerate launch {line}\n" in Path(path).read_text(encoding="utf-8")
    config = load_config_from_file(path)
    assert (config.num_processes, config.num_machines) == (2, 1)
    arguments, *_ = _validate_launch_command(launch_command_parser().parse_args(shlex.split(line)))
    assert (arguments.module, arguments.training_script) == (True, "trimaran")
    if name == "zero3":
        arguments.deepspeed_fields_from_accelerate_config = ",".join(config.deepspeed_config)
        arguments.main_process_port = 0  # or it would look whether the usual one is free
        _, environment = prepare_deepspeed_cmd_env(arguments)
        assert environment["ACCELERATE_USE_DEEPSPEED"] == "true"
        assert environment["ACCELERATE_DEEPSPEED_ZERO_STAGE"] == "3"
        assert environment["ACCELERATE_DEEPSPEED_ZERO3_INIT"] == "false"
        return
    environment = prepare_multi_gpu_env(arguments)
    assert environment.get("ACCELERATE_USE_FSDP", "false") == ("true" if name == "fsdp2" else "false")
    if name == "fsdp2":
        assert environment["FSDP_VERSION"] == "2"
        assert environment["FSDP_STATE_DICT_TYPE"] == "SHARDED_STATE_DICT"
        assert environment["FSDP_CPU_RAM_EFFICIENT_LOADING"] == "false"


def test_the_tests_it_names_are_there() -> None:
    for name in set(re.findall(r"`(test_\w+)`", PAGE)):
        assert list((ROOT / "tests").rglob(f"{name}.py")), name


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"ACCELERATE_USE_DEEPSPEED": "true"}, r"= nf4 and zero clash.*DDP"),
        ({"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "1"}, r"fsdp_version = 1.*only FSDP2"),
        ({"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"}, r"= nf4 and fsdp clash.*DDP"),
    ],
)
def test_what_is_refused_is_named(
    environment: dict[str, str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"RANK": "0", **environment}.items():
        monkeypatch.setitem(os.environ, name, value)
    config: Any = tiny_config(tmp_path, tmp_path / "rows.jsonl", tmp_path / "run", method="qlora")
    with pytest.raises(ConfigError, match=message):
        if environment.get("FSDP_VERSION") == "1":
            join_ranks(config)
        check_ranks(config)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"optimizer": "paged_adamw_8bit"}, r"optimizer = paged_adamw_8bit and fsdp clash.*adamw"),
        ({"moe": MoeSettings(router="warmup")}, r"moe.router = warmup and fsdp clash.*DDP"),
        ({"ewc": EwcSettings(save=True)}, r"ewc and fsdp clash.*DDP"),
    ],
)
def test_what_cannot_be_sharded_is_named(
    settings: dict[str, Any], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"RANK": "0", "ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"}.items():
        monkeypatch.setitem(os.environ, name, value)
    with pytest.raises(ConfigError, match=message):
        check_ranks(tiny_config(tmp_path, tmp_path / "rows.jsonl", tmp_path / "run", **settings))


def test_the_run_config_decides_the_precision() -> None:
    for path in (ROOT / "recipes" / "accelerate").glob("*.yaml"):
        assert yaml.safe_load(path.read_text(encoding="utf-8"))["mixed_precision"] == "no"
