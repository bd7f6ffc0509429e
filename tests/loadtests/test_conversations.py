"""What the server is asked: conversations turn by turn, sampling, forced lengths, the same in every run."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from loadtests.config import LoadTestConfig
from loadtests.record import Record, read_records
from loadtests.run import run_load_test
from tests.loadtests import script
from tests.loadtests.conftest import scripted

pytestmark = pytest.mark.locust
ANSWER = "word " * script.TOKENS
SAYS = ["Hello", "And now?", "Good night"]


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """A scripted server of our own, so that nobody else's requests are among what it was asked."""
    with scripted("scripted_http") as port:
        yield f"http://127.0.0.1:{port}"


def asked(url: str) -> list[dict[str, Any]]:
    with urllib.request.urlopen(f"{url}/asked", timeout=10) as answer:
        found: list[dict[str, Any]] = json.load(answer)
        return found


def load(url: str, output: Path, **settings: Any) -> tuple[list[Record], list[dict[str, Any]]]:
    """Run a load; return its records and what the server was asked in it."""
    before = len(asked(url))
    result = run_load_test(LoadTestConfig(**{"url": url, "users": 1, "output": output, **settings}))
    return list(read_records(result.requests_jsonl)), asked(url)[before:]


@pytest.fixture(scope="module")
def talks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two conversations of three turns, in the format of ShareGPT."""
    path = tmp_path_factory.mktemp("talks") / "sharegpt.json"
    talk = [{"from": "human", "value": text} for text in SAYS]
    path.write_text(json.dumps([{"conversations": talk}] * 2), encoding="utf-8")
    return path


@pytest.mark.parametrize("protocol", ["generate_stream", "openai_chat"])
def test_each_turn_carries_the_turns_before_and_the_real_answers(
    protocol: str, url: str, talks: Path, tmp_path: Path
) -> None:
    records, bodies = load(
        url, tmp_path / "out", protocol=protocol, workload="sharegpt", prompts=talks, turns=3, users=2,
        max_requests=6, think_time="200ms",
    )  # fmt: skip
    said = [body["messages"] for body in bodies]
    histories = [json.loads(one) if isinstance(one, str) else one for one in said]
    wanted: list[dict[str, str]] = []
    for turn, text in enumerate(SAYS):
        wanted.append({"role": "user", "content": text})
        assert histories.count(wanted) == 2  # once in each conversation
        wanted.append({"role": "assistant", "content": ANSWER})
        of_turn = [record for record in records if record.turn == turn]
        assert [record.outcome for record in of_turn] == ["ok", "ok"]
        assert {record.sequence for record in of_turn} == {0, 1}
    for place in (0, 1):
        turns = sorted((one for one in records if one.sequence == place), key=lambda one: one.turn)
        assert len({one.user for one in turns}) == 1
        for one, following in pairwise(turns):
            assert 195e6 <= following.start_ns - one.end_ns < 600e6  # the user thinks


def test_in_an_open_loop_arrivals_begin_conversations(url: str, talks: Path, tmp_path: Path) -> None:
    records, bodies = load(
        url, tmp_path / "out", workload="sharegpt", prompts=talks, turns=2, arrivals="constant", rate=10,
        users=20, max_requests=8, max_lateness_p99="5s",
    )  # fmt: skip
    assert len(records) == len(bodies) == 8
    first, second = ([one for one in records if one.turn == turn] for turn in (0, 1))
    assert all(one.intended_ns == 100_000_000 * one.sequence for one in first)
    assert all(one.intended_ns is None for one in second)
    assert {one.sequence for one in second} <= {one.sequence for one in first}
    assert second


def test_a_seed_repeats_every_request(url: str, tmp_path: Path) -> None:
    settings: dict[str, Any] = {
        "max_requests": 6, "output_tokens": "uniform:6..30", "temperature": 0.7, "top_p": 0.9, "top_k": 20,
    }  # fmt: skip
    records, one = load(url, tmp_path / "one", seed=5, **settings)
    _, again = load(url, tmp_path / "again", seed=5, users=3, **settings)
    _, other = load(url, tmp_path / "other", seed=6, **settings)
    assert len(one) == 6

    def order(bodies: list[dict[str, Any]]) -> list[str]:
        return sorted(json.dumps(body, sort_keys=True) for body in bodies)  # three users overtake

    assert order(again) == order(one)
    assert set(order(other)).isdisjoint(order(one))
    assert {(body["temperature"], body["top_p"], body["top_k"]) for body in one} == {(0.7, 0.9, 20)}
    assert len({body["seed"] for body in one}) == 6
    assert len({body["max_tokens"] for body in one}) > 2
    assert [record.max_tokens for record in records] == [body["max_tokens"] for body in one]


@pytest.mark.parametrize("protocol", ["infer", "openai_chat"])
def test_a_forced_length_that_is_not_kept_is_a_failure(protocol: str, url: str, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"protocol": protocol, "force_output_tokens": True, "max_requests": 2}
    records, bodies = load(url, tmp_path / "kept", max_tokens=script.TOKENS, **settings)
    assert [record.outcome for record in records] == ["ok", "ok"]
    for body in bodies:
        assert (body["min_tokens"], body["max_tokens"], body["ignore_eos"]) == (6, 6, True)
    records, _ = load(url, tmp_path / "broken", output_tokens=7, **settings)
    assert [record.failure for record in records] == ["token_count"] * 2
    assert records[0].detail == "6 tokens came, 7 were forced (min_tokens, ignore_eos)"


def test_think_time_is_the_pause_of_a_closed_loop(url: str, tmp_path: Path) -> None:
    records, _ = load(url, tmp_path / "out", model="single", think_time="exponential:100ms", max_requests=5)
    gaps = [after.start_ns - before.end_ns for before, after in pairwise(records)]
    assert len(gaps) == 4
    assert max(gaps) - min(gaps) > 5e6  # exponential, so not all the same
    assert 0.02e9 < sum(gaps) < 3e9
