"""Triton's ``/v2/models/M/generate_stream``: server-sent events, one ``data: {...}`` per response."""

from __future__ import annotations

from geventhttpclient.response import HTTPParseError

from loadtests.answer import Answer
from loadtests.http_user import broken, check_events, decode
from loadtests.streamed_lines import streamed_lines
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
        try:
            for seen_ns, line in streamed_lines(response, answer):
                if line.startswith(b"data:"):
                    events = True
                    answer.add_outputs(seen_ns, decode(line[5:]))
                else:
                    strange = strange or line
        except (OSError, HTTPParseError) as error:
            raise broken(error) from error
        check_events(events, strange)
