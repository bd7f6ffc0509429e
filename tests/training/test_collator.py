"""Padding follows from length, never from ids."""

from __future__ import annotations

from training.data.collator import PaddingCollator
from training.data.encoding import IGNORED, Encoded

EOS = 2


def test_rows_are_padded_to_a_multiple() -> None:
    batch = PaddingCollator(pad_id=0)([Encoded([5] * 9, [5] * 9), Encoded([6, 7], [IGNORED, 7])])
    assert {name: tuple(tensor.shape) for name, tensor in batch.items()} == {
        "input_ids": (2, 16),
        "attention_mask": (2, 16),
        "labels": (2, 16),
    }
    assert batch["input_ids"][1].tolist() == [6, 7] + [0] * 14
    assert batch["attention_mask"].sum(dim=1).tolist() == [9, 2]
    assert batch["labels"][1].tolist() == [IGNORED, 7] + [IGNORED] * 14


def test_eos_is_trained_on_though_padding_has_the_same_id() -> None:
    batch = PaddingCollator(pad_id=EOS)([Encoded([5, EOS], [5, EOS])])
    assert batch["labels"][0].tolist() == [5, EOS] + [IGNORED] * 6
    assert batch["attention_mask"][0].tolist() == [1, 1] + [0] * 6
