"""Weights of projections in 8 or 4 bits, by onnxruntime's own quantizer.

``MatMulNBits`` keeps a scale and a zero point for each block of ``BLOCK_SIZE`` weights of one output.
The embedding, norms and biases stay in float32.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from serving.engine.onnx.session import MODEL_NAME

__all__ = ["BITS", "BLOCK_SIZE", "quantize_weights"]

BITS = {"int8": 8, "int4": 4}
"""Name of a weight precision -> its bits."""

BLOCK_SIZE = 32

# How the product is computed. 4: activations are rounded to 8 bits too, each block of 32 of each token
# by a scale of its own, so no token depends on the others of its batch. 1 would keep them in float32,
# but onnxruntime then unpacks all weights at every step: 414 ms instead of 14 for one token of
# SmolLM2-135M (2 cores, AVX2), for a mean KL of 0.0014 instead of 0.0050 from the fp32 model.
_ACCURACY_LEVEL = 4


def quantize_weights(source: Path, target: Path, weights: str) -> None:
    """Write the model in ``source`` to ``target``, both directories, with ``weights`` int8 or int4."""
    with _quiet():
        from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

        quantizer = MatMulNBitsQuantizer(
            str(source / MODEL_NAME),
            bits=BITS[weights],
            block_size=BLOCK_SIZE,
            is_symmetric=False,
            accuracy_level=_ACCURACY_LEVEL,
            op_types_to_quantize=("MatMul",),
        )
        quantizer.process()
        quantizer.model.save_model_to_file(str(target / MODEL_NAME), use_external_data_format=True)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without a line per node; the quantizer's module sets up the root logger when it is imported."""
    root = logging.getLogger()
    own = logging.getLogger("onnxruntime.quantization.matmul_nbits_quantizer")
    handlers, levels = list(root.handlers), (root.level, own.level)
    own.setLevel(logging.WARNING)
    try:
        yield
    finally:
        root.handlers[:] = handlers
        root.setLevel(levels[0])
        own.setLevel(levels[1])
