"""Start, watch and stop one tritonserver as a child of this process."""

from __future__ import annotations

import logging
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from checkpoints.errors import ServerError
from checkpoints.progress import progress
from serving import triton_guard
from serving.admin_key import restricting_arguments
from serving.cache import cache_directory
from serving.cpus import available_cpus
from serving.health import silent_reason
from serving.ports import choose_ports, listens
from serving.repository import find_models
from serving.triton_control import load_model, model_ready, model_states, unload_model
from serving.triton_install import find_triton
from serving.triton_log import engine_failure, last_line, port_was_taken, reason_of_failure
from serving.triton_runtime import triton_environment

__all__ = ["TritonServer"]

logger = logging.getLogger(__name__)

# A heavy `import torch` at the top of a model.py on a busy machine passes the default of 30 s.
_STUB_TIMEOUT_SECONDS = 300
_PORT_ATTEMPTS = 4
_KEPT_LOGS = 20


class TritonServer:
    """A running tritonserver with explicit model control; a context manager.

    ``start`` returns when every model is *ready*. A guard process (``serving.triton_guard``) is its parent:
    nothing is left behind even if we are killed.

    Args:
        repository: the model repository.
        models: the models to load; by default all that the repository holds.
        address: the address all three services bind to.
        http_port, grpc_port, metrics_port: 0 takes a free one.
        threads: math threads of each model process, unless a version was exported with a number of its own;
            by default ``OMP_NUM_THREADS`` of the environment, else the cores we may use, which the
            instances of a model share.
        log_file: by default a new file under the cache folder.
        start_timeout: seconds until all models must be ready.
        exit_timeout: seconds that requests in flight get when it stops.
        admin_key: closes the admin APIs (``serving.admin_key``) to requests without it.
        extra_arguments: more arguments for tritonserver.

    Raises:
        ServerError: from ``start``: no server, a model that does not load, a port that is taken, a timeout.
            The message holds the log line that matters and the path of the log.
    """

    def __init__(
        self,
        repository: Path,
        *,
        models: Sequence[str] | None = None,
        address: str = "127.0.0.1",
        http_port: int = 0,
        grpc_port: int = 0,
        metrics_port: int = 0,
        threads: int | None = None,
        log_file: Path | None = None,
        start_timeout: float = 600.0,
        exit_timeout: int = 30,
        admin_key: str | None = None,
        extra_arguments: Sequence[str] = (),
    ) -> None:
        self.repository = Path(repository).absolute()
        self.models = list(models) if models is not None else find_models(self.repository)
        self.address = address
        self.log_file = log_file or _new_log_file()
        self._wanted_ports = (http_port, grpc_port, metrics_port)
        self._ports = (0, 0, 0)
        self._threads = threads
        self._start_timeout = start_timeout
        self._exit_timeout = exit_timeout
        self._admin_key = admin_key
        self._extra = [*restricting_arguments(admin_key), *extra_arguments]
        self._guard: subprocess.Popen[bytes] | None = None
        self._token = secrets.token_hex(4)
        self._status_file = self.log_file.with_suffix(".pid")
        missing = [name for name in self.models if not (self.repository / name).is_dir()]
        if missing or not self.models:
            held = ", ".join(find_models(self.repository)) or "no model"
            raise ServerError(
                f"{self.repository} has no model {', '.join(missing) or 'to load'}; it holds {held} "
                "(`trimaran export` writes one)"
            )

    def __enter__(self) -> TritonServer:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def http_url(self) -> str:
        """``http://host:port``."""
        return f"http://{self._host}:{self._ports[0]}"

    @property
    def grpc_url(self) -> str:
        """``host:port``, as gRPC clients want it."""
        return f"{self._host}:{self._ports[1]}"

    @property
    def metrics_url(self) -> str:
        """The Prometheus endpoint, ``http://host:port/metrics``."""
        return f"http://{self._host}:{self._ports[2]}/metrics"

    @property
    def pid(self) -> int:
        """The process id of tritonserver itself (not of its guard)."""
        try:
            return int(self._status_file.read_text())
        except (OSError, ValueError) as error:
            raise ServerError("tritonserver is not running") from error

    @property
    def running(self) -> bool:
        """Whether the process is alive."""
        return self._guard is not None and self._guard.poll() is None

    @property
    def _connect_host(self) -> str:
        return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.address, self.address)

    @property
    def _host(self) -> str:
        return f"[{self._connect_host}]" if ":" in self._connect_host else self._connect_host

    def start(self) -> None:
        """Start the server and wait until every model is ready."""
        if self.running:
            raise ServerError("tritonserver is started already")
        install = find_triton()
        environment = triton_environment(install, threads=self._threads)
        for attempt in range(_PORT_ATTEMPTS):
            self._ports = tuple(choose_ports(self.address, self._wanted_ports))  # type: ignore[assignment]
            backends = ["--backend-directory", str(install.backends)] if install.backends else []
            self._launch([str(install.binary), *self._arguments(), *backends, *self._extra], environment)
            try:
                self._wait_until_ready()
                return
            except ServerError:
                self._abort()
                # Free ports are chosen before the server binds them: another process may be quicker.
                if (
                    all(self._wanted_ports)
                    or attempt == _PORT_ATTEMPTS - 1
                    or not port_was_taken(self.log_file)
                ):
                    raise
                logger.info("a port was taken meanwhile, trying others")
            except BaseException:
                # Triton would first load its models to the end before it obeys.
                self._abort()
                raise

    def stop(self) -> None:
        """Let requests in flight finish (``exit_timeout``), then end the server and all its children."""
        guard, self._guard = self._guard, None
        if guard is None:
            return
        if guard.poll() is None:
            guard.terminate()
            try:
                guard.wait(self._exit_timeout + 15)
            except BaseException:
                _kill(guard)
                raise
        self._status_file.unlink(missing_ok=True)

    def _abort(self) -> None:
        guard, self._guard = self._guard, None
        if guard is not None:
            _kill(guard)
        self._status_file.unlink(missing_ok=True)

    def load(self, name: str) -> None:
        """Load a model, or swap to its newest version; returns when it is ready. Requests are not failed.

        Raises:
            ServerError: it does not load (the version that was serving goes on), or the server is gone.
        """
        try:
            load_model(
                self._connect_host, self._ports[0], name, timeout=self._start_timeout, key=self._admin_key
            )
        except ServerError as error:
            raise ServerError(f"{error}; log: {self.log_file}") from error

    def unload(self, name: str) -> None:
        """Unload a model; returns at once, requests in flight finish."""
        unload_model(
            self._connect_host, self._ports[0], name, timeout=self._start_timeout, key=self._admin_key
        )

    def ready(self, name: str) -> bool:
        """Return whether the model answers requests now."""
        return model_ready(self._connect_host, self._ports[0], name)

    def dead_reason(self, name: str) -> str | None:
        """Return why a model cannot come back by itself, or None where it lives or an operator unloaded it.

        A model whose engine died unloads itself; one whose process was killed stays ready for Triton. A model
        that somebody is loading again is not dead.
        """
        if self.ready(name):
            return silent_reason(self._host, self._ports[2], name)
        reason = engine_failure(self.log_file, name)
        return None if reason is None or self._loading(name) else reason

    def _loading(self, name: str) -> bool:
        try:
            states = model_states(self._connect_host, self._ports[0], name, key=self._admin_key)
        except ServerError:
            return False
        return "LOADING" in states.values()

    def _arguments(self) -> list[str]:
        http_port, grpc_port, metrics_port = self._ports
        settings: dict[str, Any] = {
            "model-repository": self.repository,
            "model-control-mode": "explicit",
            "http-address": self.address,
            "http-port": http_port,
            "grpc-address": self.address,
            "grpc-port": grpc_port,
            "metrics-address": self.address,
            "metrics-port": metrics_port,
            "http-thread-count": min(8, max(2, available_cpus())),
            "exit-timeout-secs": self._exit_timeout,
        }
        arguments = [f"--{name}={value}" for name, value in settings.items()]
        arguments += [f"--load-model={name}" for name in self.models]
        backend = {
            "shm-region-prefix-name": self._shm_prefix,
            "stub-timeout-seconds": _STUB_TIMEOUT_SECONDS,
        }
        return arguments + [f"--backend-config=python,{name}={value}" for name, value in backend.items()]

    def _launch(self, command: list[str], environment: dict[str, str]) -> None:
        self._status_file.unlink(missing_ok=True)
        grace = self._exit_timeout + 10
        guard = [sys.executable, "-I", "-S", triton_guard.__file__, str(os.getpid()), str(self._status_file)]
        with self._open_log() as log:
            shown = " ".join(command)
            if self._admin_key is not None:
                shown = shown.replace(self._admin_key, "***")
            log.write(f"{shown}\n".encode())
            log.flush()
            self._guard = subprocess.Popen(
                [*guard, self._shm_prefix, str(grace), "--", *command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
                start_new_session=True,  # Ctrl-C in the terminal reaches us alone, and we decide
            )
        logger.info("tritonserver starts, log: %s", self.log_file)

    @property
    def _shm_prefix(self) -> str:
        return f"trimaran-{os.getpid()}-{self._token}-"

    def _open_log(self) -> BinaryIO:
        try:
            return self.log_file.open("wb")
        except OSError as error:
            raise ServerError(f"the log {self.log_file} cannot be written: {error.strerror}") from error

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + self._start_timeout
        waiting = list(self.models)
        with progress(counts=False) as bar:
            task = bar.add_task("starting Triton", total=None, note="")
            while waiting:
                if not self.running:
                    reason = reason_of_failure(self.log_file)
                    raise ServerError(f"tritonserver did not start: {reason}; log: {self.log_file}")
                if time.monotonic() > deadline:
                    raise ServerError(
                        f"{', '.join(waiting)} not ready after {self._start_timeout:.0f} s; "
                        f"last log line: {last_line(self.log_file)}; log: {self.log_file}"
                    )
                waiting = [name for name in self.models if not self.ready(name)]
                if not waiting and not listens(self._connect_host, self._ports[2]):
                    waiting = ["the metrics"]  # Triton opens this port last
                bar.update(
                    task, description=f"loading {', '.join(waiting)}", note=last_line(self.log_file)[:100]
                )
                if waiting:
                    time.sleep(0.1)
        logger.info("ready: %s at %s and %s", ", ".join(self.models), self.http_url, self.grpc_url)


def _kill(guard: subprocess.Popen[bytes]) -> None:
    """End guard and server at once; should the guard hang, the kernel still kills tritonserver with it."""
    guard.send_signal(signal.SIGQUIT)
    try:
        guard.wait(10)
    except BaseException:
        guard.kill()
        guard.wait()
        raise


def _new_log_file() -> Path:
    folder = cache_directory() / "logs"
    folder.mkdir(exist_ok=True)
    for old in sorted(folder.glob("triton-*.log"))[:-_KEPT_LOGS]:
        old.unlink(missing_ok=True)
    return folder / f"triton-{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(4)}.log"
