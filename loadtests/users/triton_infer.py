"""KServe v2's ``/v2/models/M/infer``: one request, one response, so no token times.

It is meant for ``llm_infer``, which is exported beside ``llm``: Triton refuses it for decoupled models.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from loadtests.answer import Answer
from loadtests.credentials import Credentials
from loadtests.errors import EndpointError
from loadtests.failures import RequestFailed
from loadtests.target import Target
from loadtests.triton_contract import datatype, request_inputs
from loadtests.triton_http import TritonHttpUser, read_json
from loadtests.workloads.workload import Request

__all__ = ["TritonInferUser"]


class TritonInferUser(TritonHttpUser):
    """Sends the inputs as JSON tensors of the shape [1, 1] and reads the whole answer at once."""

    endpoint = "infer"
    label = "infer"
    streams = False

    @classmethod
    def preflight(cls, target: Target, model: str, credentials: Credentials) -> dict[str, Any]:
        """See ``MeasuredUser.preflight``."""
        facts = super().preflight(target, model, credentials)
        config = read_json(target, f"/v2/models/{quote(model, safe='')}/config", credentials)
        if config.get("model_transaction_policy", {}).get("decoupled"):
            raise EndpointError(
                f"{target.url}: model {model!r} is decoupled (one request, any number of responses), which "
                f"infer cannot use; choose --model {model}_infer, or --protocol generate"
            )
        return facts

    def body(self, request: Request) -> dict[str, Any]:
        """Return what is posted, by KServe v2."""
        inputs = request_inputs(request, stream=None)
        return {
            "inputs": [
                {"name": name, "shape": [1, 1], "datatype": datatype(name, value), "data": [value]}
                for name, value in inputs
            ]
        }

    def send(self, request: Request, answer: Answer) -> None:
        """See ``MeasuredUser.send``."""
        seen_ns, content = self.ask_whole(request, answer)
        answer.add_outputs(seen_ns, _by_name(content))


def _by_name(content: dict[str, Any]) -> dict[str, Any]:
    """Return the outputs as the generate extension has them: scalars, but a list of ids.

    Raises:
        RequestFailed: ``malformed``, when there are none.
    """
    try:
        tensors = {output["name"]: output["data"] for output in content["outputs"]}
        scalars = {name: data[0] for name, data in tensors.items() if data}
        return {**scalars, "output_ids": tensors.get("output_ids")}
    except (KeyError, TypeError) as error:
        raise RequestFailed("malformed", f"no outputs of KServe v2 in {str(content)[:120]!r}") from error
