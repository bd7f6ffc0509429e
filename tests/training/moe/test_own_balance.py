"""The balance loss of a model's own code is off while ours takes its place, and back afterwards."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.tiny_mixtures import build_tiny_mixture
from tests.training.moe.mixtures import IDS
from training.moe.own_balance import without_own_balance_loss


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("deepseek", {"aux_loss_alpha": 100.0}),
        ("mixtral", {"output_router_logits": True, "router_aux_loss_coef": 100.0}),
    ],
)
def test_the_token_loss_is_left(name: str, settings: dict[str, Any]) -> None:
    model = build_tiny_mixture(name, **settings).train()
    before = model.config.to_dict()
    with torch.no_grad():
        with without_own_balance_loss(model.config):
            alone = float(model(input_ids=IDS, labels=IDS).loss)
        whole = float(model(input_ids=IDS, labels=IDS).loss)
    assert model.config.to_dict() == before
    assert whole > alone + 90
    # Of a random model the token loss is near that of guessing.
    assert alone < 20
