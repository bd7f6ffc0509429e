"""A run that is told to end (SIGTERM: a spot machine is taken back, a pod evicted) saves its state first."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from training.ranks import any_rank

__all__ = ["EXIT_CODE", "EvaluationCut", "Preemption"]

logger = logging.getLogger(__name__)

EXIT_CODE = 128 + signal.SIGTERM
"""What a shell shows for a process that SIGTERM ended."""


class EvaluationCut(Exception):
    """SIGTERM came during an evaluation."""


class Preemption(TrainerCallback):
    """After SIGTERM the step that runs is finished, its state saved, and training ends.

    Between steps and not within one: gradients that are half accumulated could not be saved. So a step must
    be shorter than the grace period; a save that is cut off all the same is removed at the next start. An
    evaluation is given up after the batch that runs; the run that goes on makes up for it. Of several ranks
    one need be told: after each step or batch they ask each other.
    """

    def __init__(self) -> None:
        self._asked = threading.Event()
        self.saved_step: int | None = None
        """Step after which the state was saved; None while nobody asked."""

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Take SIGTERM in this block; only the main thread can."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = signal.signal(signal.SIGTERM, self._ask)
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, before)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Save and stop, if it was asked for."""
        asked = any_rank(self._asked.is_set(), args.device)
        if asked and state.global_step < state.max_steps:
            logger.warning("SIGTERM: the state of step %d is saved, then the run ends", state.global_step)
            control.should_save = True
            control.should_training_stop = True
            self.saved_step = state.global_step

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Save and stop, if it was asked for with the last batch."""
        self.on_step_end(args, state, control)

    def on_prediction_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Give up the evaluation, if it was asked for.

        Raises:
            EvaluationCut: it was; ``OrderedTrainer`` saves and stops.
        """
        if any_rank(self._asked.is_set(), args.device):
            logger.warning(
                "SIGTERM: the evaluation of step %d is given up, then the run ends", state.global_step
            )
            self.saved_step = state.global_step
            raise EvaluationCut

    def _ask(self, number: int, frame: FrameType | None) -> None:
        # Nothing else: the signal may come within a write to stderr, where logging raises.
        self._asked.set()
