"""LoRA (https://arxiv.org/abs/2106.09685) through PEFT; on an NF4 base it is QLoRA."""
