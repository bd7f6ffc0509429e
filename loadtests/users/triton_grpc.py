"""Triton's ``ModelStreamInfer`` over gRPC: one call per request on a channel that users share.

Cancelling is per call, so a stream that served several requests could not drop just one of them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import grpc
import grpc.experimental.gevent
from locust.env import Environment

grpc.experimental.gevent.init_gevent()  # after locust has patched sockets, before the first channel

from google.protobuf.json_format import MessageToDict  # noqa: E402
from tritonclient.grpc import service_pb2, service_pb2_grpc  # noqa: E402

from loadtests.answer import Answer  # noqa: E402
from loadtests.credentials import Credentials  # noqa: E402
from loadtests.errors import ConfigError, EndpointError  # noqa: E402
from loadtests.failures import RequestFailed  # noqa: E402
from loadtests.measured_user import MeasuredUser  # noqa: E402
from loadtests.target import Target  # noqa: E402
from loadtests.triton_contract import check_outputs, datatype, request_inputs  # noqa: E402
from loadtests.workloads.workload import Request  # noqa: E402

__all__ = ["TritonGrpcUser"]

_PREFLIGHT_TIMEOUT_S = 10.0
_OPTIONS = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
# What Triton says when its queue is full or a request waited too long in it; HTTP says 503.
_SHED = ("Exceeds maximum queue size", "Request timeout expired")
_CONTENTS = {
    "BOOL": "bool_contents",
    "INT32": "int_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "BYTES": "bytes_contents",
}
_KINDS = {
    grpc.StatusCode.DEADLINE_EXCEEDED: "timeout",
    grpc.StatusCode.RESOURCE_EXHAUSTED: "refused",
    grpc.StatusCode.INVALID_ARGUMENT: "4xx",
    grpc.StatusCode.NOT_FOUND: "4xx",
    grpc.StatusCode.FAILED_PRECONDITION: "4xx",
    grpc.StatusCode.OUT_OF_RANGE: "4xx",
    grpc.StatusCode.UNAUTHENTICATED: "4xx",
    grpc.StatusCode.PERMISSION_DENIED: "4xx",
}


class TritonGrpcUser(MeasuredUser):
    """Sends ``stream=true`` and stamps every response of the stream."""

    host = "grpc://127.0.0.1:8001"
    label = "gRPC"
    streams = True

    def __init__(self, environment: Environment) -> None:
        super().__init__(environment)
        for target in self.targets:
            _stub(target, self.workload.credentials)  # a wrong URL is told now

    @classmethod
    def preflight(cls, target: Target, model: str, credentials: Credentials) -> dict[str, Any]:
        """See ``MeasuredUser.preflight``."""
        stub, url = _stub(target, credentials), target.url

        def ask(method: Callable[..., Any], request: Any) -> Any:
            return method(request, timeout=_PREFLIGHT_TIMEOUT_S, metadata=credentials.metadata)

        try:
            server = ask(stub.ServerMetadata, service_pb2.ServerMetadataRequest())
            ready = ask(stub.ModelReady, service_pb2.ModelReadyRequest(name=model)).ready
            if not ready:
                raise EndpointError(
                    f"{url}: model {model!r} is not ready; wait until it is loaded, or choose another"
                )
            metadata = ask(stub.ModelMetadata, service_pb2.ModelMetadataRequest(name=model))
            config = None
            with contextlib.suppress(grpc.RpcError):  # a server may keep it to itself
                config = ask(stub.ModelConfig, service_pb2.ModelConfigRequest(name=model)).config
        except grpc.RpcError as error:
            raise EndpointError(
                f"{url}: no Triton answers there over gRPC ({error.details() or error.code()}); start a "
                "server (`trimaran serve REPOSITORY`) or give its address with --url grpc://host:port"
            ) from error
        check_outputs((output.name for output in metadata.outputs), model, url)
        return {
            "server": server.name,
            "server_version": server.version,
            "model_versions": list(metadata.versions),
            "model_config": config and MessageToDict(config, preserving_proto_field_name=True),
        }

    def send(self, request: Request, answer: Answer) -> None:
        """See ``MeasuredUser.send``."""
        message, credentials = _build_message(request, self.workload.model), self.workload.credentials
        call = _stream_infer(self.target, credentials)(
            message, timeout=self.workload.request_timeout_s, metadata=credentials.metadata
        )
        begun = False
        try:
            for response in call:
                seen_ns = answer.now()
                if response.error_message:
                    raise _stream_failure(response.error_message)
                begun = True
                # The status of the call comes after it, and gRPC takes milliseconds to say so.
                answer.ended_ns = seen_ns
                _take(response.infer_response, answer, seen_ns)
        except grpc.RpcError as error:
            raise _call_failure(error, begun) from error
        finally:
            with contextlib.suppress(Exception):
                call.cancel()  # nothing happens when it is done


@cache
def _stub(target: Target, credentials: Credentials) -> Any:
    """Return the stub on the channel that all users share.

    Raises:
        ConfigError: the URL is not one of gRPC.
    """
    return service_pb2_grpc.GRPCInferenceServiceStub(_channel(target, credentials))


@cache
def _stream_infer(target: Target, credentials: Credentials) -> Callable[..., Any]:
    """Return ``ModelStreamInfer`` for a single request.

    To the server it is the same call. Of a stream of requests gRPC would send each from a thread of its own,
    with a round through its queue for the message and one for the end of them.
    """
    return _channel(target, credentials).unary_stream(
        "/inference.GRPCInferenceService/ModelStreamInfer",
        request_serializer=service_pb2.ModelInferRequest.SerializeToString,
        response_deserializer=service_pb2.ModelStreamInferResponse.FromString,
    )


@cache
def _channel(target: Target, credentials: Credentials) -> grpc.Channel:
    if not target.scheme.startswith("grpc") or target.port is None:
        raise ConfigError(
            f"protocol grpc speaks gRPC and cannot use {target.url}; "
            f"give --url grpc://{target.host}:8001 (8001 is Triton's port for gRPC)"
        )
    if target.scheme == "grpcs":
        authorities = credentials.ca_file.read_bytes() if credentials.ca_file else None
        security = grpc.ssl_channel_credentials(root_certificates=authorities)
        channel = grpc.secure_channel(target.address, security, options=_OPTIONS)
    else:
        channel = grpc.insecure_channel(target.address, options=_OPTIONS)
    return channel


def _build_message(request: Request, model: str) -> Any:
    """Build a ModelInferRequest with a batch of one: every input has the shape [1, 1]."""
    message = service_pb2.ModelInferRequest(model_name=model)
    for name, value in request_inputs(request, stream=True):
        tensor = message.inputs.add(name=name, shape=[1, 1], datatype=datatype(name, value))
        values = getattr(tensor.contents, _CONTENTS[tensor.datatype])
        values.append(value.encode() if isinstance(value, str) else value)
    return message


def _take(response: Any, answer: Answer, seen_ns: int) -> None:
    """Read one ModelInferResponse. Raw tensors are little-endian; 4 bytes before a text are its length."""
    if not response.outputs:  # the empty final response that some clients ask for
        return
    raw = dict(zip((output.name for output in response.outputs), response.raw_output_contents, strict=False))
    if "output_ids" not in raw:
        raise RequestFailed(
            "malformed", f"a response without output_ids, only {', '.join(sorted(raw)) or 'nothing'}"
        )
    answer.add(
        seen_ns,
        tokens=len(raw["output_ids"]) // 4,
        text=_text(raw.get("text_output", b"")),
        finish_reason=_text(raw.get("finish_reason", b"")),
        prompt_tokens=_number(raw.get("prompt_tokens", b"")),
        completion_tokens=_number(raw.get("completion_tokens", b"")),
    )


def _number(raw: bytes) -> int | None:
    return int.from_bytes(raw[:4], "little") if raw else None


def _text(raw: bytes) -> str:
    return b"".join(_texts(raw)).decode("utf-8", "replace")


def _texts(raw: bytes) -> Iterator[bytes]:
    position = 0
    while position + 4 <= len(raw):
        length = int.from_bytes(raw[position : position + 4], "little")
        yield raw[position + 4 : position + 4 + length]
        position += 4 + length


def _stream_failure(message: str) -> RequestFailed:
    kind = "refused" if any(phrase in message for phrase in _SHED) else "stream_error"
    return RequestFailed(kind, message)


def _call_failure(error: grpc.RpcError, begun: bool) -> RequestFailed:
    code, detail = error.code(), f"{error.code().name}: {error.details()}"
    if code in _KINDS:
        return RequestFailed(_KINDS[code], detail)
    if code is grpc.StatusCode.UNAVAILABLE and any(phrase in detail for phrase in _SHED):
        return RequestFailed("refused", detail)
    if begun:
        return RequestFailed("truncated", detail)
    broke = code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
    return RequestFailed("unreachable" if broke else "5xx", detail)
