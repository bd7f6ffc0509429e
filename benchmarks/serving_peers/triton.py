"""Trimaran through Triton: gRPC streams (``ModelStreamInfer``), the client in a process of its own."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from benchmarks.closed_loop import run_users
from benchmarks.failures import PeerFailure
from benchmarks.serving_peers.inprocess import InProcess
from benchmarks.traces import Trace
from benchmarks.worker import Measure, serve
from benchmarks.workload import Item

if TYPE_CHECKING:
    from serving.triton_server import TritonServer

__all__ = ["TritonGrpc"]


class TritonGrpc(InProcess):
    """An exported version served by ``TritonServer``."""

    module = "benchmarks.serving_peers.triton"
    note = "gRPC, one stream per request on a shared channel"

    _server: TritonServer | None = None

    @property
    def key(self) -> str:
        """See ``Peer.key``."""
        return f"triton-{self.engine}-{self.precision}"

    def options(self) -> Mapping[str, Any]:
        """Where the model is served."""
        assert self._server is not None
        return {"url": self._server.grpc_url, "model": self.version.parent.name}

    def _start_server(self) -> None:
        from checkpoints.errors import TrimaranError
        from serving.triton_server import TritonServer

        try:
            server = TritonServer(
                self.setting.repository,
                models=[self.version.parent.name],
                threads=self.setting.threads,
                log_file=self.log.with_suffix(".triton.log"),
                start_timeout=self.setting.start_timeout,
                exit_timeout=5,
            )
            self._server = server
            server.start()
        except TrimaranError as error:
            raise PeerFailure(str(error)) from error

    def _server_pid(self) -> int | None:
        return self._server.pid if self._server is not None else None

    def _stop_server(self) -> None:
        if self._server is not None:
            self._server.stop()
            self._server = None


def load(options: Mapping[str, Any]) -> Measure:
    """Prepare the client; see ``worker.serve``."""
    import grpc
    from tritonclient.grpc import service_pb2 as pb

    from serving.wire import decode, encode

    def measure(items: Sequence[Item], concurrency: int) -> list[Trace]:
        messages = {
            item.index: encode(
                options["model"],
                {"input_ids": item.prompt_ids, "max_tokens": item.max_tokens, "ignore_eos": True},
                stream=True,
            )
            for item in items
        }
        received: list[tuple[Trace, list[tuple[float, bytes]]]] = []
        channels: list[Any] = []

        async def ask(item: Item, trace: Trace) -> None:
            if not channels:
                channels.append(grpc.aio.insecure_channel(options["url"]))
            # Bytes are decoded when all is over: decoding is not between two arrivals.
            call = channels[0].stream_stream(
                "/inference.GRPCInferenceService/ModelStreamInfer",
                request_serializer=pb.ModelInferRequest.SerializeToString,
            )(iter([messages[item.index]]))
            chunks: list[tuple[float, bytes]] = []
            received.append((trace, chunks))
            while (data := await call.read()) is not grpc.aio.EOF:
                chunks.append((time.perf_counter(), data))

        traces = run_users(items, concurrency, ask)
        for trace, chunks in received:
            for moment, data in chunks:
                response = pb.ModelStreamInferResponse.FromString(data)
                if response.error_message:
                    raise RuntimeError(response.error_message)
                trace.add(moment, decode(response.infer_response).output_ids)
        return traces

    return measure


if __name__ == "__main__":
    serve(load)
