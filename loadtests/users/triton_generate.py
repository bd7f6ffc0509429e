"""Triton's ``/v2/models/M/generate``: one JSON answer per request, so no token times."""

from __future__ import annotations

from loadtests.answer import Answer
from loadtests.triton_http import TritonHttpUser
from loadtests.workloads.workload import Request

__all__ = ["TritonGenerateUser"]


class TritonGenerateUser(TritonHttpUser):
    """Sends ``stream=false`` and reads the whole answer at once."""

    endpoint = "generate"
    label = "HTTP"
    streams = False

    def send(self, request: Request, answer: Answer) -> None:
        """See ``MeasuredUser.send``."""
        answer.add_outputs(*self.ask_whole(request, answer))
