"""The evaluation split: by file or by share, and a row's side follows from the row."""

from __future__ import annotations

import numpy as np
import pytest

from checkpoints.errors import ConfigError
from training.data.formats import Row
from training.data.split import held_out, row_hash


def hashes(texts: list[str], seed: int = 0) -> np.ndarray:
    rows = [Row(f"r.jsonl:{number}", "text", text=text) for number, text in enumerate(texts, start=1)]
    return np.array([row_hash(row, seed) for row in rows], dtype=np.uint64)


def sides(texts: list[str], fraction: float = 0.2, seed: int = 0) -> dict[str, bool]:
    return dict(zip(texts, held_out(hashes(texts, seed), fraction).tolist(), strict=True))


TEXTS = [f"row {number}" for number in range(2000)]


def test_no_evaluation_unless_asked() -> None:
    assert not held_out(hashes(TEXTS), 0).any()


def test_about_the_share_asked_for_is_held_out_by_the_seed() -> None:
    # 400 of 2000 are expected; the standard deviation of a binomial is 18
    assert sum(sides(TEXTS).values()) == pytest.approx(400, abs=60)
    assert sides(TEXTS) == sides(TEXTS)
    assert sides(TEXTS, seed=1) != sides(TEXTS)


def test_a_row_stays_on_its_side_when_others_come_and_go() -> None:
    before = sides(TEXTS[:1000])
    after = sides([*reversed(TEXTS[:1000]), *TEXTS[1500:]])
    assert all(after[text] == side for text, side in before.items())


def test_equal_rows_are_on_the_same_side() -> None:
    out = held_out(hashes(TEXTS[:50] * 2), 0.3)
    assert (out[:50] == out[50:]).all()


def test_the_place_of_a_row_does_not_matter_but_every_part_of_it_does() -> None:
    one = Row("a:1", "prompt_completion", prompt="a", completion="b", label="x")
    assert row_hash(one, 0) == row_hash(Row("b:9", "prompt_completion", prompt="a", completion="b"), 0)
    assert row_hash(one, 0) != row_hash(Row("a:1", "prompt_completion", prompt="ab", completion=""), 0)


@pytest.mark.parametrize("fraction", [0.001, 0.999])
def test_few_rows_leave_at_least_one_on_each_side(fraction: float) -> None:
    out = held_out(hashes(["a", "b", "c"]), fraction)
    assert 0 < out.sum() < 3


@pytest.mark.parametrize("texts", [["a"], ["a", "a"]])
def test_a_share_that_leaves_nothing_to_train_on(texts: list[str]) -> None:
    with pytest.raises(ConfigError, match=rf"data.eval_fraction = 0.5 of {len(texts)} row"):
        held_out(hashes(texts), 0.5)
