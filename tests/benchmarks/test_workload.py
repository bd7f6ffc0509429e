"""Every machine and every run must give the same requests, or figures cannot be compared."""

from __future__ import annotations

from benchmarks.waves import equal_items
from benchmarks.workload import fingerprint, make_items

TEXTS = [[100 * text + place for place in range(40)] for text in range(10)]


def test_the_workload_is_the_same_everywhere() -> None:
    assert fingerprint(make_items(TEXTS, 32)) == fingerprint(make_items(TEXTS, 32))
    # Written down when it was made: a change of the requests makes all committed figures incomparable.
    assert fingerprint(make_items(TEXTS, 32)) == "4cad57d8b063"
    assert fingerprint(make_items(TEXTS, 32, seed=1)) != fingerprint(make_items(TEXTS, 32))


def test_more_requests_begin_with_the_fewer() -> None:
    assert make_items(TEXTS, 128)[:32] == make_items(TEXTS, 32)


def test_lengths_are_skewed_as_the_design_says() -> None:
    items = make_items(TEXTS, 4000)
    prompts = [len(item.prompt_ids) for item in items]
    outputs = [item.max_tokens for item in items]
    assert (min(prompts), max(prompts)) == (16, 128)
    assert (min(outputs), max(outputs)) == (4, 192)
    assert abs(sum(prompts) / len(prompts) - 72) < 2
    # An exponential of mean 48 clipped to 4 and 192 has mean 4 + 48 * (exp(-4/48) - exp(-192/48)) = 47.3.
    assert abs(sum(outputs) / len(outputs) - 47.3) < 2


def test_no_two_neighbours_share_a_prefix() -> None:
    items = make_items(TEXTS, 10)
    assert len({tuple(item.prompt_ids[:16]) for item in items}) == 10


def test_equal_items_are_equal_in_length_and_differ_in_text() -> None:
    items = equal_items(TEXTS, 4, 100, 7)
    assert {(len(item.prompt_ids), item.max_tokens) for item in items} == {(100, 7)}
    assert len({tuple(item.prompt_ids) for item in items}) == 4
