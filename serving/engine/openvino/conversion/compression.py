"""Packs a graph's weights to 8 or 4 bits; activations stay as they are."""

from __future__ import annotations

import logging

import nncf
import openvino as ov

__all__ = ["compress"]

_GROUP = 128
"""Weights of one row that share a scale in int4."""


def compress(graph: ov.Model, weights: str) -> ov.Model:
    """Return ``graph`` with packed weights.

    Args:
        graph: weights in fp32, so that rounding happens once.
        weights: ``int8``: asymmetric, one scale per row. ``int4``: symmetric, one scale per 128 weights of
            a row (64 or 32 where 128 does not divide it); embeddings and the last layer in int8.
    """
    nncf.set_log_level(logging.ERROR)
    if weights == "int8":
        return nncf.compress_weights(graph, mode=nncf.CompressWeightsMode.INT8_ASYM)
    return nncf.compress_weights(
        graph,
        mode=nncf.CompressWeightsMode.INT4_SYM,
        group_size=_GROUP,
        ratio=1.0,
        advanced_parameters=nncf.AdvancedCompressionParameters(
            group_size_fallback_mode=nncf.GroupSizeFallbackMode.ADJUST
        ),
    )
