"""Kinds of failed requests. A failure is a measurement, so it has a name and keeps an example."""

from __future__ import annotations

__all__ = ["FAILURE_KINDS", "RequestFailed", "kind_of_status"]

FAILURE_KINDS: dict[str, str] = {
    "unreachable": "no connection, or it broke before the answer began",
    "refused": "the server shed the request: HTTP 503 or 429, or its queue is full",
    "4xx": "the server says that the request is wrong",
    "5xx": "the server says that it failed",
    "stream_error": "the model sent an error inside the stream",
    "timeout": "no whole answer within --request-timeout",
    "hanging": "cut at the end of the run, after more than twice the wait of the slowest answer",
    "truncated": "the answer broke off: no finish_reason",
    "empty": "the answer finished without a single token",
    "token_count": "the tokens that came are not as many as the server says or as were asked for",
    "malformed": "the answer is not what the contract says, such as no JSON",
    "internal": "an error inside the load tester itself; please report it",
}
"""Every kind with its meaning, in the order of the report."""


class RequestFailed(Exception):
    """One request failed. ``kind`` is a key of ``FAILURE_KINDS``, ``detail`` what the server said."""

    def __init__(self, kind: str, detail: str) -> None:
        super().__init__(f"{kind}: {detail}")
        self.kind = kind
        self.detail = detail


def kind_of_status(status: int) -> str:
    """Return the failure kind of an HTTP status other than 200."""
    if status in (429, 503):
        return "refused"
    if status < 400:  # another success than the contract's, or a redirection, as to a page to log in
        return "malformed"
    return "4xx" if status < 500 else "5xx"
