"""The thread that owns an engine, and the door to it for other threads.

Other threads submit, cancel and wait; only the loop's thread touches the engine, and it also loads it:
GNU OpenMP keeps a team of threads for each thread that ever computed, and once there are more of them
than processors it puts idle ones to sleep at every operation, which halves the speed. What a step brings
goes to the delivery's thread (``delivery.py``), which gives each request's sink its deltas, or the
error that ended it. When the engine itself fails, everything it held is answered with the error and
the loop is dead for good: ``failure`` says why and every later submit is refused.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from checkpoints.errors import RequestError, ServingError
from serving.engine.contract import Capacity, Counters, Engine, Handle, TokenEvent
from serving.engine.delivery import Delivery, Sink, Ticket
from serving.engine.detokenizer import Decoder
from serving.engine.observations import Observations
from serving.engine.request import GenerationRequest
from serving.engine.text_stream import TextStream

__all__ = ["EngineFailure", "EngineLoop"]

logger = logging.getLogger(__name__)

_IDLE_SECONDS = 1.0
"""How often an engine with nothing to do is asked whether it is alive."""

_NO_HANDLE = -1
"""Handle of an event for a request that the engine never had."""


class EngineFailure(ServingError):
    """The engine died; nothing it held can be finished."""


class EngineLoop:
    """Runs an engine on a thread of its own.

    Args:
        load: returns the engine; called once, on that thread.
        tokenizer: turns ids into text (Hugging Face's ``decode``).
        stream_interval: tokens of one request that are handed to its sink together.
        on_failure: called once when the engine died, after everything it held was answered.
    """

    def __init__(
        self,
        load: Callable[[], Engine],
        tokenizer: Decoder,
        *,
        stream_interval: int = 1,
        on_failure: Callable[[EngineFailure], None] | None = None,
    ) -> None:
        self.observations = Observations()
        self._load = load
        self._loaded = threading.Event()
        self._load_error: BaseException | None = None
        self._engine: Engine
        self._tokenizer = tokenizer
        self._on_failure = on_failure
        self._changed = threading.Condition()
        self._inbox: list[Ticket] = []  # submitted, not yet given to the engine
        self._cancels: list[Ticket] = []
        self._held: dict[Handle, Ticket] = {}  # given to the engine; loop thread only
        self._closing = False
        self._failure: EngineFailure | None = None
        self._delivery = Delivery(
            stream_interval=stream_interval, on_stop=self.cancel, observations=self.observations
        )
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)

    def start(self) -> None:
        """Start the threads and return when the engine is loaded.

        Raises:
            BaseException: what loading the engine raised.
        """
        self._thread.start()
        self._loaded.wait()
        if self._load_error is not None:
            raise self._load_error
        self._delivery.start()

    @property
    def capacity(self) -> Capacity:
        """What the engine holds at once; once started."""
        return self._engine.capacity

    @property
    def counters(self) -> Counters:
        """Of the engine; once started."""
        return self._engine.counters

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

    def submit(self, request: GenerationRequest, sink: Sink, *, stream: bool = True) -> Ticket:
        """Queue ``request``; its results go to ``sink``.

        Args:
            request: what to generate.
            sink: receives it.
            stream: whether the sink wants text as it comes; otherwise all of it stands in the last delta.

        Raises:
            EngineFailure: the engine is dead.
            ServingError: the loop is closing.
        """
        text = TextStream(self._tokenizer, request.stop_words, len(request.prompt_ids), stream=stream)
        ticket = Ticket(request, sink, text)
        with self._changed:
            if self._failure is not None:
                raise self._failure
            if self._closing:
                raise ServingError("the server is shutting down")
            self._inbox.append(ticket)
            self._changed.notify_all()
        self._engine.wake()
        return ticket

    def cancel(self, ticket: Ticket) -> None:
        """End a request; its sink receives a last delta with reason ``cancelled``, once."""
        with self._changed:
            self._cancels.append(ticket)
            self._changed.notify_all()
        self._engine.wake()

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
        """Refuse new requests, finish what is held, and end the threads.

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
        self._delivery.close(timeout)
        self._engine.close()

    def _run(self) -> None:
        try:
            self._engine = self._load()
        except BaseException as error:
            self._load_error = error
            return
        finally:
            self._loaded.set()
        try:
            while self._collect():
                self._step()
        except Exception as error:
            logger.exception("the engine failed")
            self._die(EngineFailure(f"the engine failed: {type(error).__name__}: {error}"))

    def _collect(self) -> bool:
        """Wait for work and hand it to the engine; false when closing and nothing is left."""
        refused: list[tuple[Ticket, TokenEvent]] = []
        with self._changed:
            while not self._changed.wait_for(
                lambda: self._inbox or self._cancels or self._engine.has_work or self._closing,
                timeout=_IDLE_SECONDS,
            ):
                self._engine.check_alive()
            cancels, self._cancels = self._cancels, []
            entering = list(self._inbox)
        # The engine may have to send them to another process; other threads need not wait for that.
        for ticket in entering:
            try:
                ticket.handle = self._engine.submit(ticket.request)
            except RequestError as error:
                refused.append((ticket, TokenEvent(_NO_HANDLE, error=error)))
            else:
                self._held[ticket.handle] = ticket
        if entering:
            with self._changed:
                # Until here they counted as waiting, for a moment twice, so that no slot seemed free.
                del self._inbox[: len(entering)]
                self._changed.notify_all()
        self._delivery.post(refused)
        self._cancel(cancels)
        return self._engine.has_work or not self._closing or bool(self._inbox)

    def _cancel(self, tickets: list[Ticket]) -> None:
        """Take ``tickets`` from the engine; those that have ended meanwhile are left alone."""
        for ticket in tickets:
            if ticket.handle is not None and ticket.handle in self._held:
                self._engine.cancel(ticket.handle)  # which may find the engine dead: the ticket is still held
                del self._held[ticket.handle]
                self._delivery.post([(ticket, TokenEvent(ticket.handle, finish="cancelled"))])

    def _step(self) -> None:
        steps = self._engine.counters.steps
        results: list[tuple[Ticket, TokenEvent]] = []
        for event in self._engine.step():
            ticket = self._held.get(event.handle)
            if ticket is None:  # cancelled
                continue
            if event.admitted:
                self.observations.add("queue", time.monotonic() - ticket.submitted)
                continue
            if event.error is not None or event.finish is not None:
                del self._held[event.handle]
            results.append((ticket, event))
        if self._engine.counters.steps != steps:
            self.observations.add("batch_size", self._engine.counters.last_batch)
        self._delivery.post(results)
        with self._changed:
            self._changed.notify_all()

    def _die(self, failure: EngineFailure) -> None:
        with self._changed:
            self._failure = failure
            # One that entered just now may be in both.
            lost = list(dict.fromkeys([*self._held.values(), *self._inbox]))
            self._inbox.clear()
            self._held.clear()
            self._changed.notify_all()
        self._delivery.post([(ticket, TokenEvent(_NO_HANDLE, error=failure)) for ticket in lost])
        if self._on_failure is not None:
            notify = self._on_failure
            self._delivery.call(lambda: notify(failure))
