"""Packs a graph's weights to 8 or 4 bits; activations stay as they are."""

from __future__ import annotations

import logging
import os
from contextlib import redirect_stdout
from io import StringIO

import openvino as ov

# nncf sends telemetry, on import and on use, unless a user has opted out or this is set.
os.environ.setdefault("NNCF_CI", "1")
import nncf

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
    # Not nncf.set_log_level, which also silences the handlers that others attached.
    logging.getLogger("nncf").setLevel(logging.ERROR)
    options = {"mode": nncf.CompressWeightsMode.INT8_ASYM}
    if weights == "int4":
        adjusting = nncf.AdvancedCompressionParameters(
            group_size_fallback_mode=nncf.GroupSizeFallbackMode.ADJUST
        )
        options = {
            "mode": nncf.CompressWeightsMode.INT4_SYM,
            "group_size": _GROUP,
            "ratio": 1.0,
            "advanced_parameters": adjusting,
        }
    with redirect_stdout(StringIO()):  # it draws a progress bar of its own
        return nncf.compress_weights(graph, **options)
