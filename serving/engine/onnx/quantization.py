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

# How the product is computed: 1 with float32 activations; 4 with activations rounded to 8 bits, each
# block of 32 of each token by its own scale, so that no token depends on the others of its batch.
_ACCURACY_LEVEL = 4


def quantize_weights(source: Path, target: Path, weights: str) -> None:
    """Write the model in ``source`` to ``target``, both directories, with ``weights`` int8 or int4."""
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

    with _quiet():
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
    logger = logging.getLogger("onnxruntime.quantization.matmul_nbits_quantizer")
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)
