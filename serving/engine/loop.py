"""The thread that owns an engine, and the door to it for other threads.

Other threads submit, cancel and wait; only the loop's thread touches the engine. Each request
has a sink that receives its deltas, or the error that ended it, on the loop's thread. When the
engine itself fails, everything it held is answered with the error and the loop is dead for good:
``failure`` says why and every later submit is refused.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from checkpoints.errors import ServingError
from serving.engine.contract import Engine, Handle, TokenEvent
from serving.engine.detokenizer import Decoder
from serving.engine.request import GenerationRequest
from serving.engine.text_stream import Delta, TextStream

__all__ = ["EngineFailure", "EngineLoop", "Sink", "Ticket"]

logger = logging.getLogger(__name__)


class EngineFailure(ServingError):
    """The engine died; nothing it held can be finished."""


class Sink(Protocol):
    """Where one request's results go. Called on the loop's thread; must not block."""

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


class EngineLoop:
    """Runs ``engine`` on a thread of its own.

    Args:
        engine: the engine; touched by no other thread once started.
        tokenizer: turns ids into text (Hugging Face's ``decode``).
        on_failure: called once on the loop's thread when the engine died, after everything it
            held was answered.
    """

    def __init__(
        self,
        engine: Engine,
        tokenizer: Decoder,
        *,
        on_failure: Callable[[EngineFailure], None] | None = None,
    ) -> None:
        self._engine = engine
        self._tokenizer = tokenizer
        self._on_failure = on_failure
        self._changed = threading.Condition()
        self._inbox: list[Ticket] = []  # submitted, not yet given to the engine
        self._cancels: list[Ticket] = []
        self._held: dict[Handle, Ticket] = {}  # given to the engine; loop thread only
        self._closing = False
        self._failure: EngineFailure | None = None
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    @property
    def failure(self) -> EngineFailure | None:
        """Why the engine is dead; ``None`` while it lives."""
        return self._failure

    @property
    def running(self) -> int:
        """Requests in a slot."""
        return self._engine.counters.running

    @property
    def waiting(self) -> int:
        """Requests submitted and not yet in a slot."""
        return len(self._inbox) + self._engine.counters.waiting

    def submit(self, request: GenerationRequest, sink: Sink) -> Ticket:
        """Queue ``request``; its results go to ``sink``.

        Raises:
            EngineFailure: the engine is dead.
            ServingError: the loop is closing.
        """
        ticket = Ticket(
            request, sink, TextStream(self._tokenizer, request.stop_words, len(request.prompt_ids))
        )
        with self._changed:
            if self._failure is not None:
                raise self._failure
            if self._closing:
                raise ServingError("the server is shutting down")
            self._inbox.append(ticket)
            self._changed.notify_all()
        return ticket

    def cancel(self, ticket: Ticket) -> None:
        """End a request; its sink receives a last delta with reason ``cancelled``, once."""
        with self._changed:
            self._cancels.append(ticket)
            self._changed.notify_all()

    def has_free_slot(self) -> bool:
        """Whether a request submitted now would enter a slot at the next step."""
        return self.running + self.waiting < self._engine.capacity.slots

    def wait_for_free_slot(self, timeout: float) -> bool:
        """Block until a slot is free or the engine is dead, at most ``timeout`` seconds."""
        with self._changed:
            return self._changed.wait_for(
                lambda: self._failure is not None or self.has_free_slot(), timeout=timeout
            )

    def close(self, timeout: float = 30.0) -> None:
        """Refuse new requests, finish what is held, and end the thread.

        What is not finished within ``timeout`` seconds is cancelled.
        """
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join(timeout)
        if self._thread.is_alive():
            with self._changed:
                self._cancels += [*self._inbox, *self._held.values()]
                self._changed.notify_all()
            self._thread.join(timeout)

    def _run(self) -> None:
        try:
            while self._collect():
                self._step()
        except Exception as error:
            logger.exception("the engine failed")
            self._die(EngineFailure(f"the engine failed: {type(error).__name__}: {error}"))

    def _collect(self) -> bool:
        """Wait for work and hand it to the engine; false when closing and nothing is left."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._inbox or self._cancels or self._engine.has_work or self._closing
            )
            cancels, self._cancels = self._cancels, []
            for ticket in self._inbox:
                self._hand_over(ticket)
            self._inbox.clear()
        for ticket in cancels:
            self._finish_cancelled(ticket)
        return self._engine.has_work or not self._closing or bool(self._inbox)

    def _hand_over(self, ticket: Ticket) -> None:
        try:
            ticket.handle = self._engine.submit(ticket.request)
        except ServingError as error:
            self._answer(ticket, error)
        else:
            self._held[ticket.handle] = ticket

    def _finish_cancelled(self, ticket: Ticket) -> None:
        if ticket.handle is not None and self._held.pop(ticket.handle, None) is not None:
            self._engine.cancel(ticket.handle)
            self._answer(ticket, ticket.text.push(TokenEvent(ticket.handle, finish="cancelled")))

    def _step(self) -> None:
        for event in self._engine.step():
            ticket = self._held.get(event.handle)
            if ticket is None:  # ended by an earlier event of this step: a stop word, a failed sink
                continue
            if event.error is not None:
                del self._held[event.handle]
                self._answer(ticket, event.error)
                continue
            delta = ticket.text.push(event)
            if delta.finish_reason:
                del self._held[event.handle]
                if event.finish is None:  # a stop word: the engine does not know yet
                    self._engine.cancel(event.handle)
            self._answer(ticket, delta)
        with self._changed:
            self._changed.notify_all()

    def _die(self, failure: EngineFailure) -> None:
        with self._changed:
            self._failure = failure
            lost = [*self._held.values(), *self._inbox]
            self._inbox.clear()
            self._held.clear()
            self._changed.notify_all()
        for ticket in lost:
            self._answer(ticket, failure)
        if self._on_failure is not None:
            self._on_failure(failure)

    def _answer(self, ticket: Ticket, result: Delta | Exception) -> None:
        """Give a sink its result; a sink that fails loses its own request only."""
        try:
            if isinstance(result, Delta):
                ticket.sink.on_delta(result)
            else:
                ticket.sink.on_error(result)
        except Exception:
            logger.exception("could not deliver a result")
            if ticket.handle is not None and self._held.pop(ticket.handle, None) is not None:
                self._engine.cancel(ticket.handle)
