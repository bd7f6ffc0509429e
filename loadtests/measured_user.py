"""The Locust user that measures: one request after the other, each with a complete record."""

from __future__ import annotations

from typing import Any, ClassVar

import gevent
from locust import User, task
from locust.env import Environment
from locust.exception import StopUser

from loadtests.answer import Answer
from loadtests.credentials import Credentials
from loadtests.failures import RequestFailed
from loadtests.record import Record
from loadtests.session import session_of
from loadtests.target import Target, parse_targets
from loadtests.turn import Turn
from loadtests.workloads.workload import Request

__all__ = ["MeasuredUser"]

# After a failure a user waits this long, so a server that refuses at once is not hammered in a
# busy loop that would measure nothing but this machine's speed. An open loop has its own pace.
FAILURE_PAUSE_S = 0.1


class MeasuredUser(User):
    """Base of the users in ``users/``. A protocol implements ``preflight`` and ``send``.

    In a closed loop a user sends its next request when it has the answer to the last one. In an open loop
    (``arrivals/``) users wait for the arrivals of a schedule, and a free one sends each when it is due.
    In a conversation the same user sends turn after turn, each with the answers to those before.
    """

    abstract = True

    label: ClassVar[str]
    """Short name of the protocol for Locust's tables, such as ``SSE``."""
    streams: ClassVar[bool]
    """Whether tokens arrive one by one, so that TTFT and ITL exist."""
    takes_messages: ClassVar[bool] = True
    """Whether a prompt may be a conversation."""

    def __init__(self, environment: Environment) -> None:
        super().__init__(environment)
        self.session = session_of(environment)
        self.workload = self.session.workload
        self.number = self.session.new_user()
        self.targets = parse_targets(self.host or "")
        self.target = self.targets[0]
        """Where the current request goes. Requests take the targets in turn, a conversation stays at one."""
        self._last: tuple[Turn, str] | None = None
        self._pause_s = 0.0

    @classmethod
    def preflight(cls, target: Target, model: str, credentials: Credentials) -> dict[str, Any]:
        """Check that the endpoint answers and the model is ready; return facts for the report.

        Raises:
            ConfigError: this protocol cannot use that URL.
            EndpointError: nothing answers, the model is not ready, or it has another contract.
        """
        raise NotImplementedError

    def wait_time(self) -> float:
        """Return how many seconds to think before the next request; Locust asks after each."""
        return self._pause_s

    def send(self, request: Request, answer: Answer) -> None:
        """Send one request to ``self.target`` and feed every response to ``answer``.

        Raises:
            RequestFailed: the request failed.
        """
        raise NotImplementedError

    def connect(self) -> None:
        """Connect to every target before the first request, where the protocol has a connection per user.

        A closed loop starts many users at once, and who connects while the others do waits for them in this
        process: the first time to first token would count that. What fails here, the request says again.
        """

    def on_start(self) -> None:
        """Connect, if all users will send, and wait for this one's turn to begin."""
        if self.session.schedule is None:
            self.connect()
            if wait_s := self.session.spawn_delay_s(self.number):
                gevent.sleep(wait_s)

    def reset(self) -> None:
        """Drop the connection to ``self.target`` after a request that did not end well."""

    @task
    def generate(self) -> None:
        """Send one request, record it, tell Locust."""
        turn = self._take()
        if turn is None:
            raise StopUser
        request, collector = turn.request, self.session.collector
        prompt = request.prompt
        target = turn.place % len(self.targets)
        self.target = self.targets[target]
        record = Record(
            start_ns=collector.now(), user=self.number, prompt=prompt.index, streamed=self.streams,
            intended_ns=turn.intended_ns, ready_ns=turn.ready_ns, target=target,
            sequence=turn.place, turn=turn.number, input_tokens=prompt.tokens, max_tokens=request.max_tokens,
        )  # fmt: skip
        answer = Answer(record, collector, keep_text=bool(prompt.later))
        failure: RequestFailed | None = None
        collector.in_flight += 1
        try:
            failure = self._send_within_limit(request, answer)
            record.outcome = "failed" if failure else "ok"
        finally:
            # Also when Locust kills this greenlet at the end of the run: the record stays "cut".
            collector.in_flight -= 1
            ended_ns = answer.ended_ns if record.outcome == "ok" else None
            record.end_ns = collector.now() if ended_ns is None else ended_ns
            if failure is not None:
                record.failure, record.detail = failure.kind, failure.detail[:500]
            if record.outcome != "ok":
                self.reset()
            collector.add(record)
        self._tell_locust(record, answer, failure)
        going_on = failure is None and bool(prompt.later)
        self._last = (turn, answer.text) if going_on else None
        # Only in a closed loop is a user that has its answer about to ask something else.
        thinks = (going_on or self.session.schedule is None) and not self.session.over
        self._pause_s = self.workload.pause_s(turn.place, turn.number) if thinks else 0.0
        if failure is not None and turn.intended_ns is None:
            gevent.sleep(FAILURE_PAUSE_S)

    def _take(self) -> Turn | None:
        """Return the next turn of the conversation that this user is in, or what else is to be sent."""
        last, self._last = self._last, None
        following = None if last is None else self.session.follow(*last)
        return self.session.take() if following is None else following

    def _send_within_limit(self, request: Request, answer: Answer) -> RequestFailed | None:
        limit_s = self.workload.request_timeout_s
        late = RequestFailed("timeout", f"no whole answer within {limit_s:g} s")
        try:
            with gevent.Timeout(limit_s, late):
                self.send(request, answer)
                answer.check_complete(request.max_tokens, forced=request.forced)
        except RequestFailed as failed:
            return failed
        except Exception as error:  # a bug of ours: counted and shown, never swallowed by Locust's log
            return RequestFailed("internal", f"{type(error).__name__}: {error}")
        return None

    def _tell_locust(self, record: Record, answer: Answer, failure: RequestFailed | None) -> None:
        self.environment.events.request.fire(
            request_type=self.label,
            name=self.workload.model,
            response_time=(record.end_ns - record.asked_ns) / 1e6,  # Locust counts milliseconds
            response_length=answer.text_bytes,
            exception=failure,
            context={},
            output_tokens=record.output_tokens,
        )
