"""``docs/data.md``: its commands run, one after the other, and print what the page says."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from pathlib import Path

import pytest

from trimaran.cli import main
from trimaran.command_parser import parse_command
from trimaran.command_table import COMMANDS

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "data.md").read_text(encoding="utf-8")
LINES = re.findall(r"^(trimaran .*)$", PAGE, re.MULTILINE)
FILES = dict(re.findall(r"`(\w+\.jsonl)`:\n\n```\n(.*?)```", PAGE, re.DOTALL))
OVERRIDES = "--data.max-length 128 --max-steps 2 --dtype fp32 --device cpu --threads 1 --lora.rank 4"


@pytest.mark.parametrize("line", LINES)
def test_a_command_is_one_we_take(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    _, command, *arguments = shlex.split(line)
    parse_command(COMMANDS[command], arguments)


def test_the_walk_through(
    tiny_llama_dir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """On a tiny model, and without the command that needs the hub."""
    shutil.copytree(ROOT / "recipes", tmp_path / "recipes")
    monkeypatch.chdir(tmp_path)
    for name, text in FILES.items():
        Path(name).write_text(text, encoding="utf-8")
    run = [line for line in LINES if "hf://" not in line]
    assert [shlex.split(line)[1] for line in run] == ["clean-data", "train", "train"]
    for line in run:
        arguments = shlex.split(line)[1:]
        if arguments[0] == "train":
            arguments += ["--model", str(tiny_llama_dir), *OVERRIDES.split()]
        assert main(arguments) == 0

    printed = capsys.readouterr().out
    (table,) = re.findall(r"prints\n\n```\n(.*?)```", PAGE, re.DOTALL)
    assert printed.startswith(table)
    (shown,) = re.findall(r"```\n(\"sampling\": .*?)```", PAGE, re.DOTALL)
    figures = json.loads(Path("out/balanced/data.json").read_text(encoding="utf-8"))
    assert {"sampling": figures["sampling"]} == json.loads("{" + shown + "}")
    packing = json.loads(Path("out/packed/data.json").read_text(encoding="utf-8"))["packing"]
    assert {"padding_packed", "padding_padded", "saved"} <= packing.keys()
    assert set(re.findall(r"`(out/\w+)` holds", PAGE)) == {"out/clean"}
    named = set(re.findall(r"`(\w+\.(?:jsonl|json|md))` \(", PAGE))
    assert {path.name for path in Path("out/clean").iterdir()} >= named >= {"rows.jsonl", "dropped.jsonl"}


def test_each_rule_is_explained() -> None:
    from training.data.cleaning.judge import RULES

    explained = set(re.findall(r"`(\w+)`", " ".join(re.findall(r"^\| (`.*?) \|", PAGE, re.MULTILINE))))
    assert set(RULES) <= explained
