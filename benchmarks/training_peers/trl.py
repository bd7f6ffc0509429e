"""TRL's ``SFTTrainer``, padded or with its packing."""

from __future__ import annotations

from typing import Any

from benchmarks.training_peers.hugging_face import arguments, lora
from benchmarks.training_peers.job import Job, answer

PINS = ("trl==1.16.0", "datasets==5.2.0")
"""Beside torch, transformers, PEFT and accelerate in our own versions."""


def run(job: Job, clock: Any) -> None:
    """Train."""
    import torch
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    model = AutoModelForCausalLM.from_pretrained(job.checkpoint, dtype=torch.bfloat16)
    SFTTrainer(
        model=model,
        args=SFTConfig(**arguments(job), packing=job.packing, max_length=job.length),
        train_dataset=Dataset.from_dict({"input_ids": job.rows}),
        processing_class=AutoTokenizer.from_pretrained(job.checkpoint),
        peft_config=lora(job),
        callbacks=[clock],
    ).train()


if __name__ == "__main__":
    answer(run)
