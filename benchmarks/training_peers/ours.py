"""``trimaran train``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.training_peers.job import Job, answer


def run(job: Job, clock: Any) -> None:
    """Train through the command's own function, with the clock beside its callbacks."""
    import training.run
    import training.trainer
    from training.config import TrainConfig
    from training.data.config import DataConfig
    from training.methods.lora.config import LoraSettings

    build = training.trainer.build_trainer

    def with_clock(*arguments: Any, callbacks: Any, **more: Any) -> Any:
        return build(*arguments, callbacks=[*callbacks, clock], **more)

    # The name that training.run looks up.
    vars(training.run)["build_trainer"] = with_clock
    data = DataConfig(train=Path(job.texts), format="text", max_length=job.length, packing=job.packing)
    training.run.train(
        TrainConfig(
            model=job.checkpoint,
            data=data,
            output=Path(job.output),
            lora=LoraSettings(rank=job.rank, alpha=2.0 * job.rank),
            dtype="bf16",
            device="cpu",
            learning_rate=job.learning_rate,
            schedule="constant",
            batch_size=job.batch,
            gradient_accumulation=job.accumulation,
            epochs=job.epochs,
            adapter=None if job.adapter is None else Path(job.adapter),
            save_steps=10**6,
            threads=job.threads,
        )
    )


if __name__ == "__main__":
    answer(run)
