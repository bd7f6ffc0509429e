"""Triton's ``/v2/models/M/generate_stream``: server-sent events, one ``data: {...}`` per response."""

from __future__ import annotations

from geventhttpclient.response import HTTPParseError

from loadtests.answer import Answer
from loadtests.http_user import broken, decode
from loadtests.triton_http import TritonHttpUser
from loadtests.workloads.workload import Request

__all__ = ["TritonGenerateStreamUser"]


class TritonGenerateStreamUser(TritonHttpUser):
    """Sends ``stream=true`` and stamps every event when its line is complete."""

    endpoint = "generate_stream"
    label = "SSE"
    streams = True

    def send(self, request: Request, answer: Answer) -> None:
        """See ``MeasuredUser.send``."""
        response = self.ask(request)
        while True:
            try:
                line = response.readline(b"\n")
            except (OSError, HTTPParseError) as error:
                raise broken(error) from error
            seen_ns = answer.now()
            if not line:
                return
            if line.startswith(b"data:"):
                answer.add_outputs(seen_ns, decode(line[5:]))
