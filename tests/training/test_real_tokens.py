"""What fills batches up is no token of a row."""

from __future__ import annotations

import torch

from training.data.collator import PaddingCollator
from training.data.encoding import IGNORED, Encoded
from training.data.packing import Pack, PackingCollator
from training.real_tokens import real_tokens

ROWS = [Encoded([5, 6, 7, 8], [IGNORED, IGNORED, 7, 8]), Encoded([9, 10, 11], [IGNORED, 10, IGNORED])]
FILLER = Encoded([0], [IGNORED])


def test_in_a_pack_they_are_those_of_rows_that_are_learned_from() -> None:
    batch = PackingCollator(0)([Pack(ROWS), Pack([ROWS[1]]), Pack([FILLER])])
    real = real_tokens(batch)
    assert real.dtype == torch.bool
    assert real.tolist() == [[True] * 7, [True] * 3 + [False] * 4, [False] * 7]


def test_in_a_padded_batch_as_well() -> None:
    real = real_tokens(PaddingCollator(0)([*ROWS, FILLER]))
    assert real.tolist() == [[True] * 4 + [False] * 4, [True] * 3 + [False] * 5, [False] * 8]
