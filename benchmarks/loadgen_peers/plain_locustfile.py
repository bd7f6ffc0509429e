"""A locustfile for a streaming chat API.

With ``HttpUser``: the streams of ``FastHttpUser`` are read in blocks of a fixed size, which waits for tokens
that have not been sent yet.
"""

import itertools
import time

import gevent
from locust import HttpUser, events, task
from locust.exception import StopUser


@events.init_command_line_parser.add_listener
def _add_options(parser) -> None:  # type: ignore[no-untyped-def]
    parser.add_argument("--model")
    parser.add_argument("--tokens", type=int)
    parser.add_argument("--requests", type=int)
    parser.add_argument("--rate-per-user", type=float, default=0.0)


_sent = itertools.count()
_ended = itertools.count(1)


class ChatUser(HttpUser):
    """Sends one request after the other."""

    def wait_time(self) -> float:
        """Pace requests, where a rate is asked for, as constant_throughput does."""
        rate = self.environment.parsed_options.rate_per_user
        if not rate:
            return 0.0
        now = time.perf_counter()
        self._next = max(getattr(self, "_next", now), now - 1 / rate) + 1 / rate
        return max(0.0, self._next - now)

    def _fire(self, name: str, seconds: float) -> None:
        self.environment.events.request.fire(
            request_type="LLM", name=name, response_time=1000 * seconds, response_length=0, exception=None
        )

    @task
    def chat(self) -> None:
        """Read one stream."""
        options = self.environment.parsed_options
        if next(_sent) >= options.requests:
            raise StopUser
        body = {
            "model": options.model,
            "messages": [{"role": "user", "content": "Tell me a story."}],
            "max_tokens": options.tokens,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        began = last = time.perf_counter()
        first = True
        with self.client.post(
            "/v1/chat/completions", json=body, stream=True, catch_response=True, name="headers"
        ) as response:
            for line in response.iter_lines():
                if not line.startswith(b"data:") or b'"content"' not in line:
                    continue
                now = time.perf_counter()
                self._fire("ttft" if first else "itl", now - last)
                first, last = False, now
            response.success()
        self._fire("e2e", last - began)
        if next(_ended) >= options.requests:
            # Not from here, or it would end this greenlet before the run; and once the table is written.
            gevent.spawn_later(2.5, self.environment.runner.quit)
