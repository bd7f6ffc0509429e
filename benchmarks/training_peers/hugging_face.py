"""``transformers.Trainer`` with PEFT, as its documentation has it: rows padded to the longest of a batch."""

from __future__ import annotations

from typing import Any

from benchmarks.training_peers.job import EPOCHS, Job, answer


def adapted(job: Job) -> Any:
    """Return the model in bf16 with LoRA in fp32."""
    import torch
    from peft import get_peft_model
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(job.checkpoint, dtype=torch.bfloat16)
    return get_peft_model(model, lora(job))


def lora(job: Job) -> Any:
    """Return the adapter's settings."""
    from peft import LoraConfig

    return LoraConfig(task_type="CAUSAL_LM", r=job.rank, lora_alpha=2 * job.rank, target_modules="all-linear")


def arguments(job: Job) -> dict[str, Any]:
    """Return what the Trainer and TRL's have in common."""
    return {
        "output_dir": job.output,
        "per_device_train_batch_size": job.batch,
        "num_train_epochs": EPOCHS,
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
        DataCollatorForLanguageModeling,
        Trainer,
        TrainingArguments,
    )

    tokenizer = AutoTokenizer.from_pretrained(job.checkpoint)
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    Trainer(
        model=adapted(job),
        args=TrainingArguments(**arguments(job)),
        data_collator=DataCollatorForLanguageModeling(tokenizer, mlm=False),
        train_dataset=[{"input_ids": row} for row in job.rows],
        callbacks=[clock],
    ).train()


if __name__ == "__main__":
    answer(run)
