"""The typed configs of the commands ``export``, ``serve`` and ``chat``."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

from checkpoints.errors import ConfigError

__all__ = ["ChatConfig", "ExportConfig", "LoadConfig", "ServeConfig"]

MODEL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


@dataclass
class ExportConfig:
    """Write a checkpoint as a new version of a model in a Triton model repository.

    Raises:
        ConfigError: a field is out of range; the message names it.
    """

    POSITIONAL: ClassVar[tuple[str, ...]] = ("checkpoint",)

    checkpoint: Path
    """Merged, quantized, full or base checkpoint with a manifest; or a bottleneck adapter, which is served
    on its base (any other adapter is merged first)."""

    repository: Path
    """Model repository to write into; made if it does not exist."""

    name: str = "llm"
    """Name of the model in Triton."""

    base: str | None = None
    """Of an adapter: where its base is now, if it moved since training; the same files."""

    version: int | None = None
    """Version to write; by default the next free one. A version that exists is never touched."""

    engine: Literal["auto", "torch", "openvino", "onnx"] = "auto"
    """What computes: ``torch`` serves everything, runs on GPUs and is the fastest on CPUs with AVX-512,
    ``openvino`` on other x86 CPUs, ``onnx`` is onnxruntime. ``auto`` takes openvino where it is installed,
    serves this model and no GPU is there, else torch; for int8 torch where this CPU computes it faster. It
    never changes the precision of the weights."""

    weights: Literal["bf16", "fp16", "fp32", "int8", "int4", "nf4"] | None = None
    """Precision of the weights, by default the checkpoint's. Where it differs, what that costs is measured
    and written into the version's manifest."""

    format: Literal["auto", "onnx"] = "auto"
    """``onnx`` is another way to say ``engine: onnx``."""

    kv_dtype: Literal["bf16", "fp16", "fp32", "u8"] | None = None
    """Precision of the KV cache, by default the engine's choice for these weights."""

    kv_tokens: int | None = None
    """Positions of the KV cache, all requests together; by default slots times max_context. Fewer save
    memory on engines with a paged cache (openvino), and requests that find none wait."""

    prefill_chunk: int | None = None
    """Prompt tokens computed per step at most; running streams wait for so many. By default the engine's."""

    prefix_cache: bool = False
    """Compute beginnings that prompts share, such as a system prompt, only once (torch engine)."""

    stream_interval: int = 1
    """Tokens sent together to a client that streams; 1 sends each as soon as it is there."""

    fidelity: bool = True
    """Measure a converted model against its checkpoint: KL divergence, agreement, perplexity."""

    calibration: Path | None = None
    """JSONL to measure on: text, messages, or prompt and completion. Default: packaged."""

    slots: int = 16
    """Requests the engine runs at once."""

    max_context: int | None = None
    """Tokens of one request, prompt and completion together; by default the checkpoint's, at most 2048
    (each slot keeps memory for this many)."""

    threads: int | None = None
    """CPU threads of the engine, whatever the server is started with; by default that, or each instance's
    part of the cores the server may use."""

    max_batch_size: int = 8
    """Requests Triton's dynamic batcher hands over at once."""

    queue_delay_us: int = 1000
    """Microseconds the dynamic batcher waits for company."""

    preferred_batch_sizes: list[int] = field(default_factory=list)
    """Batch sizes that the dynamic batcher hands over at once, without waiting for more; by default only
    max_batch_size is one."""

    max_queue_size: int = 256
    """Requests that may wait in Triton; more are refused with 503. 0 sets no limit."""

    queue_timeout_ms: int = 0
    """Milliseconds a request may wait before it is refused; 0 sets no limit. A request may ask for less."""

    instances: int = 1
    """Engines (each holds the weights once)."""

    device: Literal["auto", "cpu", "gpu"] = "auto"
    """Where the engine runs; ``auto`` takes a GPU where the server finds one."""

    device_map: Literal["none", "auto"] = "none"
    """``auto`` spreads one model over all GPUs, for models larger than one (torch engine)."""

    infer_model: bool = True
    """Also write ``NAME_infer``, which answers unary KServe-v2 ``infer`` calls."""

    trust_remote_code: bool = False
    """Allow a checkpoint whose own Python code must run to load it."""

    def __post_init__(self) -> None:
        _check_name("name", self.name)
        for name in ("slots", "max_batch_size", "instances", "stream_interval"):
            _check_range(name, getattr(self, name), 1)
        for name in ("version", "max_context", "threads", "kv_tokens", "prefill_chunk"):
            if getattr(self, name) is not None:
                _check_range(name, getattr(self, name), 1)
        for name in ("queue_delay_us", "max_queue_size", "queue_timeout_ms"):
            _check_range(name, getattr(self, name), 0)
        for size in self.preferred_batch_sizes:
            if not 1 <= size <= self.max_batch_size:
                raise ConfigError(
                    f"preferred_batch_sizes: {size} is not between 1 and max_batch_size, "
                    f"{self.max_batch_size}"
                )
        if self.format == "onnx":
            if self.engine not in ("auto", "onnx"):
                raise ConfigError(f"format is 'onnx', but engine is {self.engine!r}; give one of them")
            self.engine = "onnx"
        if self.calibration is not None and not self.fidelity:
            raise ConfigError("calibration is given, but fidelity is false: nothing would read it")


@dataclass
class ServeConfig:
    """Serve a model repository with Triton until a signal comes.

    Raises:
        ConfigError: a field is out of range; the message names it.
    """

    POSITIONAL: ClassVar[tuple[str, ...]] = ("repository",)

    repository: Path
    """Model repository, as ``export`` writes it."""

    models: list[str] | None = None
    """Models to load; by default all that the repository holds."""

    address: str = "127.0.0.1"
    """Address to listen on; 0.0.0.0 listens on all, so put something in front that checks who asks."""

    http_port: int = 8000
    """HTTP port; 0 takes a free one."""

    grpc_port: int = 8001
    """gRPC port; 0 takes a free one."""

    metrics_port: int = 8002
    """Port of the Prometheus metrics; 0 takes a free one."""

    threads: int | None = None
    """Math threads of each model process, unless its version was exported with a number of its own; by
    default ``OMP_NUM_THREADS``, or else the cores this process may use (a container's CPU limit counts),
    which the instances of a model share."""

    start_timeout: float = 600.0
    """Seconds until every model must be ready."""

    exit_timeout: int = 30
    """Seconds that requests in flight get when a signal comes."""

    grpc_connection_age: int = 10
    """Seconds after which a gRPC connection is to be replaced: the client then asks again which servers there
    are, finds new ones and leaves those that stop. Requests finish where they are; 0 keeps connections."""

    log_file: Path | None = None
    """Triton's log; by default a new file under the cache folder."""

    echo_log: bool = False
    """Also write Triton's log to standard error, where container engines look."""

    admin_key_file: Path | None = None
    """Close Triton's admin APIs (loading and unloading models, shared memory, tracing, logging) to requests
    without the key in this file; it is made where there is none. Triton takes the key as a flag, so who can
    list its processes sees it. By default the admin APIs are open."""

    def __post_init__(self) -> None:
        for name in self.models or []:
            _check_name("models", name)
        for name in ("http_port", "grpc_port", "metrics_port"):
            _check_range(name, getattr(self, name), 0, 65535)
        ports = [port for port in (self.http_port, self.grpc_port, self.metrics_port) if port]
        if len(set(ports)) < len(ports):
            raise ConfigError(
                f"http_port, grpc_port and metrics_port are {self.http_port}, {self.grpc_port} and "
                f"{self.metrics_port}; they must differ"
            )
        if self.threads is not None:
            _check_range("threads", self.threads, 1)
        _check_range("exit_timeout", self.exit_timeout, 0)
        _check_range("grpc_connection_age", self.grpc_connection_age, 0, 86400)
        if not 0 < self.start_timeout < float("inf"):
            raise ConfigError(f"start_timeout is {self.start_timeout}; accepted: seconds above 0")


@dataclass
class LoadConfig:
    """Swap a running server to a model's newest version, or back to an older one, without failing a request.

    Raises:
        ConfigError: a field is out of range; the message names it.
    """

    POSITIONAL: ClassVar[tuple[str, ...]] = ("model",)

    model: str = "llm"
    """Name of the model in Triton."""

    url: str = "http://127.0.0.1:8000"
    """The server's HTTP API."""

    version: int | None = None
    """Serve this version, until the next load; by default what config.pbtxt says, which is the newest."""

    admin_key_file: Path | None = None
    """File with the key, where the server was started with one."""

    timeout: float = 600.0
    """Seconds the load may take."""

    def __post_init__(self) -> None:
        _check_name("model", self.model)
        if self.version is not None:
            _check_range("version", self.version, 1)
        if not 0 < self.timeout < float("inf"):
            raise ConfigError(f"timeout is {self.timeout}; accepted: seconds above 0")


@dataclass
class ChatConfig:
    """Talk to a served model in the terminal; reads standard input when that is not a terminal.

    Raises:
        ConfigError: a field is out of range; the message names it.
    """

    POSITIONAL: ClassVar[tuple[str, ...]] = ("url",)

    url: str = "127.0.0.1:8001"
    """gRPC endpoint, ``host:port``."""

    model: str = "llm"
    """Name of the model in Triton."""

    system: str | None = None
    """System message put before the chat."""

    max_tokens: int = 512
    """Longest answer, in tokens."""

    temperature: float = 0.7
    """0 is greedy decoding; higher is more varied."""

    top_p: float = 1.0
    """Sample from the most likely tokens that together have this probability."""

    top_k: int = 0
    """Sample from this many most likely tokens; 0 sets no limit."""

    min_p: float = 0.0
    """Leave out tokens less likely than this share of the most likely one."""

    repetition_penalty: float = 1.0
    """Above 1 makes tokens that were used less likely."""

    seed: int | None = None
    """Repeats the answers; by default random."""

    def __post_init__(self) -> None:
        _check_name("model", self.model)
        _check_range("max_tokens", self.max_tokens, 1)
        _check_range("temperature", self.temperature, 0, 5)
        _check_range("top_p", self.top_p, 0, 1)
        _check_range("top_k", self.top_k, 0)
        _check_range("min_p", self.min_p, 0, 1)
        _check_range("repetition_penalty", self.repetition_penalty, 0.01, 10)
        if self.seed is not None:
            _check_range("seed", self.seed, 0, 2**64 - 1)


def _check_name(field: str, value: str) -> None:
    if not MODEL_NAME.fullmatch(value):
        raise ConfigError(
            f"{field} is {value!r}; accepted: letters, digits, '_', '.' and '-', a letter or digit first"
        )


def _check_range(field: str, value: Any, low: float, high: float | None = None) -> None:
    # Written so that NaN fails too.
    if not (isinstance(value, int | float) and not isinstance(value, bool)):
        raise ConfigError(f"{field} is {value!r}; accepted: a number")
    if not (value >= low and (high is None or value <= high)):
        accepted = f"at least {low}" if high is None else f"{low} to {high}"
        raise ConfigError(f"{field} is {value}; accepted: {accepted}")
