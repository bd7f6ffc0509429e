"""What each of two ranks runs in ``test_zero``: several trainings with ZeRO-3, one after the other.

torchrun ... two_ranks_zero.py TIED UNTIED MIXTURE DATA OUTPUT
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

from torch import distributed

import training.run as run
from checkpoints.errors import ConfigError
from tests.training.rows import tiny_config
from tests.training.test_zero import KINDS, zero_settings
from tests.training.two_ranks import nan_on_the_second_rank, stopped_at
from training.methods.full.config import FullSettings
from training.ranks import join_ranks


def main() -> None:
    tied, untied, mixture, data, output = map(Path, sys.argv[1:])
    models = {"full": untied, "mixture": mixture}

    def config(name: str, **changes: Any) -> Any:
        kind = name.partition("-")[0]
        model = models.get(kind, tied)
        return tiny_config(model, data, output / f"{name}-zero", **zero_settings(kind, ranks=2, **changes))

    join_ranks(config("lora"))
    for kind in KINDS:
        started = time.monotonic()
        run.train(config(kind))
        print(kind, f"{time.monotonic() - started:.1f} s", flush=True)
    for kind in ("lora", "full"):
        cut = config(f"{kind}-cut")
        stopped_at(2, cut, rank=1)
        run.train(cut)
    (output / f"nan-{os.environ['RANK']}").write_text(nan_on_the_second_rank(config("lora-nan")))
    try:
        run.train(config("full16-bf16", full=FullSettings(weights="bf16")))
    except ConfigError as error:
        (output / f"refused-{os.environ['RANK']}").write_text(str(error))
    distributed.destroy_process_group()


if __name__ == "__main__":
    main()
