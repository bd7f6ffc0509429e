"""A gRPC server that answers like Triton at known times; run as a program, prints its port.

With two arguments, a certificate and its key, it speaks TLS.
"""

from __future__ import annotations

import struct
import sys
import time
from collections.abc import Iterator
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc

from tests.loadtests import script

CODES = {
    "wrong": grpc.StatusCode.INVALID_ARGUMENT, "crashing": grpc.StatusCode.INTERNAL,
    "unprepared": grpc.StatusCode.FAILED_PRECONDITION, "hanging_up": grpc.StatusCode.CANCELLED,
}  # fmt: skip


class Servicer(service_pb2_grpc.GRPCInferenceServiceServicer):  # type: ignore[misc]
    """The four calls that load tests use."""

    def ServerMetadata(self, request: Any, context: Any) -> Any:
        return pb.ServerMetadataResponse(name="scripted", version="1.0")

    def ModelReady(self, request: Any, context: Any) -> Any:
        return pb.ModelReadyResponse(ready=request.name in script.READY)

    def ModelMetadata(self, request: Any, context: Any) -> Any:
        names = ("text_output",) if request.name == "foreign" else script.OUTPUTS
        tensor = pb.ModelMetadataResponse.TensorMetadata
        return pb.ModelMetadataResponse(
            name=request.name, versions=["1"], outputs=[tensor(name=name) for name in names]
        )

    def ModelStreamInfer(self, requests: Any, context: Any) -> Iterator[Any]:
        request = next(requests)
        model = request.model_name
        inputs = {tensor.name: _value(tensor) for tensor in request.inputs}
        if problem := script.problem_of(inputs, stream=True):
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, problem)
        if model == "shed":
            yield pb.ModelStreamInferResponse(error_message="[request id: 1] Exceeds maximum queue size")
            return
        if model == "locked" and ("authorization", f"Bearer {script.API_KEY}") not in (
            (entry.key, entry.value) for entry in context.invocation_metadata()
        ):
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "no such key")
        if model in CODES:
            context.abort(CODES[model], "on purpose")
        for number, (wait_s, outputs) in enumerate(script.responses(model)):
            time.sleep(5 if model == "slow" else wait_s)
            if model == "dropping" and number == 3:
                context.abort(grpc.StatusCode.UNAVAILABLE, "gone")
            if model == "erring" and number == 2:
                yield pb.ModelStreamInferResponse(error_message="the engine stopped")
                return
            yield pb.ModelStreamInferResponse(infer_response=_encode(outputs))


def _value(tensor: Any) -> Any:
    assert tensor.datatype == script.DATATYPES.get(tensor.name, "FP32")
    assert list(tensor.shape) == [1, 1]
    # Exactly one kind of contents is set, and holds one value.
    ((_, values),) = tensor.contents.ListFields()
    (value,) = values
    return value


def _encode(outputs: dict[str, Any]) -> Any:
    response = pb.ModelInferResponse()
    for name, value in outputs.items():
        response.outputs.add(name=name)
        if isinstance(value, str):
            raw = value.encode()
            response.raw_output_contents.append(struct.pack("<I", len(raw)) + raw)
        else:
            numbers = value if isinstance(value, list) else [value]
            response.raw_output_contents.append(struct.pack(f"<{len(numbers)}i", *numbers))
    return response


if __name__ == "__main__":
    server = grpc.server(futures.ThreadPoolExecutor(64))
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(Servicer(), server)
    if len(sys.argv) > 1:
        certificate, key = (Path(path).read_bytes() for path in sys.argv[1:])
        print(
            server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([(key, certificate)])),
            flush=True,
        )
    else:
        print(server.add_insecure_port("127.0.0.1:0"), flush=True)
    server.start()
    server.wait_for_termination()
