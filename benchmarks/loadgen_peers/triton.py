"""Triton's side of the scripted server: what it says of a model, and its two streams of tokens.

The delays are those of ``server.py``; the answers have the outputs of a model that ``trimaran export`` wrote.
"""

from __future__ import annotations

import struct
from collections.abc import AsyncIterator, Callable
from typing import Any

__all__ = ["OUTPUTS", "answers", "outputs_of", "serve_grpc"]

OUTPUTS = ("text_output", "output_ids", "finish_reason", "prompt_tokens", "completion_tokens")


def answers(path: str) -> Any:
    """Return the JSON at a path under ``/v2``."""
    parts = path.strip("/").split("/")
    if len(parts) == 1:
        return {"name": "scripted", "version": "1"}
    if parts[-1] in ("ready", "config"):
        return {}
    return {"name": parts[2], "versions": ["1"], "outputs": [{"name": name} for name in OUTPUTS]}


def outputs_of(number: int, tokens: int) -> dict[str, Any]:
    """Return the outputs of one response.

    Args:
        number: which token it carries, from 0.
        tokens: how many there will be.
    """
    return {
        "text_output": "word ",
        "output_ids": number,
        "finish_reason": "length" if number == tokens - 1 else "",
        "prompt_tokens": 5,
        "completion_tokens": number + 1,
    }


async def serve_grpc(begin: Callable[[str], Any]) -> int:
    """Serve ``ModelStreamInfer`` on this loop; return the port.

    Args:
        begin: takes a model's name and returns an answer with ``tokens``, ``wait(number)`` until a token is
            due, and ``stamp()`` right before it is sent.
    """
    import grpc
    from tritonclient.grpc import service_pb2, service_pb2_grpc

    class Servicer(service_pb2_grpc.GRPCInferenceServiceServicer):
        async def ServerMetadata(self, request: Any, context: Any) -> Any:
            return service_pb2.ServerMetadataResponse(name="scripted", version="1")

        async def ModelReady(self, request: Any, context: Any) -> Any:
            return service_pb2.ModelReadyResponse(ready=True)

        async def ModelMetadata(self, request: Any, context: Any) -> Any:
            tensor = service_pb2.ModelMetadataResponse.TensorMetadata
            outputs = [tensor(name=name) for name in OUTPUTS]
            return service_pb2.ModelMetadataResponse(name=request.name, versions=["1"], outputs=outputs)

        async def ModelStreamInfer(self, requests: Any, context: Any) -> AsyncIterator[Any]:
            async for request in requests:
                answer = begin(request.model_name)
                for number in range(answer.tokens):
                    response = service_pb2.ModelStreamInferResponse(
                        infer_response=_encoded(service_pb2.ModelInferResponse(), number, answer.tokens)
                    )
                    await answer.wait(number)
                    answer.stamp()
                    yield response

    server = grpc.aio.server()
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(Servicer(), server)
    port: int = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    _running.append(server)
    return port


def _encoded(response: Any, number: int, tokens: int) -> Any:
    for name, value in outputs_of(number, tokens).items():
        response.outputs.add(name=name)
        if isinstance(value, str):
            raw = value.encode()
            response.raw_output_contents.append(struct.pack("<I", len(raw)) + raw)
        else:
            response.raw_output_contents.append(struct.pack("<i", value))
    return response


_running: list[Any] = []  # a server that nobody holds stops
