"""What each of two ranks runs in ``test_ranks``: several trainings, one after the other, in one launch.

torchrun ... two_ranks.py MODEL UNTIED DATA OUTPUT
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from torch import distributed
from transformers import TrainerCallback

import training.run as run
from checkpoints.errors import ConfigError
from tests.training.rank_runs import settings
from tests.training.rows import tiny_config
from training.ranks import join_ranks

BUILD = run.build_trainer


def stopped_at(step: int, config: Any, *, rank: int) -> None:
    """Train until SIGTERM comes to one rank after a step."""

    class Stop(TrainerCallback):
        def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.global_step == step - 1 and args.process_index == rank:
                os.kill(os.getpid(), signal.SIGTERM)

    def build(*args: Any, **kwargs: Any) -> Any:
        trainer = BUILD(*args, **{**kwargs, "callbacks": [Stop(), *kwargs["callbacks"]]})
        return trainer

    run.build_trainer = build
    try:
        with pytest.raises(SystemExit, match="143"):
            run.train(config)
    finally:
        run.build_trainer = BUILD


def nan_on_the_second_rank(config: Any) -> str:
    """Train until one pass of rank 1 has a loss that is no number; return what is said."""

    def build(*args: Any, **kwargs: Any) -> Any:
        trainer = BUILD(*args, **kwargs)
        compute = trainer.compute_loss
        passes = 0

        def compute_loss(*given: Any, **more: Any) -> Any:
            nonlocal passes
            passes += 1
            # The first pass of step 2.
            factor = float("nan") if os.environ["RANK"] == "1" and passes == 3 else 1.0
            return compute(*given, **more) * factor

        trainer.compute_loss = compute_loss
        return trainer

    run.build_trainer = build
    try:
        with pytest.raises(ConfigError) as error:
            run.train(config)
    finally:
        run.build_trainer = BUILD
    return str(error.value)


def main() -> None:
    tied, untied, data, output = map(Path, sys.argv[1:])

    def config(name: str, **changes: Any) -> Any:
        method = name.partition("-")[0]
        model = untied if method == "full" else tied
        return tiny_config(model, data, output / name, **settings(method, ranks=2, **changes))

    join_ranks(config("lora"))
    for strategy in ("ddp", "fsdp"):
        os.environ.pop("ACCELERATE_USE_FSDP", None)
        if strategy == "fsdp":
            os.environ |= {
                "ACCELERATE_USE_FSDP": "true",
                "FSDP_VERSION": "2",
                "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP",
                "FSDP_STATE_DICT_TYPE": "SHARDED_STATE_DICT",
                "FSDP_CPU_RAM_EFFICIENT_LOADING": "false",
            }
        for name in ("lora", "full"):
            started = time.monotonic()
            run.train(config(f"{name}-{strategy}"))
            print(strategy, name, f"{time.monotonic() - started:.1f} s", flush=True)
        if strategy == "fsdp":
            run.train(config("bf16-fsdp"))
            stopped_at(2, config("full-fsdp-cut"), rank=0)
            run.train(config("full-fsdp-cut"))
        cut = config(f"lora-{strategy}-cut")
        stopped_at(3, cut, rank=1)
        if strategy == "ddp":
            (output / f"nan-{os.environ['RANK']}").write_text(nan_on_the_second_rank(config("lora-ddp-nan")))
            try:
                run.train(config("lora-ddp-cut", learning_rate=1.0))
            except ConfigError as error:
                (output / f"refused-{os.environ['RANK']}").write_text(str(error))
        run.train(cut)
    distributed.destroy_process_group()


if __name__ == "__main__":
    main()
