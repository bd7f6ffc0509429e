"""TRL's ``SFTTrainer``, padded or with its packing."""

from __future__ import annotations

from typing import Any

from benchmarks.training_peers.hugging_face import adapted, arguments, base, lora
from benchmarks.training_peers.job import Job, answer

PINS = ("trl==1.16.0", "datasets==5.2.0")
"""Beside torch, transformers, PEFT and accelerate in our own versions."""


def run(job: Job, clock: Any) -> None:
    """Train."""
    from datasets import Dataset
    from transformers import AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    SFTTrainer(
        model=base(job) if job.adapter is None else adapted(job),
        args=SFTConfig(**arguments(job), packing=job.packing, max_length=job.length),
        train_dataset=Dataset.from_dict({"input_ids": job.rows}),
        processing_class=AutoTokenizer.from_pretrained(job.checkpoint),
        peft_config=lora(job) if job.adapter is None else None,
        callbacks=[clock],
    ).train()


if __name__ == "__main__":
    answer(run)
