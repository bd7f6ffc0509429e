from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from checkpoints.architectures.deepseek.load_balance import load_balance_loss

EXPERTS, TOP_K = 8, 2


@pytest.fixture(autouse=True)
def _fixed_draw() -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def test_balanced_and_collapsed_routing_have_the_known_values() -> None:
    order = torch.arange(EXPERTS)
    # Each token prefers the next two experts: over eight tokens all are used alike.
    balanced = torch.stack([10.0 * ((order - token) % EXPERTS < TOP_K) for token in range(EXPERTS)])
    collapsed = (40.0 * (order < TOP_K)).repeat(EXPERTS, 1)
    for logits, expected in ((balanced, 1.0), (collapsed, EXPERTS / TOP_K)):
        for per_sequence in (True, False):
            found = load_balance_loss([logits.float()], TOP_K, rows=1, per_sequence=per_sequence)
            assert float(found) == pytest.approx(expected, rel=1e-4)


def test_layers_add_up() -> None:
    logits = torch.randn(3, 12, EXPERTS)
    parts = [load_balance_loss([one], TOP_K, rows=2, per_sequence=True) for one in logits]
    whole = load_balance_loss(list(logits), TOP_K, rows=2, per_sequence=True)
    torch.testing.assert_close(whole, torch.stack(parts).sum())


@pytest.mark.parametrize("per_sequence", [True, False])
def test_padding_does_not_count(per_sequence: bool) -> None:
    first, second, junk = torch.randn(6, EXPERTS), torch.randn(4, EXPERTS), 50 * torch.randn(2, EXPERTS)
    padded = torch.cat([first, junk, second])
    mask = torch.tensor([[1] * 6, [0] * 2 + [1] * 4])
    found = load_balance_loss([padded], TOP_K, rows=2, per_sequence=per_sequence, mask=mask)
    if per_sequence:
        alone = [load_balance_loss([one], TOP_K, rows=1, per_sequence=True) for one in (first, second)]
        expected = torch.stack(alone).mean()
    else:
        expected = load_balance_loss([torch.cat([first, second])], TOP_K, rows=1, per_sequence=False)
    torch.testing.assert_close(found, expected)
    unmasked = load_balance_loss([padded], TOP_K, rows=2, per_sequence=per_sequence)
    assert (unmasked - expected).abs() > 1e-3
