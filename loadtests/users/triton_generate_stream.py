"""Triton's ``/v2/models/M/generate_stream``: server-sent events, one ``data: {...}`` per response."""

from __future__ import annotations

from geventhttpclient.response import HTTPParseError

from loadtests.answer import Answer
from loadtests.http_user import broken, check_events, decode
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
        events, strange = False, b""
        while True:
            try:
                line = response.readline(b"\n")
            except (OSError, HTTPParseError) as error:
                raise broken(error) from error
            seen_ns = answer.now()
            if not line:
                check_events(events, strange)
                return
            if line.startswith(b"data:"):
                events = True
                answer.add_outputs(seen_ns, decode(line[5:]))
            else:
                strange = strange or line.strip()
