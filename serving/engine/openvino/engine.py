"""The engine contract over GenAI's pipeline: it schedules, we admit, read, count and end.

The pipeline does not bound its batch when it splits prompts, and when its KV pool is full it may get
stuck and give up every request it holds. So the engine hands it at most ``slots`` requests whose longest
texts fit the pool together; the others wait here.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Sequence as SequenceOf
from dataclasses import dataclass
from typing import Any

import numpy as np
import openvino as ov
from openvino_genai import GenerationFinishReason, GenerationStatus

from checkpoints.errors import RequestError
from serving.engine.contract import Capacity, Counters, Engine, FinishReason, Handle, TokenEvent
from serving.engine.openvino.generation import generation_config
from serving.engine.openvino.pipeline import BLOCK
from serving.engine.openvino.requests import check_request
from serving.engine.request import GenerationRequest

__all__ = ["OpenVinoEngine"]

_FINISHED: dict[Any, FinishReason] = {
    GenerationFinishReason.STOP: "stop",
    GenerationFinishReason.LENGTH: "length",
}


@dataclass(eq=False)
class _Running:
    """A request inside the pipeline."""

    request: GenerationRequest
    stream: Any
    """GenAI's handle."""

    blocks: int
    """Blocks of the KV pool it may come to need."""

    generated: int = 0


class OpenVinoEngine(Engine):
    """In-flight batching by OpenVINO GenAI.

    Counters: a step that computed only prompts is prefill, every other is decode, also where a prompt's
    part rode along; prompt tokens count when their request's first token is there.

    Args:
        pipeline: a ``ContinuousBatchingPipeline`` that nobody else drives.
        stop_ids: token ids that end a request.
        slots: requests that run at once.
        max_context: tokens of one request, prompt and completion together.
        kv_blocks: blocks of the pipeline's KV pool.
        vocab_size: width of the logits; no token has this id.
    """

    def __init__(
        self,
        pipeline: Any,
        *,
        stop_ids: list[int],
        slots: int,
        max_context: int,
        kv_blocks: int,
        vocab_size: int,
    ) -> None:
        self.counters = Counters()
        self._pipeline = pipeline
        self._stop_ids = stop_ids
        self._vocab_size = vocab_size
        self._kv_blocks = kv_blocks
        self._capacity = Capacity(slots, max_context, kv_tokens=kv_blocks * BLOCK)
        self._waiting: deque[tuple[Handle, GenerationRequest]] = deque()
        self._running: dict[Handle, _Running] = {}
        self._leaving: list[_Running] = []  # cancelled; the pipeline lets go of them in its next step
        self._next_handle = 0

    @property
    def capacity(self) -> Capacity:
        """What the engine holds at once."""
        return self._capacity

    def submit(self, request: GenerationRequest) -> Handle:
        """Queue ``request``.

        Raises:
            RequestError: see ``requests.check_request``.
        """
        check_request(request, self._capacity, self._vocab_size)
        handle, self._next_handle = self._next_handle, self._next_handle + 1
        self._waiting.append((handle, request))
        self._count()
        return handle

    def cancel(self, handle: Handle) -> None:
        """End a request; its slot is free after the pipeline's next step."""
        running = self._running.pop(handle, None)
        if running is not None:
            running.stream.cancel()
            self._leaving.append(running)
        else:
            self._waiting = deque(item for item in self._waiting if item[0] != handle)
        self._count()

    def step(self) -> SequenceOf[TokenEvent]:
        """Admit what fits, let the pipeline compute one step, and read what it brought."""
        events = self._admit()
        decoding = sum(item.generated > 0 for item in self._running.values())
        started = time.perf_counter()
        if self._running or self._leaving:
            self._pipeline.step()
        self._leaving.clear()
        seconds = time.perf_counter() - started
        rows = 0
        for handle, running in list(self._running.items()):
            event = self._read(handle, running)
            if event is None:
                continue
            events.append(event)
            rows += bool(event.token_ids)
            if event.finish is not None or event.error is not None:
                del self._running[handle]
        self._measure(rows, seconds, decoded=decoding > 0)
        return events

    def _admit(self) -> list[TokenEvent]:
        """Hand over waiting requests in order, until one finds no slot or no room in the KV pool."""
        events: list[TokenEvent] = []
        inside = [*self._running.values(), *self._leaving]
        free_slots = self._capacity.slots - len(inside)
        free_blocks = self._kv_blocks - sum(item.blocks for item in inside)
        while self._waiting and free_slots > 0:
            handle, request = self._waiting[0]
            limit = request.completion_limit(self._capacity.max_context)
            blocks = math.ceil((len(request.prompt_ids) + limit) / BLOCK)
            if blocks > free_blocks:
                break
            self._waiting.popleft()
            config = generation_config(request, limit, self._stop_ids, self._vocab_size)
            prompt = ov.Tensor(np.array([request.prompt_ids], dtype=np.int64))
            try:
                stream = self._pipeline.add_request(handle, prompt, config)
            except RuntimeError as error:
                refused = RequestError(f"OpenVINO refused the request: {error}")
                events.append(TokenEvent(handle, error=refused))
                continue
            self._running[handle] = _Running(request, stream, blocks)
            free_slots, free_blocks = free_slots - 1, free_blocks - blocks
            events.append(TokenEvent(handle, admitted=True))
        self._count()
        return events

    def _read(self, handle: Handle, running: _Running) -> TokenEvent | None:
        """Return what the pipeline has for a request, or ``None``."""
        stream = running.stream
        tokens: list[int] = []
        log_probs: list[float] = []
        finish: FinishReason | None = None
        while stream.can_read():
            for output in stream.read().values():
                tokens += output.generated_ids
                log_probs += output.generated_log_probs
                finish = _FINISHED.get(output.finish_reason, finish)
        status = stream.get_status()
        if status == GenerationStatus.IGNORED:
            pool = self._capacity.kv_tokens
            return TokenEvent(handle, error=RequestError(f"the KV cache of kv_tokens={pool} is too small"))
        if not tokens and finish is None and status == GenerationStatus.RUNNING:
            return None
        if status == GenerationStatus.FINISHED and finish is None:
            finish = "length"
        if not running.generated and tokens:
            self.counters.prompt_tokens += len(running.request.prompt_ids)
        running.generated += len(tokens)
        self.counters.completion_tokens += len(tokens)
        return TokenEvent(handle, tokens, log_probs if running.request.return_log_probs else [], finish)

    def _measure(self, rows: int, seconds: float, *, decoded: bool) -> None:
        if decoded:
            self.counters.decode_seconds += seconds
        else:
            self.counters.prefill_seconds += seconds
        if rows:
            self.counters.steps += 1
            self.counters.last_batch = rows
            self.counters.peak_batch = max(self.counters.peak_batch, rows)
        self._count()

    def _count(self) -> None:
        self.counters.running = len(self._running)
        self.counters.waiting = len(self._waiting)
        used = self._pipeline.get_metrics().cache_usage if self._running else 0.0
        self.counters.kv_tokens = round(used / 100 * self._kv_blocks) * BLOCK
