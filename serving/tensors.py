"""The inputs and outputs of the Triton model ``llm``: one table for config.pbtxt, client and docs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["INPUTS", "OUTPUTS", "Tensor"]

DataType = Literal["BOOL", "INT32", "UINT64", "FP32", "STRING"]


@dataclass(frozen=True)
class Tensor:
    """One input or output; its dims, without the batch, are ``[1]``, or ``[-1]`` where it is ``variable``."""

    name: str
    type: DataType
    variable: bool = False
    streaming_only: bool = False
    """Whether the unary model ``NAME_infer`` leaves it out."""


INPUTS = (
    Tensor("text_input", "STRING"),
    Tensor("messages", "STRING"),
    Tensor("input_ids", "INT32", variable=True),
    Tensor("stream", "BOOL", streaming_only=True),
    Tensor("max_tokens", "INT32"),
    Tensor("min_tokens", "INT32"),
    Tensor("temperature", "FP32"),
    Tensor("top_p", "FP32"),
    Tensor("min_p", "FP32"),
    Tensor("top_k", "INT32"),
    Tensor("repetition_penalty", "FP32"),
    Tensor("presence_penalty", "FP32"),
    Tensor("frequency_penalty", "FP32"),
    Tensor("seed", "UINT64"),
    Tensor("stop_words", "STRING", variable=True),
    Tensor("ignore_eos", "BOOL"),
    Tensor("return_log_probs", "BOOL"),
    Tensor("sampling_parameters", "STRING"),
)
"""All are optional: a request gives exactly one of the first three and what else it wants."""

OUTPUTS = (
    Tensor("text_output", "STRING"),
    Tensor("output_ids", "INT32", variable=True),
    Tensor("log_probs", "FP32", variable=True),
    Tensor("finish_reason", "STRING"),
    Tensor("prompt_tokens", "INT32"),
    Tensor("completion_tokens", "INT32"),
    Tensor("seed", "UINT64"),
)
