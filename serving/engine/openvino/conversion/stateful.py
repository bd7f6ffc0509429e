"""Moves the KV cache of a graph from its inputs and outputs into its state.

The form is the one OpenVINO GenAI knows: a state per key and value, empty at first, behind a ``Gather``
over ``beam_idx``. See https://docs.openvino.ai/2026/openvino-workflow/running-inference/stateful-models.html
"""

from __future__ import annotations

import numpy as np
import openvino as ov
from openvino import opset13
from openvino._offline_transformations import apply_make_stateful_transformation

from serving.engine.openvino.conversion.tracing import cache_names, present_names

__all__ = ["make_stateful"]


def make_stateful(graph: ov.Model, layers: int) -> None:
    """Change ``graph`` (of ``tracing.trace``) in place; its inputs are then tokens and ``beam_idx``."""
    beam_idx = opset13.parameter([-1], dtype=np.int32, name="beam_idx")
    beam_idx.output(0).get_tensor().set_names({"beam_idx"})
    graph.add_parameters([beam_idx])
    batch_axis = opset13.constant(0, dtype=np.int64)
    for name in cache_names(layers):
        past = graph.input(name)
        consumers = list(past.get_target_inputs())
        gathered = opset13.gather(past, beam_idx, batch_axis)
        for consumer in consumers:
            consumer.replace_source_output(gathered.output(0))
    graph.validate_nodes_and_infer_types()
    apply_make_stateful_transformation(
        graph, dict(zip(cache_names(layers), present_names(layers), strict=True))
    )
    _start_empty(graph)
    graph.validate_nodes_and_infer_types()


def _start_empty(graph: ov.Model) -> None:
    """Give each state its first value: no tokens, for as many rows as ``input_ids`` has."""
    batch = opset13.gather(
        opset13.shape_of(graph.input("input_ids"), output_type="i64"),
        opset13.constant([0], dtype=np.int64),
        opset13.constant(0, dtype=np.int64),
    )
    for node in graph.get_ops():
        if node.get_type_name() != "ReadValue":
            continue
        _, heads, _, size = (dimension.get_min_length() for dimension in node.get_output_partial_shape(0))
        rest = opset13.constant(np.array([heads, 0, size], dtype=np.int64))
        zero = opset13.constant(0.0, dtype=node.get_output_element_type(0))
        node.set_arguments([opset13.broadcast(zero, opset13.concat([batch, rest], axis=0))])
