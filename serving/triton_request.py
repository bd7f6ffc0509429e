"""The tensors of one Triton request -> a generation request, with errors that name the input."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from checkpoints.errors import PromptError, RequestError
from checkpoints.prompt import PromptEncoder, parse_messages
from serving.engine.request import GenerationRequest, SamplingParameters

__all__ = ["TritonRequest", "read_request"]

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class TritonRequest:
    """What one Triton request asks for."""

    generation: GenerationRequest
    """Prompt and sampling; its seed is set."""

    stream: bool
    """Whether to answer with many responses or with one."""


def read_request(tensors: Mapping[str, Array], encoder: PromptEncoder) -> TritonRequest:
    """Read the inputs of the contract.

    Args:
        tensors: by input name, ``[1, n]``; strings as bytes. What is absent has its default.
        encoder: turns text or messages into token ids.

    Raises:
        RequestError: an input is wrong; the message names it.
    """
    given = {name: _values(name, tensor) for name, tensor in tensors.items()}
    options = _options(given)
    stop_words = options.pop("stop_words", ())
    return_log_probs = options.pop("return_log_probs", False)
    try:
        sampling = SamplingParameters(**options)
    except TypeError as error:
        raise RequestError(f"sampling_parameters: {error}") from error
    if sampling.seed is None:
        sampling = replace(sampling, seed=secrets.randbits(53))
    return TritonRequest(
        GenerationRequest(_prompt_ids(given, encoder), sampling, tuple(stop_words), return_log_probs),
        stream=bool(_single(given, "stream", False)),
    )


def _prompt_ids(given: Mapping[str, list[Any]], encoder: PromptEncoder) -> list[int]:
    kinds = ("text_input", "messages", "input_ids")
    present = [name for name in kinds if name in given]
    if len(present) != 1:
        found = " and ".join(present) or "none"
        raise RequestError(f"exactly one of {', '.join(kinds)} is needed, found {found}")
    try:
        if "text_input" in given:
            return encoder.encode(text=_single(given, "text_input", ""))
        if "messages" in given:
            return encoder.encode(messages=parse_messages(_single(given, "messages", "")))
        return encoder.encode(input_ids=given["input_ids"])
    except PromptError as error:
        raise RequestError(str(error)) from error


def _options(given: Mapping[str, list[Any]]) -> dict[str, Any]:
    """Sampling options of the inputs of their own and of the JSON in ``sampling_parameters``."""
    names = (*SamplingParameters.names(), "return_log_probs")
    options = {name: _single(given, name, None) for name in names if name in given}
    if "stop_words" in given:
        options["stop_words"] = given["stop_words"]
    for name, value in _json_options(given).items():
        if name in options:
            raise RequestError(f"{name} is given twice: as an input and in sampling_parameters")
        if name not in (*names, "stop_words"):
            accepted = ", ".join((*names, "stop_words"))
            raise RequestError(f"sampling_parameters has an unknown name {name!r}; accepted: {accepted}")
        options[name] = _convert(name, value)
    return options


def _json_options(given: Mapping[str, list[Any]]) -> dict[str, Any]:
    text = _single(given, "sampling_parameters", "")
    if not text.strip():
        return {}
    try:
        options = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise RequestError(f"sampling_parameters is not JSON: {error}") from error
    if not isinstance(options, dict):
        raise RequestError(f"sampling_parameters must be a JSON object, found {type(options).__name__}")
    if "stop" in options:  # vLLM's name
        options["stop_words"] = options.pop("stop")
    return options


def _convert(name: str, value: Any) -> Any:
    """Take a value out of JSON; vLLM's clients send numbers as strings."""
    if name == "stop_words":
        words = [value] if isinstance(value, str) else value
        if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
            raise RequestError(f"stop_words is {value!r}; accepted: a text or a list of texts")
        return words
    if name in ("ignore_eos", "return_log_probs"):
        if not isinstance(value, bool):
            raise RequestError(f"{name} is {value!r}; accepted: true or false")
        return value
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            raise RequestError(f"{name} is {value!r}; accepted: a number") from None
        return int(value) if value.is_integer() else value
    return value


def _values(name: str, tensor: Array) -> list[Any]:
    """Return the values of ``[n]`` or ``[1, n]`` as Python objects, texts decoded."""
    if tensor.ndim > 1 and tensor.shape[0] != 1:
        raise RequestError(
            f"{name} has shape {list(tensor.shape)}; send one prompt per request: the server batches them"
        )
    values: list[Any] = tensor.reshape(-1).tolist()
    if tensor.dtype == np.object_:
        return [_text(name, value) for value in values]
    return values


def _text(name: str, value: bytes | str) -> str:
    if isinstance(value, str):
        return value
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError as error:
        raise RequestError(f"{name} is not UTF-8: byte {error.start} is 0x{value[error.start]:02x}") from None


def _single(given: Mapping[str, list[Any]], name: str, default: Any) -> Any:
    if name not in given:
        return default
    if len(given[name]) != 1:
        raise RequestError(f"{name} has {len(given[name])} values; accepted: one")
    return given[name][0]
