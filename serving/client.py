"""A small client of the Triton model ``llm``, over gRPC, sync and async.

Each request is one ``ModelStreamInfer`` call on a shared channel: cancelling is per call, so leaving a stream
frees its slot in the engine and touches no other request.

    with TritonClient("127.0.0.1:8001") as client:
        print(client.generate(text="The sea is", max_tokens=16).text)
        for chunk in client.stream(messages=[{"role": "user", "content": "Hello"}]):
            print(chunk.text, end="")

A request whose server goes away before it answered is sent again (``serving.resend``), to the next server
where the address stands for several.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, Unpack

import grpc
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc

from checkpoints.errors import ServerError
from serving.grpc_call import OPTIONS, check_url, sender, take, translate
from serving.resend import Resending, check_patience
from serving.wire import Chunk, Generation, Message, Request, decode, encode, join

__all__ = ["AsyncStream", "AsyncTritonClient", "Chunk", "Generation", "Message", "Stream", "TritonClient"]

_PATIENCE_SECONDS = 5.0


class Stream:
    """The chunks of one answer; leaving it (``break``, ``with``, ``cancel``) cancels the request."""

    def __init__(
        self, call: Any, send: Callable[[float | None], Any], resending: Resending, url: str
    ) -> None:
        self._call = call
        self._send = send
        self._resending = resending
        self._url = url
        self._begun = self._finished = False
        self._cancelled = threading.Event()

    def __iter__(self) -> Iterator[Chunk]:
        return self

    def __next__(self) -> Chunk:
        """Return the next chunk.

        Raises:
            RequestError: the request is wrong.
            ServerError: the server refused it, failed, or is not there.
        """
        try:
            response = self._next()
        except StopIteration:
            if not self._finished:
                raise ServerError(
                    "the server ended the answer without a finish reason; see its log"
                ) from None
            raise
        self._begun = True
        chunk = decode(response.infer_response)
        self._finished = bool(chunk.finish_reason)
        return chunk

    def _next(self) -> Any:
        while True:
            try:
                return take(next(self._call))
            except grpc.RpcError as error:
                final = self._begun or self._cancelled.is_set()
                pause = None if final else self._resending.pause(error.code(), error.details() or "")
                if pause is None or self._cancelled.wait(pause):
                    raise translate(error, self._url) from error
            self._call.cancel()  # a stream that brought an error may be open still
            self._call = self._send(self._resending.timeout())
            if self._cancelled.is_set():  # meanwhile, by another thread
                self._call.cancel()

    def cancel(self) -> None:
        """Stop the request; nothing happens when it is over."""
        self._cancelled.set()
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
        timeout: seconds for one whole request, however often it is sent; None waits for ever.
        patience: seconds within which a request is sent again whose server went away before its first
            response; 0 never does. More than a restart takes sits one out.

    Raises:
        ServerError: ``url`` or ``patience`` is none.
    """

    def __init__(
        self,
        url: str,
        *,
        model: str = "llm",
        timeout: float | None = None,
        patience: float = _PATIENCE_SECONDS,
    ) -> None:
        self.url = check_url(url)
        self.model = model
        self.timeout = timeout
        self.patience = check_patience(patience)
        self._channel = grpc.insecure_channel(self.url, options=OPTIONS)
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
        send = sender(self._stub, encode(self.model, request, stream=stream))
        return Stream(send(self.timeout), send, Resending(self.patience, self.timeout), self.url)


class AsyncStream:
    """The chunks of one answer for ``async for``; leaving it or ``cancel`` cancels the request."""

    def __init__(
        self, call: Any, send: Callable[[float | None], Any], resending: Resending, url: str
    ) -> None:
        self._call = call
        self._send = send
        self._resending = resending
        self._url = url
        self._begun = self._finished = self._cancelled = False

    def __aiter__(self) -> AsyncStream:
        return self

    async def __anext__(self) -> Chunk:
        """Return the next chunk; raises as ``Stream.__next__`` does."""
        response = await self._next()
        if response is grpc.aio.EOF:
            if not self._finished:
                raise ServerError("the server ended the answer without a finish reason; see its log")
            raise StopAsyncIteration
        self._begun = True
        chunk = decode(response.infer_response)
        self._finished = bool(chunk.finish_reason)
        return chunk

    async def _next(self) -> Any:
        while True:
            try:
                response = await self._call.read()
                return response if response is grpc.aio.EOF else take(response)
            except grpc.RpcError as error:
                final = self._begun or self._cancelled
                pause = None if final else self._resending.pause(error.code(), error.details() or "")
                if pause is not None:
                    await asyncio.sleep(pause)
                if pause is None or self._cancelled:
                    raise translate(error, self._url) from error
            self._call.cancel()  # a stream that brought an error may be open still
            self._call = self._send(self._resending.timeout())

    def cancel(self) -> None:
        """Stop the request; nothing happens when it is over."""
        self._cancelled = True
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

    def __init__(
        self,
        url: str,
        *,
        model: str = "llm",
        timeout: float | None = None,
        patience: float = _PATIENCE_SECONDS,
    ) -> None:
        self.url = check_url(url)
        self.model = model
        self.timeout = timeout
        self.patience = check_patience(patience)
        self._channel = grpc.aio.insecure_channel(self.url, options=OPTIONS)
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
        send = sender(self._stub, encode(self.model, request, stream=stream))
        return AsyncStream(send(self.timeout), send, Resending(self.patience, self.timeout), self.url)
