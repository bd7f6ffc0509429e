"""What the scripted servers do, by the name of the model that is asked. The truth tests compare with."""

from __future__ import annotations

from collections.abc import Mapping

FIRST_S = 0.08
GAP_S = 0.02
TOKENS = 6
PROMPT_TOKENS = 5

OUTPUTS = ("text_output", "output_ids", "finish_reason", "prompt_tokens", "completion_tokens")

# Model name -> the failure kind that its answers must be sorted into. `stream_only` ones never
# appear in a unary answer.
FAILING = {
    "shed": "refused",
    "wrong": "4xx",
    "unprepared": "4xx",
    "hanging_up": "unreachable",
    "redirecting": "malformed",
    "proxied": "malformed",
    "crashing": "5xx",
    "erring": "stream_error",
    "dropping": "truncated",
    "unfinished": "truncated",
    "silent": "empty",
    "miscounting": "token_count",
    "excessive": "token_count",
    "garbled": "malformed",
    "no_ids": "malformed",
    "slow": "timeout",
}
READY = (
    "llm",
    "chunked",
    "single",
    "flaky",
    "foreign",
    "locked",
    "stalling",
    "narrow",
    "uncounted",
    *FAILING,
)
OPTIONS = {
    "min_tokens", "ignore_eos", "seed", "top_p", "top_k", "min_p", "repetition_penalty", "presence_penalty",
    "frequency_penalty",
}  # fmt: skip
"""What a request may have beside prompt, ``stream``, ``max_tokens`` and ``temperature``."""
DATATYPES = {
    "text_input": "BYTES", "messages": "BYTES", "stream": "BOOL", "max_tokens": "INT32",
    "min_tokens": "INT32", "ignore_eos": "BOOL", "seed": "UINT64", "top_k": "INT32",
}  # fmt: skip
"""Types of Triton's inputs; those of the others are FP32."""
API_KEY = "sk-scripted"
STALL_S = 2.0
"""How long ``stalling`` sends nothing at all, once, from when ``STALL_AFTER`` requests have come."""
STALL_AFTER = 20
SLOTS = 3
"""How many requests ``narrow`` answers at once; the others wait."""
SLOW_FIRST_S = {"first-50": 0.05, "first-200": 0.2, "first-1000": 1.0}
"""Prompt -> how long the model ``llm`` takes to its first token, instead of ``FIRST_S``."""


def problem_of(inputs: Mapping[str, object], *, stream: bool | None) -> str | None:
    """Return what is wrong with the inputs of one request to Triton.

    Args:
        inputs: by name.
        stream: what that input must be; None where there must be none.
    """
    wanted = {"max_tokens", "temperature"} | (set() if stream is None else {"stream"})
    if set(inputs) - OPTIONS not in (wanted | {name} for name in ("text_input", "messages")):
        return f"unexpected inputs {sorted(inputs)}"
    if inputs.get("stream") is not stream:
        return "stream does not fit the endpoint"
    return None


def responses(model: str, prompt: str = "") -> list[tuple[float, dict[str, object]]]:
    """Return the (seconds to wait, outputs) of one streamed answer."""
    first_s = SLOW_FIRST_S.get(prompt, FIRST_S)
    chunk, count = (3, TOKENS // 3) if model == "chunked" else (1, 1) if model == "single" else (1, TOKENS)
    found: list[tuple[float, dict[str, object]]] = []
    for number in range(count):
        last = number == count - 1
        ids: list[int] | int = list(range(chunk)) if chunk > 1 else number  # as Triton writes one element
        outputs: dict[str, object] = {
            "text_output": "word " * chunk,
            "output_ids": ids,
            "finish_reason": "length" if last and model != "unfinished" else "",
            "prompt_tokens": PROMPT_TOKENS,
            "completion_tokens": (number + 1) * chunk,
        }
        if model == "silent":
            outputs |= {"text_output": "", "output_ids": []}
        if model == "no_ids":
            del outputs["output_ids"]
        if model == "miscounting" and last:
            outputs["completion_tokens"] = count * chunk + 1
        if model == "excessive":  # more than any test asks for
            outputs |= {"output_ids": list(range(100)), "completion_tokens": (number + 1) * 100}
        found.append((first_s if number == 0 else GAP_S, outputs))
    return found
