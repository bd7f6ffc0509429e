"""What ``adapter_config.json`` holds of a bottleneck adapter."""

from __future__ import annotations

from dataclasses import dataclass, field

from peft import PeftConfig

from checkpoints.bottleneck.peft_type import bottleneck_type

__all__ = ["BottleneckConfig"]


@dataclass
class BottleneckConfig(PeftConfig):
    """Settings as PEFT keeps them; ``training.methods.bottleneck.config`` explains and checks them."""

    size: int = field(default=64, metadata={"help": "Width of the bottleneck."})
    activation: str = field(default="gelu", metadata={"help": "relu, gelu or silu."})
    dropout: float = field(default=0.0, metadata={"help": "Dropout of the adapter's input."})
    placement: str = field(default="both", metadata={"help": "Behind attention, mlp or both."})
    target_modules: list[str] | None = field(
        default=None, metadata={"help": "Not used: the modules follow from placement and the model."}
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type = bottleneck_type()
