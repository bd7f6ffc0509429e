"""Token choice: filters by their definition, and frequencies against the distribution."""

from __future__ import annotations

import math
import random

import pytest
import torch

from serving.engine.request import SamplingParameters
from serving.engine.slots.batch import SamplingTensors
from serving.engine.slots.sampler import log_probabilities, most_likely, sample

LOGITS = torch.tensor([[2.0, 1.0, 0.5, 0.0, -1.0, -3.0]])


def choose(logits: torch.Tensor, parameters: list[SamplingParameters], uniforms: list[float]) -> torch.Tensor:
    tensors = SamplingTensors(parameters, logits.device)
    return sample(logits, tensors, torch.tensor(uniforms, dtype=torch.float64)[tensors.index])


def draw(parameters: SamplingParameters, count: int = 4000) -> torch.Tensor:
    """Return the share of each token over ``count`` draws."""
    uniform = random.Random(0)
    logits = LOGITS.expand(count, -1).clone()
    chosen = choose(logits, [parameters] * count, [uniform.random() for _ in range(count)])
    return torch.bincount(chosen, minlength=LOGITS.shape[1]) / count


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_frequencies_follow_the_distribution(temperature: float) -> None:
    expected = (LOGITS[0] / temperature).softmax(dim=-1)
    # Standard error of 4,000 draws is at most 0.008.
    torch.testing.assert_close(draw(SamplingParameters(temperature=temperature)), expected, atol=0.03, rtol=0)


def test_top_k_keeps_k_tokens_and_their_proportions() -> None:
    expected = torch.zeros(6)
    expected[:2] = LOGITS[0, :2].softmax(dim=-1)
    torch.testing.assert_close(draw(SamplingParameters(temperature=1, top_k=2)), expected, atol=0.03, rtol=0)


def test_top_p_keeps_the_smallest_set_that_reaches_p() -> None:
    probabilities = LOGITS[0].softmax(dim=-1)
    p = float(probabilities[:2].sum()) + 0.01  # two tokens fall short, the third is needed
    assert (draw(SamplingParameters(temperature=1, top_p=p)) > 0).tolist() == [True] * 3 + [False] * 3


def test_top_p_applies_to_what_top_k_kept() -> None:
    # Of the two kept tokens the first has 73%: p = 0.7 keeps it alone, as in Hugging Face.
    shares = draw(SamplingParameters(temperature=1, top_k=2, top_p=0.7))
    assert shares.tolist() == [1, 0, 0, 0, 0, 0]


def test_min_p_is_relative_to_the_most_likely() -> None:
    ratio = float(torch.exp(LOGITS[0, 2] - LOGITS[0, 0]))
    kept = draw(SamplingParameters(temperature=1, min_p=ratio * 0.99)) > 0
    assert kept.tolist() == [True] * 3 + [False] * 3


def test_rows_with_other_parameters_do_not_mix() -> None:
    logits = LOGITS.expand(3, -1).clone()
    parameters = [
        SamplingParameters(),
        SamplingParameters(temperature=1, top_k=1),
        SamplingParameters(temperature=5),
    ]
    assert choose(logits, parameters, [0.0, 0.99, 0.999]).tolist() == [0, 5]  # the rows that draw


MIXED = [
    SamplingParameters(temperature=1),
    SamplingParameters(temperature=1, top_p=0.9),
    SamplingParameters(temperature=0.7, top_k=20),
    SamplingParameters(),
    SamplingParameters(temperature=1.3, min_p=0.02),
    SamplingParameters(temperature=2),
    SamplingParameters(temperature=1, top_k=300, top_p=0.8, min_p=0.01),
]


def test_a_draw_depends_on_no_neighbour() -> None:
    torch.manual_seed(0)
    logits = torch.randn(len(MIXED), 320) * 2
    drawing = [row for row, item in enumerate(MIXED) if item.temperature > 0]
    for uniform in torch.linspace(0.01, 0.99, 49).tolist():
        together = choose(logits, MIXED, [uniform] * len(MIXED)).tolist()
        alone = [int(choose(logits[[row]], [MIXED[row]], [uniform])) for row in drawing]
        assert together == alone


def drawn_from_a_whole_sort(logits: torch.Tensor, item: SamplingParameters, uniform: float) -> int:
    """One row's token by the definition of its filters, in Python's numbers."""
    shares = torch.softmax(logits / item.temperature, dim=-1).tolist()
    order = sorted(range(len(shares)), key=lambda token: (-shares[token], token))
    order = order[: item.top_k or len(order)]
    mass, before, kept = math.fsum(shares[token] for token in order), 0.0, []
    for token in order:
        if (item.top_p < 1 and before >= item.top_p * mass) or shares[token] < item.min_p * shares[order[0]]:
            break
        kept.append(token)
        before += shares[token]
    target, reached = uniform * math.fsum(shares[token] for token in kept), 0.0
    for token in kept:
        reached += shares[token]
        if reached > target:
            return token
    return kept[-1]


@pytest.mark.parametrize("spread", [0.5, 1.5, 4.0], ids=["flat", "between", "peaked"])
@pytest.mark.parametrize("vocabulary", [8192, 8191, 300])
def test_few_candidates_choose_what_a_whole_sort_does(vocabulary: int, spread: float) -> None:
    options: list[dict[str, float]] = [
        {"top_p": 0.5},
        {"top_p": 0.9},
        {"top_p": 0.999},
        {"top_k": 40},
        {"top_k": 256},
        {"top_k": 257},
        {"top_k": 6000},
        {"top_k": 400, "top_p": 0.9},
        {"top_k": 10**6, "top_p": 0.7},
        {"min_p": 0.3},
        {"min_p": 0.001},
        {"top_k": 5000, "top_p": 0.95, "min_p": 0.05},
    ]
    torch.manual_seed(vocabulary)
    # Logits of bf16: many equals, also where the candidates end.
    logits = (torch.randn(len(options), vocabulary) * spread).bfloat16().float()
    logits[1, 10:] = -torch.inf  # less than a top_k, and no mass beyond the candidates
    logits[3, 30:] = -torch.inf
    parameters = [SamplingParameters(temperature=1, **item) for item in options]  # type: ignore[arg-type]
    for uniform in (0.0, 0.31, 0.77, 0.9999):
        expected = [
            drawn_from_a_whole_sort(row, item, uniform) for row, item in zip(logits, parameters, strict=True)
        ]
        assert choose(logits, parameters, [uniform] * len(options)).tolist() == expected


def test_a_row_of_nan_leaves_the_others_their_tokens() -> None:
    logits = torch.randn(2, 512)
    for item in (SamplingParameters(temperature=1), SamplingParameters(temperature=1, top_p=0.5)):
        alone = int(choose(logits[1:], [item], [0.4]))
        logits[0] = torch.nan
        found = choose(logits, [item] * 2, [0.4, 0.4]).tolist()
        assert 0 <= found[0] < 512
        assert found[1] == alone


@pytest.mark.parametrize("uniform", [0.0, 0.5, 1 - 2**-53])
@pytest.mark.parametrize("options", [{}, {"top_k": 3}, {"top_p": 0.9}, {"min_p": 0.2}])
def test_extreme_draws_stay_inside(uniform: float, options: dict[str, float]) -> None:
    logits = torch.full((1, 49152), -20.0)
    logits[0, :3] = torch.tensor([1.0, 1.0, 1.0])
    chosen = choose(logits, [SamplingParameters(temperature=1, **options)], [uniform])  # type: ignore[arg-type]
    assert 0 <= int(chosen) < (49152 if not options else 3)


def test_a_masked_token_is_never_drawn() -> None:
    logits = LOGITS.expand(200, -1).clone()
    logits[:, 0] = -torch.inf
    chosen = choose(logits, [SamplingParameters(temperature=5)] * 200, [i / 200 for i in range(200)])
    assert 0 not in chosen.tolist()


def test_log_probabilities() -> None:
    found = log_probabilities(LOGITS, torch.tensor([2]))
    assert found == pytest.approx([float(LOGITS[0].log_softmax(dim=-1)[2])], abs=1e-6)


@pytest.mark.parametrize("vocabulary", [320, 333])
def test_the_most_likely_is_what_argmax_finds(vocabulary: int) -> None:
    logits = torch.randn(7, vocabulary)
    logits[1, 200:220] = 9.0  # equals: the first is taken
    logits[2, 77] = torch.nan
    logits[3, :-1] = -torch.inf
    best, tokens = most_likely(logits)
    assert tokens.tolist() == logits.argmax(dim=-1).tolist()
    torch.testing.assert_close(best, logits.amax(dim=-1), equal_nan=True, atol=0, rtol=0)
