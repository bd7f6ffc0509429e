"""``engine.json``: what belongs to one exported version and not to the Triton model."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from checkpoints.atomic import write_text_atomically
from checkpoints.errors import ConfigError, ServingError

__all__ = ["CONTRACT_VERSION", "ENGINE_CONFIG_NAME", "KV_DTYPES", "WEIGHTS", "EngineConfig"]

CONTRACT_VERSION = 2
"""Version of the contract between an exported version and the code that serves it."""

ENGINE_CONFIG_NAME = "engine.json"

WEIGHTS = ("bf16", "fp16", "fp32", "int8", "int4", "nf4")
KV_DTYPES = ("bf16", "fp16", "fp32", "u8")


@dataclass(frozen=True)
class EngineConfig:
    """How one exported version is run.

    Raises:
        ConfigError: a field is out of range.
    """

    weights: str
    """Precision of the weights: ``bf16``, ``fp16``, ``fp32``, ``int8``, ``int4`` or ``nf4``."""

    max_context: int
    """Tokens a slot holds: prompt plus completion of one request."""

    engine: str = "torch"
    """Name of the engine."""

    slots: int = 16
    """Requests that run at once; each slot holds the KV cache of one request."""

    kv_dtype: str = "bf16"
    """Precision of the KV cache: ``bf16``, ``fp16``, ``fp32`` or ``u8``."""

    kv_tokens: int | None = None
    """Positions of the KV cache, all requests together; ``None`` is ``slots`` times ``max_context``.
    Only engines with a paged cache can hold less."""

    threads: int | None = None
    """CPU threads of the engine; ``None`` is decided where it is loaded: what the server was started with,
    else an equal part of the cores it may use (``serving.cpus``)."""

    prefill_chunk: int = 512
    """Prompt tokens computed per step, so that running streams never wait for a whole prompt."""

    prefix_cache: bool = False
    """Whether beginnings that prompts share, such as a system prompt, are computed only once."""

    stream_interval: int = 1
    """Tokens of one stream that are sent together, when that many are not yet due anyway."""

    own_process: bool = False
    """Whether the engine runs in a process of its own, beside the one that talks to Triton."""

    device: str = "auto"
    """``auto`` (a GPU where there is one), ``cpu`` or ``cuda``."""

    device_map: str = "none"
    """``auto`` spreads the layers of one model over all GPUs; ``none`` keeps it on one device."""

    trust_remote_code: bool = False
    """Whether the checkpoint's own Python code may run; set by name at export only."""

    contract_version: int = CONTRACT_VERSION
    """Contract this version was exported for; checked when the model is initialized."""

    trimaran_version: str = "unknown"
    """Version of Trimaran that exported it."""

    def __post_init__(self) -> None:
        for name, accepted in (
            ("weights", WEIGHTS),
            ("kv_dtype", KV_DTYPES),
            ("device", ("auto", "cpu", "cuda")),
            ("device_map", ("none", "auto")),
        ):
            value = getattr(self, name)
            if value not in accepted:
                raise ConfigError(f"{name} is {value!r}; accepted: {', '.join(accepted)}")
        for name in ("max_context", "slots", "prefill_chunk", "stream_interval"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise ConfigError(f"{name} is {value!r}; accepted: a whole number of at least 1")
        if self.threads is not None and self.threads < 1:
            raise ConfigError(f"threads is {self.threads!r}; accepted: at least 1, or null")
        if self.kv_tokens is not None and self.kv_tokens < self.max_context:
            raise ConfigError(
                f"kv_tokens is {self.kv_tokens}; accepted: at least max_context ({self.max_context}), or null"
            )

    def write(self, path: Path) -> None:
        """Write to ``path`` as JSON."""
        write_text_atomically(path, json.dumps(asdict(self), indent=2) + "\n")

    @classmethod
    def read(cls, path: Path) -> EngineConfig:
        """Read ``path`` and check that this code serves its contract version.

        Raises:
            ServingError: the file is missing, malformed, or made by another contract version.
        """
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise ServingError(f"{path} is missing; export the checkpoint again") from None
        except ValueError as error:
            raise ServingError(f"{path} is not JSON ({error}); export the checkpoint again") from error
        made_for = values.get("contract_version")
        if made_for != CONTRACT_VERSION:
            raise ServingError(
                f"{path.parent} was exported for contract version {made_for} (Trimaran "
                f"{values.get('trimaran_version')}), this Trimaran serves version {CONTRACT_VERSION}; "
                "export the checkpoint again"
            )
        unknown = sorted(set(values) - {field.name for field in fields(cls)})
        if unknown:
            raise ServingError(f"{path} has unknown fields {', '.join(unknown)}; export the checkpoint again")
        return cls(**values)
