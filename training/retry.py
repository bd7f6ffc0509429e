"""Out of memory in a forward or backward pass: the same rows again, fewer at a time."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable

import torch
from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size
from torch import Tensor, nn

from checkpoints.errors import ConfigError

__all__ = ["HalvedBatches"]

logger = logging.getLogger(__name__)

_Pass = Callable[[dict[str, Tensor]], Tensor]


class HalvedBatches:
    """Runs a batch in as few parts as fit; their gradients add up to those of the batch.

    The size that fits is kept for the batches that follow. It is not saved: a resumed run finds it again.
    """

    def __init__(self) -> None:
        self.most: int | None = None
        """Sequences per pass that were found to fit; None is all of a batch."""

    def run(self, batch: dict[str, Tensor], parameters: Iterable[nn.Parameter], one_pass: _Pass) -> Tensor:
        """Return the sum of the parts' losses.

        Args:
            batch: tensors ``[sequences, ...]``.
            parameters: those whose gradients ``one_pass`` adds to.
            one_pass: forward and backward of a part; the loss is a sum over its tokens, divided by a number
                that does not depend on the part.

        Raises:
            ConfigError: there is no memory for a single sequence.
        """
        trained = [parameter for parameter in parameters if parameter.requires_grad]
        count = len(batch["input_ids"])
        total: Tensor | None = None
        done = 0
        while done < count:
            size = min(self.most or count, count - done)
            part = {name: value[done : done + size] for name, value in batch.items()}
            loss = self._try(part, trained, one_pass)
            if loss is None:
                self._halve(size)
                continue
            total = loss if total is None else total + loss
            done += size
        assert total is not None
        return total

    def _try(self, part: dict[str, Tensor], trained: list[nn.Parameter], one_pass: _Pass) -> Tensor | None:
        """Return the loss, or None after an out-of-memory error; gradients are then as they were."""
        # A backward pass that fails has added some gradients already. So it starts from none.
        before = [parameter.grad for parameter in trained]
        for parameter in trained:
            parameter.grad = None
        try:
            loss = one_pass(part)
        except (RuntimeError, MemoryError) as error:
            if not _is_out_of_memory(error):
                raise
            loss = None
        if loss is None:  # outside of "except": its traceback holds on to the pass's tensors
            for parameter, gradient in zip(trained, before, strict=True):
                parameter.grad = gradient
            clear_device_cache(garbage_collection=True)
            return None
        for parameter, gradient in zip(trained, before, strict=True):
            if gradient is not None:
                parameter.grad = gradient if parameter.grad is None else parameter.grad.add_(gradient)
        return loss

    def _halve(self, size: int) -> None:
        if size == 1:
            raise ConfigError(
                "retry_out_of_memory: there is not enough memory for a single sequence; lower "
                "data.max_length, set gradient_checkpointing = true, or use method = qlora"
            )
        self.most = (size + 1) // 2
        logger.warning(
            "out of memory with %d sequences at once: from here on %d at once, with the same rows per step",
            *(size, self.most),
        )


def _is_out_of_memory(error: Exception) -> bool:
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or should_reduce_batch_size(error)
