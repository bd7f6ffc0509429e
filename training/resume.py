"""What is in a run directory, and whether a run may continue from it.

::

    OUTPUT/
    ├── adapter/        the result, there only when the run is finished; of full fine-tuning: checkpoint/
    ├── checkpoints/    states of the Trainer to resume from
    ├── tokens/         the encoded rows, while the run is not finished; made again where they are missing
    ├── data.json       rows and tokens, and what packing and sampling make of them
    ├── run.json        what the run depends on: settings, hashes of base and data
    ├── metrics.jsonl   one row per logged step
    ├── loss.png        the same as a picture
    ├── experts.jsonl   for a mixture of experts: what each expert got; experts.png as a picture
    ├── ewc/            when asked for: what a later run needs to remember this one
    └── tensorboard/    when asked for

A run continues only where ``run.json`` says the same thing: the order of rows, the schedule and the weights
would otherwise be those of another run.
"""

from __future__ import annotations

import json
import logging
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from checkpoints.atomic import write_text_atomically
from checkpoints.errors import CheckpointError, ConfigError
from training.config import TrainConfig
from training.methods.registry import method_names
from training.state_files import is_complete

__all__ = ["RunDirectory", "settings_that_matter"]

logger = logging.getLogger(__name__)

# These change nothing of the result, or (the paths) are compared by the hashes of their files.
_FREE = {
    "adapter",
    "device",
    "dry_run",
    "eval_steps",
    "log_steps",
    "retry_out_of_memory",
    "model",
    "output",
    "overwrite",
    "resume",
    "save_steps",
    "save_total_limit",
    "tensorboard",
    "threads",
}
_FREE_DATA = {"train", "eval"}
_NEW_SETTINGS = {"attention": "auto", "kernels": "own"}
"""What runs of older versions did not record, as it was for them."""

_FREE_EWC = {"from_run"}
# Of a run.json that says nothing of ranks.
_ALONE = {"ranks": 1, "strategy": "single"}
_NEW_INPUTS = {"parallel": _ALONE, "also_evaluated": 0}
"""What older versions did not record: they trained on rows of data.eval as well, where there were such."""


@dataclass(frozen=True)
class RunDirectory:
    """The paths of one run."""

    root: Path

    @property
    def adapter(self) -> Path:
        return self.root / "adapter"

    @property
    def checkpoint(self) -> Path:
        """The result of full fine-tuning."""
        return self.root / "checkpoint"

    @property
    def finished(self) -> Path | None:
        """The result that is there, if any, and with it all that was asked for."""
        result = next((path for path in (self.adapter, self.checkpoint) if path.exists()), None)
        return None if result is None or self._lacks_ewc() else result

    def _lacks_ewc(self) -> bool:
        """Whether the run was cut off after its result was sealed and before its importances were written."""
        try:
            recorded = json.loads(self.record.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return False
        asked = (recorded.get("settings", {}).get("ewc") or {}).get("save", False)
        return bool(asked) and not self.ewc.exists()

    @property
    def checkpoints(self) -> Path:
        return self.root / "checkpoints"

    @property
    def tokens(self) -> Path:
        """The encoded rows, see ``training.data.token_store``."""
        return self.root / "tokens"

    @property
    def data(self) -> Path:
        return self.root / "data.json"

    @property
    def metrics(self) -> Path:
        return self.root / "metrics.jsonl"

    @property
    def loss_curve(self) -> Path:
        return self.root / "loss.png"

    @property
    def experts(self) -> Path:
        return self.root / "experts.jsonl"

    @property
    def experts_plot(self) -> Path:
        return self.root / "experts.png"

    @property
    def ewc(self) -> Path:
        """See ``training.ewc.store``."""
        return self.root / "ewc"

    @property
    def tensorboard(self) -> Path:
        return self.root / "tensorboard"

    @property
    def record(self) -> Path:
        return self.root / "run.json"

    def check(self, *, overwrite: bool) -> None:
        """Refuse a directory that holds a finished run or somebody else's files; cheap, so it comes first.

        Raises:
            CheckpointError: it does, and ``overwrite`` is false, or it is not a run directory.
        """
        if self.root.exists() and not self.root.is_dir():
            raise CheckpointError(f"output = {self.root} is a file; name a directory")
        foreign = (self.adapter, self.checkpoint, self.checkpoints)
        if not self.record.is_file() and any(path.exists() for path in foreign):
            raise CheckpointError(
                f"output = {self.root} holds files but no {self.record.name}, so no run of ours made it; "
                "choose another output"
            )
        if self.finished is not None and not overwrite:
            raise CheckpointError(
                f"{self.finished} exists already: this run is finished; choose another output, or "
                "--overwrite to train again"
            )

    def check_settings(self, config: TrainConfig, parallel: dict[str, Any]) -> None:
        """Refuse to resume with other settings or ranks; before the data are read, which may take hours.

        Args:
            parallel: number of ranks and strategy, see ``training.ranks.parallelism``.

        Raises:
            ConfigError: there is a state, but of a run with other settings.
        """
        if self.finished is None and config.resume != "never" and self._last_complete_state() is not None:
            self._compare({"settings": settings_that_matter(config), "parallel": parallel})

    def begin(self, config: TrainConfig, inputs: dict[str, Any]) -> Path | None:
        """Make the directory ready and return the state to resume from, or None to start.

        Args:
            inputs: hashes of the base's and the data's files; number of ranks and strategy.

        Raises:
            ConfigError: there is a state, but of a run with other settings or inputs.
        """
        wanted = {"settings": settings_that_matter(config), **inputs}
        if self.finished is not None or config.resume == "never":
            self._clear()
        state = self._last_complete_state()
        if state is not None:
            self._compare(wanted)
            logger.info("resuming from %s", state)
        else:
            self._clear()
        self.root.mkdir(parents=True, exist_ok=True)
        write_text_atomically(self.record, json.dumps(wanted, indent=2) + "\n")
        return state

    def _compare(self, wanted: dict[str, Any]) -> None:
        """Raise ConfigError where the run that was cut off had other values under the keys of ``wanted``."""
        wanted = json.loads(json.dumps(wanted))
        recorded = {**_NEW_INPUTS, **json.loads(self.record.read_text(encoding="utf-8"))}
        if isinstance(recorded.get("settings"), dict):  # those that came later were at their defaults
            recorded["settings"] = {**_NEW_SETTINGS, **recorded["settings"]}
        difference = _first_difference({key: recorded.get(key) for key in wanted}, wanted)
        if difference is not None:
            raise ConfigError(
                f"{self.root} holds a run that was cut off, with another setting: {difference}; "
                "give it as it was, choose another output, or start over with resume = never"
            )

    def drop_cut_result(self) -> None:
        """Remove the result of a run that was cut off after it was sealed, before it is written again."""
        if self.finished is None:
            for path in (self.adapter, self.checkpoint):
                shutil.rmtree(path, ignore_errors=True)

    def drop_tokens(self) -> None:
        """Remove the encoded rows, which take as much room as the data."""
        shutil.rmtree(self.tokens, ignore_errors=True)

    def _clear(self) -> None:
        for path in (self.adapter, self.checkpoint, self.checkpoints, self.tensorboard, self.ewc):
            shutil.rmtree(path, ignore_errors=True)
        for path in (self.metrics, self.loss_curve, self.data, self.experts, self.experts_plot, self.record):
            path.unlink(missing_ok=True)

    def _written_with(self) -> tuple[int, bool]:
        """Return how many ranks wrote the states, not those that ask now, and whether the loss was scaled."""
        try:
            recorded = json.loads(self.record.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return 1, False
        ranks = int(recorded.get("parallel", _ALONE)["ranks"])
        return ranks, recorded.get("settings", {}).get("dtype") == "fp16"

    def _last_complete_state(self) -> Path | None:
        """Return the newest state that was written whole, and remove those that were not."""
        complete: dict[int, Path] = {}
        ranks, scaled = self._written_with()
        for path in self.checkpoints.glob("checkpoint-*"):
            step = path.name.rpartition("-")[2]
            if step.isdigit() and is_complete(path, ranks, scaled=scaled):
                complete[int(step)] = path
            else:
                logger.warning("removing %s, which was cut off while it was written", path)
                shutil.rmtree(path, ignore_errors=True)
        return complete[max(complete)] if complete else None


def settings_that_matter(config: TrainConfig) -> dict[str, Any]:
    """Return the settings that the result depends on, as JSON values."""
    settings: dict[str, Any] = json.loads(json.dumps(asdict(config), default=str))
    data = {key: value for key, value in settings["data"].items() if key not in _FREE_DATA}
    ewc = {key: value for key, value in settings["ewc"].items() if key not in _FREE_EWC}
    free = _FREE | ({*method_names()} - {config.method})  # other methods' settings
    return {**{key: value for key, value in settings.items() if key not in free}, "data": data, "ewc": ewc}


def _first_difference(before: Any, now: Any, where: str = "") -> str | None:
    if isinstance(before, dict) and isinstance(now, dict):
        # Another method has other settings: the method itself is what to name.
        for key in sorted(before.keys() | now.keys(), key=lambda key: (key != "method", key)):
            name = key if where in ("", "settings") else f"{where}.{key}"
            found = _first_difference(before.get(key), now.get(key), name)
            if found:
                return found
        return None
    return None if before == now else f"{where} was {before}, now it is {now}"
