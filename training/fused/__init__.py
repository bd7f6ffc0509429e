"""The layers that a fine-tuning pass spends its time and memory in, each as one differentiable function.

Step by step, as modelling code writes them, autograd keeps every step's operand for the backward pass, some
in fp32. Here a backward pass is written by hand and computes cheap steps again. (The idea is that of Unsloth
and of Liger Kernel, arXiv:2410.10989; here in plain PyTorch, on any device.)

``lora_linear``  a linear layer, packed to 4 bits or not, with its LoRA
``gated_mlp``    ``down(silu(gate) * up)``
``rms_norm``     RMSNorm
``packed_attention``  attention of packed rows, one after the other, on a CPU
``apply``        ``fused_layers``: which layers of a model are computed so, inside a block
"""
