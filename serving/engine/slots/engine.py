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
from serving.engine.slots.runner import Chunk, Prefixes, Runner
from serving.engine.slots.sampler import log_probabilities, most_likely, sample
from serving.engine.slots.scheduler import Scheduler, Sequence

__all__ = ["SlotEngine"]


class SlotEngine(Engine):
    """In-flight batching over a fixed number of slots.

    A step computes one token of every running request and at most ``prefill_chunk`` prompt tokens, so a
    long prompt never stalls the streams that run beside it by more than one chunk. Where the runner gains
    nothing by computing both in one pass they take turns, so that a first token does not wait for the
    others' next one.

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
        """Compute parts of prompts and one token of every running request: together, or in turns."""
        decoding = self._scheduler.decoding()
        prefills = self._scheduler.has_prefill() and not (decoding and self._decode_is_next)
        if self._runner.mixes:
            self._decode_is_next = prefills and self._budget.wants_decode_pass
        else:
            self._decode_is_next = prefills
        events: list[TokenEvent] = []
        prompts = self._next_chunks(events, streams=bool(decoding)) if prefills else []
        if prompts and not self._runner.mixes:
            decoding = []
        if decoding or prompts:
            events += self._compute(decoding, prompts)
        self.counters.kv_tokens = self._scheduler.cached_tokens()
        return events

    def _next_chunks(self, events: list[TokenEvent], *, streams: bool) -> list[tuple[Chunk, Sequence]]:
        """Return what is computed of prompts next; who is admitted for it is added to ``events``.

        All but the last reach their prompts' ends, and their rows follow each other.
        """
        chunks: list[tuple[Chunk, Sequence]] = []
        budget = 0
        # What is left of the budget after one prompt is too little to begin another with, or is used.
        while (not chunks or budget >= SMALLEST) and (work := self._scheduler.next_prefill()) is not None:
            row, sequence = work
            prompt = sequence.request.prompt_ids
            if not chunks:
                budget = self._budget.tokens(len(prompt), streams=streams)
            if sequence.computed == 0:
                events.append(TokenEvent(sequence.handle, admitted=True))
                self._enter(row, sequence)
            start = sequence.computed
            size = self._budget.chunk(len(prompt) - start, budget)
            chunks.append((Chunk(row, prompt[start : start + size], start), sequence))
            sequence.computed += size
            budget -= size
            if sequence.in_prefill or self._prefixes is not None:
                break  # its row comes again in the next step; the next prompt may begin like this one
        return chunks

    def _enter(self, row: int, sequence: Sequence) -> None:
        """Make ``row`` ready for a request whose prompt is to be computed."""
        prompt = sequence.request.prompt_ids
        if sequence.request.sampling.penalizes:
            self._penalties.enter(row, prompt)
        if self._prefixes is not None:
            sequence.computed = self._prefixes.load(row, prompt)

    def _compute(self, decoding: list[Sequence], prompts: list[tuple[Chunk, Sequence]]) -> list[TokenEvent]:
        """Run the model, and choose a token for each that decodes and each whose prompt is complete."""
        started = time.perf_counter()
        chunks = [chunk for chunk, _ in prompts]
        logits = self._runner.compute(
            [item.token_ids[-1] for item in decoding], [item.position for item in decoding], chunks
        )
        complete = [item for _, item in prompts if not item.in_prefill]
        if self._prefixes is not None:
            for chunk, item in prompts[: len(complete)]:
                self._prefixes.save(chunk.row, item.request.prompt_ids)
        chosen = decoding + complete
        first_row = 0 if decoding else chunks[0].row
        events = self._choose(logits[: len(chosen)], chosen, first_row) if chosen else []
        if not chosen and self._runner.device.type == "cuda":
            torch.cuda.synchronize()  # a chunk that ends no prompt is still being computed
        self._measure(len(decoding), sum(len(chunk.token_ids) for chunk in chunks), started)
        return events

    def _measure(self, rows: int, tokens: int, started: float) -> None:
        """Count a pass over ``rows`` decoding rows and ``tokens`` tokens of prompts."""
        seconds = time.perf_counter() - started
        prompts = self._budget.note(seconds, tokens=tokens, streams=rows > 0)
        self.counters.prompt_tokens += tokens
        self.counters.prefill_seconds += prompts
        self.counters.decode_seconds += seconds - prompts
        if rows:
            self.counters.steps += 1
            self.counters.last_batch = rows
            self.counters.peak_batch = max(self.counters.peak_batch, rows)

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
