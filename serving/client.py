"""A small client of the Triton model ``llm``, over gRPC, sync and async.

Each request is one ``ModelStreamInfer`` call on a shared channel: cancelling is per call, so leaving a stream
frees its slot in the engine and touches no other request.

    with TritonClient("127.0.0.1:8001") as client:
        print(client.generate(text="The sea is", max_tokens=16).text)
        for chunk in client.stream(messages=[{"role": "user", "content": "Hello"}]):
            print(chunk.text, end="")
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Unpack

import grpc
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc

from checkpoints.errors import RequestError, ServerError, ServingError
from serving.wire import Chunk, Generation, Message, Request, decode, encode, join

__all__ = ["AsyncStream", "AsyncTritonClient", "Chunk", "Generation", "Message", "Stream", "TritonClient"]

# Errors as gRPC status codes instead of bare texts, so that a wrong request is told from a server's trouble.
_METADATA = (("triton_grpc_error", "true"),)
_OPTIONS = (
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    # A name that stands for several servers (a headless Service): each request goes to the next one.
    ("grpc.lb_policy_name", "round_robin"),
)
_CALLERS_FAULT = (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.OUT_OF_RANGE)


class Stream:
    """The chunks of one answer; leaving it (``break``, ``with``, ``cancel``) cancels the request."""

    def __init__(self, call: Any, url: str) -> None:
        self._call = call
        self._url = url
        self._finished = False

    def __iter__(self) -> Iterator[Chunk]:
        return self

    def __next__(self) -> Chunk:
        """Return the next chunk.

        Raises:
            RequestError: the request is wrong.
            ServerError: the server refused it, failed, or is not there.
        """
        try:
            chunk = _chunk(next(self._call))
        except grpc.RpcError as error:
            raise _translate(error, self._url) from error
        except StopIteration:
            if not self._finished:
                raise ServerError(
                    "the server ended the answer without a finish reason; see its log"
                ) from None
            raise
        self._finished = bool(chunk.finish_reason)
        return chunk

    def cancel(self) -> None:
        """Stop the request; nothing happens when it is over."""
        self._call.cancel()

    def __enter__(self) -> Stream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.cancel()

    def __del__(self) -> None:
        self.cancel()


class TritonClient:
    """Blocking client; safe to share between threads.

    Args:
        url: ``host:port`` of Triton's gRPC service.
        model: the model's name.
        timeout: seconds for one whole request; None waits for ever.
    """

    def __init__(self, url: str, *, model: str = "llm", timeout: float | None = None) -> None:
        self.url = check_url(url)
        self.model = model
        self.timeout = timeout
        self._channel = grpc.insecure_channel(self.url, options=_OPTIONS)
        self._stub = service_pb2_grpc.GRPCInferenceServiceStub(self._channel)

    def generate(self, **request: Unpack[Request]) -> Generation:
        """Return the whole answer to one request (fields: ``serving.wire.Request``).

        Raises:
            RequestError: the request is wrong.
            ServerError: the server refused it (queue full), failed, or is not there.
        """
        with self._start(request, stream=False) as stream:
            return join(list(stream))

    def stream(self, **request: Unpack[Request]) -> Stream:
        """Return the answer chunk by chunk. Errors come from iterating it."""
        return self._start(request, stream=True)

    def ready(self) -> bool:
        """Return whether the model answers requests now."""
        try:
            reply = self._stub.ModelReady(pb.ModelReadyRequest(name=self.model), timeout=5.0)
        except grpc.RpcError:
            return False
        return bool(reply.ready)

    def close(self) -> None:
        """Close the channel; open streams end with an error."""
        self._channel.close()

    def __enter__(self) -> TritonClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _start(self, request: Request, *, stream: bool) -> Stream:
        message = encode(self.model, request, stream=stream)
        call = self._stub.ModelStreamInfer(iter([message]), metadata=_METADATA, timeout=self.timeout)
        return Stream(call, self.url)


class AsyncStream:
    """The chunks of one answer for ``async for``; leaving it or ``cancel`` cancels the request."""

    def __init__(self, call: Any, url: str) -> None:
        self._call = call
        self._url = url
        self._finished = False

    def __aiter__(self) -> AsyncStream:
        return self

    async def __anext__(self) -> Chunk:
        """Return the next chunk; raises as ``Stream.__next__`` does."""
        try:
            response = await self._call.read()
        except grpc.RpcError as error:
            raise _translate(error, self._url) from error
        if response is grpc.aio.EOF:
            if not self._finished:
                raise ServerError("the server ended the answer without a finish reason; see its log")
            raise StopAsyncIteration
        chunk = _chunk(response)
        self._finished = bool(chunk.finish_reason)
        return chunk

    def cancel(self) -> None:
        """Stop the request; nothing happens when it is over."""
        self._call.cancel()

    async def __aenter__(self) -> AsyncStream:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.cancel()

    def __del__(self) -> None:
        # `break` drops us, but grpc's own tasks keep the call alive. The loop may be closed by now.
        with contextlib.suppress(RuntimeError):
            self.cancel()


class AsyncTritonClient:
    """The same for asyncio; use it within one event loop."""

    def __init__(self, url: str, *, model: str = "llm", timeout: float | None = None) -> None:
        self.url = check_url(url)
        self.model = model
        self.timeout = timeout
        self._channel = grpc.aio.insecure_channel(self.url, options=_OPTIONS)
        self._stub = service_pb2_grpc.GRPCInferenceServiceStub(self._channel)

    async def generate(self, **request: Unpack[Request]) -> Generation:
        """Return the whole answer; raises as ``TritonClient.generate`` does."""
        async with self._start(request, stream=False) as stream:
            return join([chunk async for chunk in stream])

    def stream(self, **request: Unpack[Request]) -> AsyncStream:
        """Return the answer chunk by chunk, for ``async for``."""
        return self._start(request, stream=True)

    async def ready(self) -> bool:
        """Return whether the model answers requests now."""
        try:
            reply = await self._stub.ModelReady(pb.ModelReadyRequest(name=self.model), timeout=5.0)
        except grpc.RpcError:
            return False
        return bool(reply.ready)

    async def close(self) -> None:
        """Close the channel; open streams end with an error."""
        await self._channel.close()

    async def __aenter__(self) -> AsyncTritonClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def _start(self, request: Request, *, stream: bool) -> AsyncStream:
        message = encode(self.model, request, stream=stream)
        call = self._stub.ModelStreamInfer(iter([message]), metadata=_METADATA, timeout=self.timeout)
        return AsyncStream(call, self.url)


def check_url(url: str) -> str:
    """Return ``host:port`` of a gRPC endpoint.

    Raises:
        ServerError: the url has another form.
    """
    host = url.removeprefix("grpc://").rstrip("/")
    name, _, port = host.rpartition(":")
    if "/" in host or not name or not port.isdigit() or not 0 < int(port) < 65536:
        raise ServerError(f"{url!r} is no gRPC endpoint; give host:port, for example 127.0.0.1:8001")
    return host


def _chunk(response: Any) -> Chunk:
    if response.error_message:  # a server too old for status codes on a stream
        raise ServerError(response.error_message)
    return decode(response.infer_response)


def _translate(error: Any, url: str) -> ServingError:
    code, details = error.code(), error.details() or "no details"
    if code in _CALLERS_FAULT:
        return RequestError(details)
    if code is grpc.StatusCode.CANCELLED:
        return ServerError("the request was cancelled")
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return ServerError(f"no answer from {url} in time: {details}")
    if code is grpc.StatusCode.UNAVAILABLE and "connect" in details.lower():
        return ServerError(f"nobody answers at {url}: {details}; is the server running (trimaran serve)?")
    return ServerError(details)
