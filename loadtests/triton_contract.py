"""What the load tests need of a Triton model: the names of its inputs and outputs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from loadtests.errors import EndpointError
from loadtests.prompts import Prompt
from loadtests.session import Workload

__all__ = ["check_outputs", "request_inputs"]

_NEEDED_OUTPUTS = ("text_output", "output_ids", "finish_reason")


def request_inputs(
    prompt: Prompt, workload: Workload, *, stream: bool
) -> Iterator[tuple[str, str | bool | int | float]]:
    """Yield name and value of every input of one request.

    Always the same set: Triton's dynamic batcher never groups requests whose sets of optional
    inputs differ.
    """
    yield prompt.input_name, prompt.value
    yield "stream", stream
    yield "max_tokens", workload.max_tokens
    yield "temperature", float(workload.temperature)


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
