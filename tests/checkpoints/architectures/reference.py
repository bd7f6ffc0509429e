"""DeepSeek-MoE from the paper (arXiv:2401.06066), one sequence, one head, one token, one expert at a time.

Slow and plain on purpose: nothing of Trimaran or transformers, only tensors by their published names.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F

from tests.checkpoints.architectures.published import is_mixture


def reference_logits(
    weights: dict[str, torch.Tensor], config: dict[str, Any], ids: list[int]
) -> tuple[torch.Tensor, list[tuple[torch.Tensor, torch.Tensor]]]:
    """Return logits ``[T, vocabulary]`` and, per mixture layer, scores and choices, both ``[T, experts]``."""
    hidden = weights["model.embed_tokens.weight"][ids]
    routed = []
    for layer in range(config["num_hidden_layers"]):
        prefix = f"model.layers.{layer}"
        inputs = _norm(hidden, weights[f"{prefix}.input_layernorm.weight"], config)
        hidden = hidden + _attention(inputs, weights, f"{prefix}.self_attn", config)
        inputs = _norm(hidden, weights[f"{prefix}.post_attention_layernorm.weight"], config)
        if is_mixture(config, layer):
            outputs, scores, choices = _mixture(inputs, weights, f"{prefix}.mlp", config)
            routed.append((scores, choices))
            hidden = hidden + outputs
        else:
            hidden = hidden + _expert(inputs, weights, f"{prefix}.mlp")
    hidden = _norm(hidden, weights["model.norm.weight"], config)
    return hidden @ weights["lm_head.weight"].T, routed


def reference_loss(
    weights: dict[str, torch.Tensor], config: dict[str, Any], rows: list[list[int]]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return mean cross entropy and balance loss (without alpha) of a batch of equally long rows."""
    entropies, per_layer = [], []
    for ids in rows:
        logits, routed = reference_logits(weights, config, ids)
        for position in range(len(ids) - 1):
            entropies.append(-F.log_softmax(logits[position], dim=-1)[ids[position + 1]])
        per_layer.append(routed)
    balance = torch.zeros((), dtype=logits.dtype)
    for layer in range(len(per_layer[0])):
        of_rows = [row[layer] for row in per_layer]
        if config["seq_aux"]:
            balance = balance + torch.stack([_balance(*one, config) for one in of_rows]).mean()
        else:
            scores, choices = (torch.cat(parts) for parts in zip(*of_rows, strict=True))
            balance = balance + _balance(scores, choices, config)
    return torch.stack(entropies).mean(), balance


def _balance(scores: torch.Tensor, choices: torch.Tensor, config: dict[str, Any]) -> torch.Tensor:
    """Equations 12 to 14: sum over experts of f_i P_i."""
    tokens, experts = scores.shape
    total = torch.zeros((), dtype=scores.dtype)
    for expert in range(experts):
        share = experts / (config["num_experts_per_tok"] * tokens) * choices[:, expert].sum()
        total = total + share * scores[:, expert].sum() / tokens
    return total


def _mixture(
    inputs: torch.Tensor, weights: dict[str, torch.Tensor], prefix: str, config: dict[str, Any]
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Equations 8 to 10."""
    outputs, all_scores, all_choices = [], [], []
    for token in inputs:
        affinity = weights[f"{prefix}.gate.weight"] @ token
        scores = torch.exp(affinity) / torch.exp(affinity).sum()
        values = scores.detach().tolist()
        ranking = sorted(range(len(scores)), key=lambda expert, values=values: -values[expert])
        chosen = ranking[: config["num_experts_per_tok"]]
        total = sum(scores[expert] for expert in chosen) if config["norm_topk_prob"] else 1.0
        output = torch.zeros_like(token)
        for expert in chosen:
            output = output + scores[expert] / total * _expert(token, weights, f"{prefix}.experts.{expert}")
        if config["n_shared_experts"]:
            for shared in range(config["n_shared_experts"]):
                output = output + _shared_expert(token, weights, prefix, shared, config)
        outputs.append(output)
        all_scores.append(scores)
        all_choices.append(torch.tensor([float(e in chosen) for e in range(len(scores))], dtype=scores.dtype))
    return torch.stack(outputs), torch.stack(all_scores), torch.stack(all_choices)


def _expert(inputs: torch.Tensor, weights: dict[str, torch.Tensor], prefix: str) -> torch.Tensor:
    gate = inputs @ weights[f"{prefix}.gate_proj.weight"].T
    up = inputs @ weights[f"{prefix}.up_proj.weight"].T
    return (gate * torch.sigmoid(gate) * up) @ weights[f"{prefix}.down_proj.weight"].T


def _shared_expert(
    token: torch.Tensor, weights: dict[str, torch.Tensor], prefix: str, index: int, config: dict[str, Any]
) -> torch.Tensor:
    """One shared expert alone; the published weights hold them side by side."""
    width = config["moe_intermediate_size"]
    rows = slice(index * width, (index + 1) * width)
    gate = weights[f"{prefix}.shared_experts.gate_proj.weight"][rows] @ token
    up = weights[f"{prefix}.shared_experts.up_proj.weight"][rows] @ token
    return weights[f"{prefix}.shared_experts.down_proj.weight"][:, rows] @ (gate * torch.sigmoid(gate) * up)


def _attention(
    inputs: torch.Tensor, weights: dict[str, torch.Tensor], prefix: str, config: dict[str, Any]
) -> torch.Tensor:
    heads, size = config["num_attention_heads"], config["hidden_size"] // config["num_attention_heads"]
    queries = inputs @ weights[f"{prefix}.q_proj.weight"].T
    keys = inputs @ weights[f"{prefix}.k_proj.weight"].T
    values = inputs @ weights[f"{prefix}.v_proj.weight"].T
    outputs = []
    for head in range(heads):
        shared = head * config["num_key_value_heads"] // heads
        query = _rotate(queries[:, head * size : (head + 1) * size], config)
        key = _rotate(keys[:, shared * size : (shared + 1) * size], config)
        value = values[:, shared * size : (shared + 1) * size]
        scores = query @ key.T / size**0.5
        future = torch.ones_like(scores, dtype=torch.bool).triu(1)
        outputs.append(scores.masked_fill(future, float("-inf")).softmax(dim=-1) @ value)
    return torch.cat(outputs, dim=-1) @ weights[f"{prefix}.o_proj.weight"].T


def _rotate(vectors: torch.Tensor, config: dict[str, Any]) -> torch.Tensor:
    """Rotary position embedding (arXiv:2104.09864); dimension i turns with dimension i + size / 2."""
    length, size = vectors.shape
    half = size // 2
    speeds = torch.tensor([config["rope_theta"] ** (-2 * i / size) for i in range(half)], dtype=vectors.dtype)
    angles = torch.arange(length, dtype=vectors.dtype)[:, None] * speeds
    first, second = vectors[:, :half], vectors[:, half:]
    return torch.cat(
        [
            first * angles.cos() - second * angles.sin(),
            second * angles.cos() + first * angles.sin(),
        ],
        dim=-1,
    )


def _norm(inputs: torch.Tensor, weight: torch.Tensor, config: dict[str, Any]) -> torch.Tensor:
    return inputs / (inputs.pow(2).mean(-1, keepdim=True) + config["rms_norm_eps"]).sqrt() * weight
