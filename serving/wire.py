"""A generation request and its answers as KServe v2 protobuf messages.

Every request carries the same inputs, defaults included: Triton's dynamic batcher never puts requests with
different sets of optional inputs into one batch. Only the prompt's input differs by its kind.
"""

from __future__ import annotations

import json
import secrets
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypedDict

import numpy as np
from tritonclient.grpc import service_pb2 as pb

from checkpoints.errors import RequestError, ServerError
from checkpoints.prompt import Message
from serving.tensors import INPUTS, OUTPUTS

__all__ = ["Chunk", "Generation", "Message", "Request", "decode", "encode", "join"]


class Request(TypedDict, total=False):
    """What a caller may give: exactly one of ``text``, ``messages``, ``input_ids``; the rest has defaults."""

    text: str
    messages: Sequence[Message]
    input_ids: Sequence[int]
    max_tokens: int
    min_tokens: int
    temperature: float
    top_p: float
    min_p: float
    top_k: int
    repetition_penalty: float
    presence_penalty: float
    frequency_penalty: float
    seed: int | None
    stop_words: Sequence[str]
    ignore_eos: bool
    return_log_probs: bool


@dataclass(frozen=True)
class Chunk:
    """One response of a stream.

    Attributes:
        text: the new text; may be empty while a character or a stop word is incomplete.
        output_ids: the new token ids.
        log_probs: natural log-probabilities of ``output_ids``, if asked for.
        finish_reason: empty until the last chunk: ``stop``, ``length`` or ``cancelled``.
        prompt_tokens: tokens of the prompt.
        completion_tokens: tokens generated so far.
        seed: the seed of this request.
    """

    text: str = ""
    output_ids: list[int] = field(default_factory=list)
    log_probs: list[float] = field(default_factory=list)
    finish_reason: str = ""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    seed: int | None = None


@dataclass(frozen=True)
class Generation(Chunk):
    """A whole answer; the attributes are those of ``Chunk``, for all of it."""


_DEFAULTS: dict[str, Any] = {
    "max_tokens": 256,
    "min_tokens": 0,
    "temperature": 0.0,
    "top_p": 1.0,
    "min_p": 0.0,
    "top_k": 0,
    "repetition_penalty": 1.0,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
    "stop_words": (),
    "ignore_eos": False,
    "return_log_probs": False,
}
_TYPES = {tensor.name: tensor.type for tensor in (*INPUTS, *OUTPUTS)}
_NUMPY = {"INT32": "<i4", "UINT64": "<u8", "FP32": "<f4", "BOOL": "?"}
_FORMATS = {"INT32": "i", "UINT64": "Q", "FP32": "f", "BOOL": "?"}
_PROMPTS = ("text", "messages", "input_ids")


def encode(model: str, request: Request, *, stream: bool | None) -> pb.ModelInferRequest:
    """Return the message for ``request``.

    Args:
        model: the model's name in Triton.
        request: what the caller gave.
        stream: whether many responses are wanted; None for the unary model, which has no such input.

    Raises:
        RequestError: not exactly one prompt, an unknown field, or a value that does not fit its type.
    """
    given: Mapping[str, Any] = {key: value for key, value in request.items() if value is not None}
    unknown = sorted(given.keys() - _DEFAULTS.keys() - {*_PROMPTS, "seed"})
    if unknown:
        raise RequestError(f"unknown field {unknown[0]!r}; accepted: {', '.join(Request.__annotations__)}")
    prompts = [name for name in _PROMPTS if name in given]
    if len(prompts) != 1:
        raise RequestError(
            f"exactly one of text, messages and input_ids is needed, found {' and '.join(prompts) or 'none'}"
        )
    values: dict[str, Any] = {}
    if "text" in given:
        values["text_input"] = given["text"]
    elif "messages" in given:
        try:
            values["messages"] = json.dumps(list(given["messages"]), ensure_ascii=False)
        except TypeError as error:
            raise RequestError(f"messages cannot be written as JSON: {error}") from error
    else:
        values["input_ids"] = given["input_ids"]
    if stream is not None:
        values["stream"] = stream
    values |= {name: given.get(name, default) for name, default in _DEFAULTS.items()}
    # Drawn here, so that the set of inputs stays the same and the caller learns it.
    values["seed"] = given.get("seed", secrets.randbits(53))
    message = pb.ModelInferRequest(model_name=model)
    for name, value in values.items():
        _add(message, name, value)
    return message


def decode(response: pb.ModelInferResponse) -> Chunk:
    """Return what a response holds.

    Raises:
        ServerError: an output is not as the contract says.
    """
    found: dict[str, list[Any]] = {}
    for output, raw in zip(response.outputs, response.raw_output_contents, strict=True):
        if output.name not in _TYPES:
            continue
        if output.datatype == "BYTES":
            found[output.name] = _strings(output.name, raw)
        else:
            found[output.name] = np.frombuffer(raw, dtype=_NUMPY[output.datatype]).tolist()

    def last(name: str, default: Any) -> Any:
        return found[name][-1] if found.get(name) else default

    return Chunk(
        text=last("text_output", ""),
        output_ids=found.get("output_ids", []),
        log_probs=found.get("log_probs", []),
        finish_reason=last("finish_reason", ""),
        prompt_tokens=last("prompt_tokens", 0),
        completion_tokens=last("completion_tokens", 0),
        seed=last("seed", None),
    )


def join(chunks: Sequence[Chunk]) -> Generation:
    """Return the whole answer of a stream's chunks.

    Raises:
        ServerError: the stream ended before a finish reason came.
    """
    if not chunks or not chunks[-1].finish_reason:
        raise ServerError("the server ended the answer without a finish reason; see its log")
    final = chunks[-1]
    return Generation(
        text="".join(chunk.text for chunk in chunks),
        output_ids=[token for chunk in chunks for token in chunk.output_ids],
        log_probs=[value for chunk in chunks for value in chunk.log_probs],
        finish_reason=final.finish_reason,
        prompt_tokens=final.prompt_tokens,
        completion_tokens=final.completion_tokens,
        seed=final.seed,
    )


def _add(message: pb.ModelInferRequest, name: str, value: Any) -> None:
    kind = _TYPES[name]
    many = list(value) if name in ("input_ids", "stop_words") else [value]
    try:
        if kind == "STRING":
            parts = [text.encode("utf-8") for text in many]
            raw = b"".join(struct.pack("<I", len(part)) + part for part in parts)
        else:
            raw = struct.pack(f"<{len(many)}{_FORMATS[kind]}", *many)
    except (struct.error, AttributeError, TypeError, OverflowError, UnicodeEncodeError) as error:
        raise RequestError(f"{name} is {value!r:.60}, which is no {kind}: {error}") from error
    tensor = message.inputs.add()
    tensor.name = name
    tensor.datatype = "BYTES" if kind == "STRING" else kind
    tensor.shape.extend([1, len(many)])
    message.raw_input_contents.append(raw)


def _strings(name: str, raw: bytes) -> list[str]:
    strings, position = [], 0
    while position < len(raw):
        (length,) = struct.unpack_from("<I", raw, position)
        position += 4
        strings.append(raw[position : position + length].decode("utf-8", "replace"))
        position += length
    if position != len(raw):
        raise ServerError(f"output {name} is cut short")
    return strings
