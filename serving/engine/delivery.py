"""The thread that turns tokens into text and hands it to the requests' sinks.

It stands beside the engine's thread, so that detokenizing, matching stop words and sending never
hold up the next step. Tokens of one request that have piled up meanwhile leave together.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import Protocol

from checkpoints.errors import ServingError
from serving.engine.contract import FinishReason, Handle, TokenEvent
from serving.engine.observations import Observations
from serving.engine.request import GenerationRequest
from serving.engine.text_stream import Delta, TextStream

__all__ = ["Delivery", "Sink", "Ticket"]

logger = logging.getLogger(__name__)


class Sink(Protocol):
    """Where one request's results go. Called on the delivery's thread."""

    def on_delta(self, delta: Delta) -> None:
        """Take new text and tokens; the last delta has a finish reason."""

    def on_error(self, error: Exception) -> None:
        """Take the error that ended the request."""


@dataclass(eq=False)
class Ticket:
    """One submitted request, from submission to its last delta."""

    request: GenerationRequest
    sink: Sink
    text: TextStream
    handle: Handle | None = None
    """Set by the engine's thread."""

    submitted: float = field(default_factory=time.monotonic)
    # What follows belongs to the delivery's thread.
    waiting: TokenEvent | None = None
    last_sent: float | None = None
    ended: bool = False


@dataclass(frozen=True)
class _Result:
    ticket: Ticket
    event: TokenEvent


class Delivery:
    """Hands results to sinks, in the order in which they were posted.

    Args:
        stream_interval: tokens of one request that are handed over together. The first token and the
            last never wait for others.
        on_stop: called with a ticket whose text met a stop word or whose sink failed, so that the
            engine can be told.
        observations: receives TTFT, ITL and request durations.
    """

    def __init__(
        self, *, stream_interval: int, on_stop: Callable[[Ticket], None], observations: Observations
    ) -> None:
        self._interval = stream_interval
        self._on_stop = on_stop
        self._observations = observations
        self._posted: SimpleQueue[list[_Result] | Callable[[], None] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="delivery", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def post(self, results: list[tuple[Ticket, TokenEvent]]) -> None:
        """Queue the events of one step."""
        if results:
            self._posted.put([_Result(ticket, event) for ticket, event in results])

    def call(self, function: Callable[[], None]) -> None:
        """Call ``function`` on the delivery's thread, after all that was posted before."""
        self._posted.put(function)

    def close(self, timeout: float) -> None:
        """Deliver what was posted and end the thread."""
        self._posted.put(None)
        self._thread.join(timeout)

    def _run(self) -> None:
        while (posted := self._posted.get()) is not None:
            due: dict[int, Ticket] = {}
            while True:
                if callable(posted):
                    self._send_all(due)
                    due = {}
                    posted()
                else:
                    for result in posted:
                        self._merge(result)
                        due[id(result.ticket)] = result.ticket
                try:
                    posted = self._posted.get_nowait()
                except Empty:
                    break
                if posted is None:
                    self._send_all(due)
                    return
            self._send_all(due)

    def _merge(self, result: _Result) -> None:
        ticket, event = result.ticket, result.event
        if ticket.waiting is None:
            ticket.waiting = event
            return
        before = ticket.waiting
        ticket.waiting = TokenEvent(
            event.handle,
            before.token_ids + event.token_ids,
            before.log_probs + event.log_probs,
            event.finish,
            event.error,
        )

    def _send_all(self, due: dict[int, Ticket]) -> None:
        for ticket in due.values():
            event = ticket.waiting
            if event is None or (
                event.finish is None
                and event.error is None
                and ticket.last_sent is not None
                and len(event.token_ids) < self._interval
            ):
                continue
            ticket.waiting = None
            if not ticket.ended:
                self._send(ticket, event)

    def _send(self, ticket: Ticket, event: TokenEvent) -> None:
        """Give a sink its result; a sink that fails loses its own request only."""
        try:
            if event.error is not None:
                ticket.ended = True
                ticket.sink.on_error(event.error)
                return
            delta = ticket.text.push(event)
            ticket.ended = bool(delta.finish_reason)
            ticket.sink.on_delta(delta)
            self._observe(ticket, len(event.token_ids), event.finish)
            if ticket.ended and event.finish is None:  # a stop word: the engine does not know yet
                self._on_stop(ticket)
        except Exception:
            logger.exception("could not deliver a result")
            ticket.ended = True
            self._on_stop(ticket)
            # A client that can still be reached must not wait for an answer that never comes.
            with suppress(Exception):
                ticket.sink.on_error(ServingError("the answer could not be delivered; the log says why"))

    def _observe(self, ticket: Ticket, tokens: int, finish: FinishReason | None) -> None:
        now = time.monotonic()
        if tokens:
            if ticket.last_sent is None:
                self._observations.add("time_to_first_token", now - ticket.submitted)
            else:
                self._observations.add("inter_token_latency", (now - ticket.last_sent) / tokens)
            ticket.last_sent = now
        if ticket.ended and finish != "cancelled":
            self._observations.add("request_duration", now - ticket.submitted)
