"""``transformers.Trainer`` with PEFT, as its documentation has it: rows padded to the longest of a batch."""

from __future__ import annotations

from typing import Any

from benchmarks.training_peers.job import Job, answer


def adapted(job: Job) -> Any:
    """Return the model in bf16 with LoRA in fp32."""
    from peft import PeftModel, get_peft_model

    model = base(job)
    if job.adapter is not None:
        return PeftModel.from_pretrained(model, job.adapter, is_trainable=True)
    return get_peft_model(model, lora(job))


def base(job: Job) -> Any:
    """Return the model in bf16."""
    import torch
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(job.checkpoint, dtype=torch.bfloat16)


def lora(job: Job) -> Any:
    """Return the adapter's settings."""
    from peft import LoraConfig

    return LoraConfig(task_type="CAUSAL_LM", r=job.rank, lora_alpha=2 * job.rank, target_modules="all-linear")


def arguments(job: Job) -> dict[str, Any]:
    """Return what the Trainer and TRL's have in common."""
    return {
        "output_dir": job.output,
        "per_device_train_batch_size": job.batch,
        "gradient_accumulation_steps": job.accumulation,
        "num_train_epochs": job.epochs,
        "learning_rate": job.learning_rate,
        "lr_scheduler_type": "constant",
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": [],
        "use_cpu": True,
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
        "gradient_checkpointing": False,
        "bf16": False,  # the weights are bf16 already
    }


def run(job: Job, clock: Any) -> None:
    """Train."""
    from transformers import (
        AutoTokenizer,
        DataCollatorForSeq2Seq,
        Trainer,
        TrainingArguments,
    )

    tokenizer = AutoTokenizer.from_pretrained(job.checkpoint)
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    Trainer(
        model=adapted(job),
        args=TrainingArguments(**arguments(job)),
        # The collator for language models takes every token that pads out of the labels, and SmolLM2 pads
        # with the token that ends a row: no end would be learned. This one pads the labels it is given.
        data_collator=DataCollatorForSeq2Seq(tokenizer),
        train_dataset=[{"input_ids": row, "labels": row} for row in job.rows],
        callbacks=[clock],
    ).train()


if __name__ == "__main__":
    answer(run)
