"""How large whole models are in NF4, computed from their shapes; nothing is loaded or measured.

  python -m benchmarks.nf4_sizes

Models are built on the meta device. Linear layers and experts are packed, the rest (embedding, head, norms,
routers) stays in bf16; lookup tables of bitsandbytes (a kilobyte for each Linear layer) are left out. GB are
10^9 bytes. The result is in benchmarks/results/nf4_sizes.json and nf4_sizes.md.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import CONFIG_MAPPING, AutoConfig, AutoModelForCausalLM

from checkpoints.nf4_report import expected_size

__all__ = ["SHAPES", "main", "model_size", "render"]

_DENSE_7B = {
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 30,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
    "vocab_size": 102400,
    "tie_word_embeddings": False,
}
_MOE_16B = {
    "hidden_size": 2048,
    "intermediate_size": 10944,
    "moe_intermediate_size": 1408,
    "num_hidden_layers": 28,
    "num_attention_heads": 16,
    "num_key_value_heads": 16,
    "num_experts_per_tok": 6,
    "vocab_size": 102400,
    "tie_word_embeddings": False,
}

SHAPES: dict[str, list[tuple[str, dict[str, Any]]]] = {
    "DeepSeek-LLM 7B": [("llama", _DENSE_7B)],
    "DeepSeek-MoE 16B": [
        (
            "deepseek",
            {**_MOE_16B, "n_routed_experts": 64, "n_shared_experts": 2, "first_k_dense_replace": 1},
        ),
        # The same sizes but for attention's biases and a gate of 2,048 weights in each layer.
        (
            "qwen2_moe",
            {
                **_MOE_16B,
                "num_experts": 64,
                "shared_expert_intermediate_size": 2816,
                "mlp_only_layers": [0],
            },
        ),
    ],
}
"""Model -> model types that have its shape; the first that transformers knows is taken."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results")
    output = parser.parse_args(arguments).output
    sizes = [model_size(name) for name in SHAPES]
    (output / "nf4_sizes.json").write_text(json.dumps(sizes, indent=2) + "\n", encoding="utf-8")
    (output / "nf4_sizes.md").write_text(render(sizes), encoding="utf-8")
    print(render(sizes), end="")
    return 0


def model_size(name: str) -> dict[str, Any]:
    """Return the sizes of one model in bytes."""
    model_type, settings = next(shape for shape in SHAPES[name] if shape[0] in CONFIG_MAPPING)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(
            AutoConfig.for_model(model_type, **settings), dtype=torch.bfloat16
        )
    parameters = sum(parameter.numel() for parameter in model.parameters())
    single = expected_size(model, double_quantization=False)
    double = expected_size(model, double_quantization=True)
    kept = 2 * (parameters - single.parameters)
    return {
        "model": name,
        "computed_as": model_type,
        "parameters": parameters,
        "packed_parameters": single.parameters,
        "kept_bf16_bytes": kept,
        "fp32_bytes": 4 * parameters,
        "bf16_bytes": 2 * parameters,
        "nf4_bytes": single.bytes + kept,
        "nf4_double_bytes": double.bytes + kept,
        "packed_bytes_per_parameter": round(single.bytes_per_parameter, 4),
        "packed_bytes_per_parameter_double": round(double.bytes_per_parameter, 4),
    }


def render(sizes: list[dict[str, Any]]) -> str:
    """Return the table as Markdown."""
    lines = [
        "| model | parameters | fp32 | bf16 | NF4 | NF4, double quantization | of it left in bf16 |",
        "|---|---|---|---|---|---|---|",
    ]
    for size in sizes:
        figures = (
            f"{size['parameters'] / 1e9:.2f} B",
            *(_gigabytes(size[name]) for name in ("fp32_bytes", "bf16_bytes", "nf4_bytes")),
            _gigabytes(size["nf4_double_bytes"]),
            _gigabytes(size["kept_bf16_bytes"]),
        )
        lines.append(f"| {size['model']} | {' | '.join(figures)} |")
    return "\n".join(lines) + "\n"


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:.2f} GB"


if __name__ == "__main__":
    raise SystemExit(main())
