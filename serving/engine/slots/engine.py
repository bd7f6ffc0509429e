"""The slot engine: scheduler, runner and sampler joined into the engine contract."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence as SequenceOf

import torch

from checkpoints.errors import RequestError
from serving.engine.contract import Capacity, Counters, Engine, FinishReason, Handle, TokenEvent
from serving.engine.request import GenerationRequest
from serving.engine.slots.batch import Batch
from serving.engine.slots.penalties import Penalties
from serving.engine.slots.prefill_budget import SMALLEST, PrefillBudget
from serving.engine.slots.runner import Prefixes, Runner
from serving.engine.slots.sampler import log_probabilities, most_likely, sample
from serving.engine.slots.scheduler import Scheduler, Sequence

__all__ = ["SlotEngine"]


class SlotEngine(Engine):
    """In-flight batching over a fixed number of slots.

    A step computes either one token of every running request or at most ``prefill_chunk`` prompt
    tokens, in turns, so a long prompt never stalls the streams that run beside it by more than one
    chunk, and a first token does not wait for the others' next one.

    Args:
        runner: the model and its KV cache of ``slots`` rows of ``max_context`` positions.
        stop_ids: token ids that end a request.
        slots: requests that run at once.
        max_context: tokens of one request, prompt and completion together.
        prefill_chunk: prompt tokens of one step at most.
        prefixes: keeps the beginnings of prompts; None computes every prompt whole.
    """

    def __init__(
        self,
        runner: Runner,
        *,
        stop_ids: list[int],
        slots: int,
        max_context: int,
        prefill_chunk: int,
        prefixes: Prefixes | None = None,
    ) -> None:
        self.counters = Counters()
        self._capacity = Capacity(slots, max_context, kv_tokens=slots * max_context)
        self._budget = PrefillBudget(prefill_chunk)
        self._stop_ids = frozenset(stop_ids)
        self._stop_index = torch.tensor(sorted(stop_ids), dtype=torch.int64, device=runner.device)
        self._runner = runner
        self._prefixes = prefixes
        self._penalties = Penalties(slots, runner.vocab_size, runner.device)
        self._scheduler = Scheduler(slots, self.counters, self._move_row)
        self._sequences: dict[Handle, Sequence] = {}
        self._batch = Batch([], 0, runner.device)
        self._next_handle = 0
        self._decode_is_next = False

    @property
    def capacity(self) -> Capacity:
        """What the engine holds at once."""
        return self._capacity

    def submit(self, request: GenerationRequest) -> Handle:
        """Queue ``request``.

        Raises:
            RequestError: the prompt does not fit the context.
        """
        limit = request.completion_limit(self._capacity.max_context)
        handle, self._next_handle = self._next_handle, self._next_handle + 1
        sequence = Sequence(handle, request, limit, random.Random(request.sampling.seed))
        self._sequences[handle] = sequence
        self._scheduler.add(sequence)
        return handle

    @torch.inference_mode()
    def cancel(self, handle: Handle) -> None:
        """End a request and free its slot."""
        sequence = self._sequences.pop(handle, None)
        if sequence is not None:
            self._scheduler.remove(sequence)
            self.counters.kv_tokens = self._scheduler.cached_tokens()

    @torch.inference_mode()
    def step(self) -> SequenceOf[TokenEvent]:
        """Compute a chunk of prompts or one token of every running request, in turns where both wait."""
        decodes = self._decode_is_next and bool(self._scheduler.decoding())
        prefills = not decodes and self._scheduler.has_prefill()
        self._decode_is_next = prefills
        events = self._prefill() if prefills else self._decode()
        self.counters.kv_tokens = self._scheduler.cached_tokens()
        return events

    def _prefill(self) -> list[TokenEvent]:
        events: list[TokenEvent] = []
        budget = self._budget.tokens(streams=bool(self._scheduler.decoding()))
        computed = 0
        started = time.perf_counter()
        # What is left of the budget after one prompt is too little to begin another with, or is used.
        while (not computed or budget >= SMALLEST) and (work := self._scheduler.next_prefill()) is not None:
            row, sequence = work
            prompt = sequence.request.prompt_ids
            if sequence.computed == 0:
                events.append(TokenEvent(sequence.handle, admitted=True))
                self._enter(row, sequence)
            size = self._budget.chunk(len(prompt) - sequence.computed, budget)
            chunk = prompt[sequence.computed : sequence.computed + size]
            logits = self._runner.prefill(row, chunk, sequence.computed)
            sequence.computed += len(chunk)
            budget -= len(chunk)
            computed += len(chunk)
            if not sequence.in_prefill:
                if self._prefixes is not None:
                    self._prefixes.save(row, prompt)
                events += self._choose(logits, [sequence], first_row=row)
        if computed:
            if self._runner.device.type == "cuda":
                torch.cuda.synchronize()  # a chunk that ends no prompt is still being computed
            seconds = time.perf_counter() - started
            self._budget.prefilled(computed, seconds)
            self.counters.prompt_tokens += computed
            self.counters.prefill_seconds += seconds
        return events

    def _enter(self, row: int, sequence: Sequence) -> None:
        """Make ``row`` ready for a request whose prompt is to be computed."""
        prompt = sequence.request.prompt_ids
        if sequence.request.sampling.penalizes:
            self._penalties.enter(row, prompt)
        if self._prefixes is not None:
            sequence.computed = self._prefixes.load(row, prompt)

    def _decode(self) -> list[TokenEvent]:
        sequences = self._scheduler.decoding()
        if not sequences:
            return []
        started = time.perf_counter()
        logits = self._runner.decode(
            [item.token_ids[-1] for item in sequences], [item.position for item in sequences]
        )
        self.counters.steps += 1
        self.counters.last_batch = len(sequences)
        self.counters.peak_batch = max(self.counters.peak_batch, len(sequences))
        events = self._choose(logits, sequences, first_row=0)
        seconds = time.perf_counter() - started
        self._budget.decoded(seconds)
        self.counters.decode_seconds += seconds
        return events

    def _choose(self, logits: torch.Tensor, sequences: list[Sequence], first_row: int) -> list[TokenEvent]:
        """Choose a token for each of ``sequences``, which hold rows ``first_row``..., and end those done.

        ``logits`` is float32 ``[n, vocab]`` and may be changed.
        """
        batch = self._batch_of(sequences, first_row)
        raw = logits.clone() if batch.wants_log_probs else logits
        best, chosen = most_likely(logits)  # NaN where a row has one
        held = batch.held_back()
        if held is not None and len(self._stop_index):
            logits[held, self._stop_index] = -torch.inf
        self._penalties.apply(logits, batch.penalties)
        if held is not None or not batch.penalties.empty:
            chosen = most_likely(logits)[1]
        if batch.sampling.rows:
            chosen[batch.sampling.index] = sample(logits, batch.sampling, batch.draws())
        self._penalties.count(batch.penalties, chosen)
        log_probs = log_probabilities(raw, chosen) if batch.wants_log_probs else []
        tokens, broken = torch.stack((chosen, best.isnan())).tolist()  # one transfer from the device
        events = []
        for row, (sequence, token_id) in enumerate(zip(sequences, tokens, strict=True)):
            if broken[row]:
                error = RequestError("the model produced NaN for this prompt; serve it in fp32 or bf16")
                events.append(TokenEvent(sequence.handle, error=error))
                continue
            sequence.token_ids.append(token_id)
            self.counters.completion_tokens += 1
            events.append(
                TokenEvent(
                    sequence.handle,
                    [token_id],
                    [log_probs[row]] if sequence.request.return_log_probs else [],
                    self._finish_reason(sequence, token_id),
                )
            )
        for event in events:
            if event.finish is not None or event.error is not None:
                self.cancel(event.handle)
        return events

    def _batch_of(self, sequences: list[Sequence], first_row: int) -> Batch:
        """Return the batch of the last step where the rows are the same, else a new one."""
        if not self._batch.holds(sequences, first_row):
            self._batch = Batch(sequences, first_row, self._runner.device)
        return self._batch

    def _finish_reason(self, sequence: Sequence, token_id: int) -> FinishReason | None:
        if token_id in self._stop_ids and not sequence.request.sampling.ignore_eos:
            return "stop"
        if len(sequence.token_ids) >= sequence.limit:
            return "length"
        return None

    def _move_row(self, source: int, target: int) -> None:
        sequence = self._scheduler.at(source)
        self._runner.move_row(source, target, sequence.cached)
        if sequence.request.sampling.penalizes:
            self._penalties.move_row(source, target)
