"""What an engine does at export: say whether it serves a checkpoint, and bring it into its own form.

Each engine's package has a module ``exporting`` with an ``EXPORTER``. Nothing here runs inside Triton.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, ClassVar

from checkpoints.manifest import KeptTensor, Manifest
from serving.engine.config import EngineConfig

__all__ = ["Exporter"]


class Exporter(ABC):
    """How checkpoints become versions for one engine."""

    weights: ClassVar[tuple[str, ...]]
    """Precisions of the weights this engine computes with."""

    kv_dtypes: ClassVar[tuple[str, ...]]
    """Precisions of its KV cache."""

    architectures: ClassVar[frozenset[str]]
    """Model types that the tests hold against ``generate``, token for token."""

    converts: ClassVar[bool]
    """Whether ``convert`` writes model files; otherwise the checkpoint's are served as they are."""

    prefill_chunk: ClassVar[int] = 512
    """Prompt tokens of a step, unless the user says otherwise."""

    own_process: ClassVar[bool] = False
    """Whether the engine runs in a process of its own, because its ``step`` and the threads that talk to
    Triton hold each other up by Python's global lock."""

    @abstractmethod
    def installed(self) -> str | None:
        """Return what has to be installed for this engine, or ``None`` if it can run here."""

    def is_fastest(self, weights: str | None, model_config: Any) -> bool:
        """Whether it was measured to be the fastest for this model in ``weights`` on a CPU like this one."""
        return False

    @abstractmethod
    def default_weights(self, manifest: Manifest) -> str:
        """Return the precision that keeps the checkpoint's numbers."""

    @abstractmethod
    def default_kv_dtype(self, manifest: Manifest, weights: str) -> str:
        """Return the precision of the KV cache that belongs to ``weights``."""

    def default_kv_tokens(self, slots: int, max_context: int) -> int:
        """Return the positions of the KV cache that give every slot its whole context."""
        return slots * max_context

    @abstractmethod
    def check(self, manifest: Manifest, model_config: Any, config: EngineConfig) -> None:
        """Check that the engine computes this model exactly; quick, loads no weights.

        Args:
            manifest: the checkpoint's manifest.
            model_config: its Hugging Face config.
            config: the settings asked for.

        Raises:
            UnsupportedCheckpoint: it does not; the message names the reason.
        """

    @abstractmethod
    def convert(self, checkpoint: Path, target: Path, config: EngineConfig) -> None:
        """Write the engine's model files into ``target``, an existing directory.

        Args:
            checkpoint: the checkpoint's directory.
            target: where the model files go; tokenizer and config files are put there by the caller.
            config: the settings asked for; ``weights`` is the precision to write.

        Raises:
            UnsupportedCheckpoint: the model cannot be converted.
        """

    def kept(self, checkpoint: Path, target: Path, config: EngineConfig) -> list[KeptTensor]:
        """Return what ``convert`` left unpacked where it packed weights to int8 or int4.

        Args:
            checkpoint: the checkpoint's directory.
            target: where ``convert`` has written.
            config: the settings that were written.
        """
        return []

    @abstractmethod
    def logits_model(self, target: Path, config: EngineConfig) -> Any:
        """Return the written model as ``checkpoints.fidelity`` takes one.

        That is a callable ``model(input_ids=int64 [1, T], use_cache=False)`` whose result has
        ``logits``, float ``[1, T, vocab]``, and an attribute ``device``. Where the precision it computes in
        depends on the machine, ``computed_in`` names it.
        """
