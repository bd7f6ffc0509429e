from __future__ import annotations

import json
from pathlib import Path

import pytest

from loadtests.errors import PromptFileError
from loadtests.workloads.jsonl import read_jsonl
from loadtests.workloads.settings import WorkloadSettings
from loadtests.workloads.source import load_prompts


def test_the_packaged_prompts_mix_lengths_and_languages() -> None:
    prompts = read_jsonl(None)
    lengths = sorted(len(prompt.value) for prompt in prompts)
    assert len(prompts) >= 40
    assert lengths[0] < 40
    assert lengths[-1] > 300
    assert sum(any("\u4e00" <= c <= "\u9fff" for c in prompt.value) for prompt in prompts) >= 8
    assert any("def " in prompt.value for prompt in prompts)
    # One kind of input: Triton never batches requests whose sets of inputs differ.
    assert {prompt.input_name for prompt in prompts} == {"text_input"}


def test_the_three_kinds_of_lines(tmp_path: Path) -> None:
    talk = [{"role": "user", "content": "你好"}]
    path = tmp_path / "prompts.jsonl"
    lines = [{"prompt": "a", "completion": "ignored"}, {"text": "b"}, {"messages": talk}]
    path.write_text("\n\n".join(json.dumps(line) for line in lines), encoding="utf-8")
    first, second, third = read_jsonl(path)
    assert (first.input_name, first.value, second.value) == ("text_input", "a", "b")
    assert third.input_name == "messages"
    assert json.loads(third.value) == talk


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'{"prompt": "a"', "not JSON"),
        (b'{"prompt": "\xff"}', "not UTF-8"),
        (b'["a"]', "a JSON object is expected"),
        (b'{"question": "a"}', "exactly one of prompt, text, messages is expected, found only question"),
        (b'{"prompt": "a", "messages": []}', "found prompt and messages"),
        (b'{"prompt": ""}', "prompt must be a text that is not empty"),
        (b'{"text": 7}', "text must be a text"),
        (b'{"messages": []}', "messages must be a list"),
        (b'{"messages": [{"role": "user"}]}', "messages must be a list"),
    ],
)
def test_a_bad_line_is_named_by_file_and_number(tmp_path: Path, line: bytes, message: str) -> None:
    path = tmp_path / "prompts.jsonl"
    path.write_bytes(b'{"prompt": "fine"}\n' + line + b"\n")
    with pytest.raises(PromptFileError) as raised:
        read_jsonl(path)
    assert str(raised.value).startswith(f"{path}:2: ")
    assert message in str(raised.value)


def test_a_missing_and_an_empty_file(tmp_path: Path) -> None:
    with pytest.raises(PromptFileError, match="cannot be read"):
        read_jsonl(tmp_path / "none.jsonl")
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(PromptFileError, match="there is no prompt"):
        read_jsonl(tmp_path / "empty.jsonl")


def test_the_order_depends_on_the_seed_alone() -> None:
    one, again, other = (load_prompts(WorkloadSettings(seed=seed)) for seed in (1, 1, 2))
    assert one == again
    assert one != other
    assert sorted(one, key=lambda prompt: prompt.index) == read_jsonl(None)
