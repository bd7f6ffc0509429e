"""The checkpoint as one of our engines takes it: exported by the code as it is, once per run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.failures import PeerFailure
from benchmarks.quantized import checkpoint_in
from benchmarks.setting import Setting
from checkpoints.errors import TrimaranError
from serving.config import ExportConfig
from serving.engine.registry import find_exporter
from serving.export import export

__all__ = ["export_version"]


def export_version(setting: Setting, engine: str, weights: str, **changes: Any) -> Path:
    """Return the directory of version 1, written now unless this run has written it before.

    Args:
        setting: of the run.
        engine: name of the engine.
        weights: precision of its weights.
        changes: other settings of ``ExportConfig``.

    Raises:
        PeerFailure: the engine cannot serve the checkpoint here.
    """
    limits = [f"{setting.slots}x{setting.max_context}", *(f"{key}-{value}" for key, value in changes.items())]
    name = "-".join([engine, weights, *limits]).replace("_", "-")
    version = setting.repository / name / "1"
    if version.is_dir():
        return version
    settings: dict[str, Any] = {
        "slots": setting.slots,
        "max_context": setting.max_context,
        "threads": setting.threads,
        "fidelity": False,  # the text is compared by the benchmark itself
        "infer_model": False,
        "device": "cpu",
        **changes,
    }
    try:
        if missing := find_exporter(engine).installed():
            raise PeerFailure(missing)
        return export(
            ExportConfig(
                checkpoint=checkpoint_in(setting, weights),
                repository=setting.repository,
                name=name,
                engine=engine,  # type: ignore[arg-type]
                weights=weights,  # type: ignore[arg-type]
                **settings,
            )
        )
    except (TrimaranError, ModuleNotFoundError) as error:
        raise PeerFailure(str(error)) from error
