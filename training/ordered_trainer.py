"""The Trainer that every run uses: ``transformers.Trainer`` with its rows in our order."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Sampler, SequentialSampler
from transformers import Trainer

from checkpoints.atomic import sync_tree
from checkpoints.errors import ConfigError
from training.callbacks.preemption import EvaluationCut
from training.data.filler import FilledSampler
from training.evaluation_loss import TokenMean
from training.ewc.penalty import Penalty
from training.guard import StepGuard
from training.loss_scaling import loss_scale
from training.ranks import rank_count, strategy, sum_of_ranks, wait
from training.real_tokens import real_tokens
from training.retry import HalvedBatches

__all__ = ["OrderedTrainer"]


class OrderedTrainer(Trainer):
    """Takes the rows in our order; that of transformers hangs on the state of random generators.

    Stops before a step with what is no number, and computes a batch in parts where memory runs out.
    """

    row_sampler: Sampler[int]
    """Set before ``train``, as are the others."""
    guard: StepGuard
    penalty: Penalty | None = None
    """What is minimised beside the loss."""
    halved: HalvedBatches | None = None
    """None lets an out-of-memory error end the run."""
    _evaluating = False

    def training_step(
        self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Tensor | int | None = None
    ) -> Tensor:
        """Compute a batch's gradients; with the last of an optimizer step, those of the penalty as well."""
        one_pass = partial(super().training_step, model, num_items_in_batch=num_items_in_batch)
        if self.halved is None:
            loss = one_pass(inputs)
        elif num_items_in_batch is None or not self.model_accepts_loss_kwargs:
            raise ConfigError(
                "retry_out_of_memory = true, but this model's loss is a mean over each pass, so the loss of "
                "a batch in parts would be another; leave retry_out_of_memory out"
            )
        else:
            loss = self.halved.run(inputs, model.parameters(), one_pass)
        self.guard.add(inputs, loss)
        if self.penalty is not None and self.accelerator.sync_gradients:
            self.penalty.add_gradients()
        return loss

    def _get_grad_norm(self, model: nn.Module, grad_norm: Tensor | float | None = None) -> Any:
        # Called once per step, after clipping and before the optimizer.
        norm = super()._get_grad_norm(model, grad_norm=grad_norm)
        self.guard.check(
            norm,
            step=self.state.global_step + 1,
            learning_rate=self.args.learning_rate,
            alone=rank_count() == 1,
            hint="" if self.penalty is None else ", lower ewc.weight",
            scale=loss_scale(self.accelerator),
        )
        return norm

    def prediction_step(self, model: nn.Module, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        """Compute a batch's loss, and add it to that of the evaluation."""
        self._evaluating = True
        try:
            result = super().prediction_step(model, inputs, *args, **kwargs)
        finally:
            self._evaluating = False
        self._evaluated.add(result[0], inputs["labels"])
        return result

    def _get_num_items_in_batch(self, batch_samples: list[Any], device: torch.device) -> Any:
        # Of all ranks; an evaluation wants each rank's mean over its own tokens.
        return None if self._evaluating else super()._get_num_items_in_batch(batch_samples, device)

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Evaluate and return the metrics; none where SIGTERM came, and the run saves its state and ends."""
        try:
            metrics: dict[str, float] = super().evaluate(*args, **kwargs)
            return metrics
        except EvaluationCut:
            self.control.should_evaluate = False
            self.control.should_save = self.control.should_training_stop = True
            return {}

    def evaluation_loop(self, *args: Any, metric_key_prefix: str = "eval", **kwargs: Any) -> Any:
        """Evaluate; the loss is the mean over all tokens, where the Trainer's is one over batches."""
        self._evaluated = TokenMean()
        output = super().evaluation_loop(*args, metric_key_prefix=metric_key_prefix, **kwargs)
        output.metrics[f"{metric_key_prefix}_loss"] = self._evaluated.result()
        return output

    def _track_num_input_tokens(self, inputs: dict[str, Any]) -> None:
        # The Trainer's own takes what fills up a pack for tokens.
        self.state.num_input_tokens_seen += int(sum_of_ranks(real_tokens(inputs).sum().to(self.args.device)))

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int]:
        return self.row_sampler

    def _get_eval_sampler(self, eval_dataset: Any) -> Sampler[int]:
        rows = SequentialSampler(eval_dataset)
        ranks = rank_count()
        return rows if ranks == 1 else FilledSampler(rows, ranks * self.args.eval_batch_size)

    def _init_training_state(self, max_steps: int, *args: Any) -> tuple[int, int]:
        # transformers 5.23 takes the steps between logs, evaluations and saves from the state it resumes.
        begun = super()._init_training_state(max_steps, *args)
        self.args.eval_on_start = self._lacks_evaluation()
        self.state.compute_steps(self.args, max_steps)
        return begun

    def _lacks_evaluation(self) -> bool:
        """Whether the state that a run goes on from was saved when its step's evaluation was given up."""
        step, every = self.state.global_step, self.state.eval_steps
        if self.eval_dataset is None or step == 0:
            return False
        due = step % every == 0 or step >= self.state.max_steps
        return due and not any("eval_loss" in one for one in self.state.log_history if one["step"] == step)

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Write the weights into a state, unless DeepSpeed writes each rank's share of them there anyway."""
        if strategy() != "zero":
            super().save_model(output_dir, _internal_call=_internal_call)

    def _save_rng_state(self, output_dir: str) -> None:
        # Each rank writes its own; what the first writes next says that the state is complete, so the disk
        # must hold the rest of it.
        super()._save_rng_state(output_dir)
        wait()
        if self.args.should_save:
            sync_tree(Path(output_dir))

    def _run_epoch(self, *args: Any, **kwargs: Any) -> None:
        # A state of the last step, resumed within an epoch: transformers 5.23 would train one step more. And
        # so it would after SIGTERM in the evaluation that a resumed run makes up for.
        if self.control.should_training_stop or self.state.global_step >= self.state.max_steps:
            self.control.should_training_stop = True
            return
        super()._run_epoch(*args, **kwargs)
