"""Triton's ``/v2/models/M/generate``: one JSON answer per request, so no token times."""

from __future__ import annotations

from geventhttpclient.response import HTTPParseError

from loadtests.answer import Answer
from loadtests.failures import RequestFailed
from loadtests.http_user import broken, decode
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
        response = self.ask(request)
        try:
            body = response.read()
        except (OSError, HTTPParseError) as error:
            raise broken(error) from error
        seen_ns = answer.now()
        if not body:
            raise RequestFailed("empty", "HTTP 200 with no body")
        answer.add_outputs(seen_ns, decode(body))
