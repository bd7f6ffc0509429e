"""What the load tests need of a Triton model: the names of its inputs and outputs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from loadtests.errors import EndpointError
from loadtests.workloads.workload import Request

__all__ = ["check_outputs", "datatype", "request_inputs"]

_NEEDED_OUTPUTS = ("text_output", "output_ids", "finish_reason")


def request_inputs(
    request: Request, *, stream: bool | None
) -> Iterator[tuple[str, str | bool | int | float]]:
    """Yield name and value of every input of one request.

    All requests of a run with the same kind of prompt have the same set: Triton's dynamic batcher never
    groups requests whose sets of optional inputs differ.

    Args:
        request: what to ask.
        stream: whether many responses are wanted; None for a model that has no such input.
    """
    yield request.prompt.input_name, request.prompt.value
    if stream is not None:
        yield "stream", stream
    yield from request.parameters.items()


def datatype(name: str, value: str | bool | int | float) -> str:
    """Return Triton's name for the type of an input."""
    if name == "seed":
        return "UINT64"
    # bool before int: a bool is an int in Python.
    kinds = ((bool, "BOOL"), (int, "INT32"), (float, "FP32"))
    return next((found for kind, found in kinds if isinstance(value, kind)), "BYTES")


def check_outputs(outputs: Iterable[str], model: str, url: str) -> None:
    """Check that a model has the outputs that are measured.

    Raises:
        EndpointError: some are missing, so tokens could not be counted.
    """
    found = set(outputs)
    missing = [name for name in _NEEDED_OUTPUTS if name not in found]
    if missing:
        raise EndpointError(
            f"{url}: model {model!r} has no output {', '.join(missing)}; tokens are counted from them. "
            "Test a model exported by `trimaran export` (choose it with --model)"
        )
