"""A request whose server goes away is sent again, as long as no response of it has arrived."""

from __future__ import annotations

import asyncio
import struct
import threading
import time
from collections.abc import Callable, Iterator
from concurrent import futures
from typing import Any

import grpc
import pytest
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc

from checkpoints.errors import RequestError, ServerError
from serving import resend
from serving.client import AsyncTritonClient, TritonClient

LEAVING = (grpc.StatusCode.NOT_FOUND, "Request for unknown model: 'llm' has no available versions")
STOPPING = (
    grpc.StatusCode.UNAVAILABLE,
    "GRPC server is shutting down and has stopped accepting new requests",
)
FULL = (grpc.StatusCode.UNAVAILABLE, "[request id: <id_unknown>] Exceeds maximum queue size")
ENDED = (grpc.StatusCode.CANCELLED, "CANCELLED")
# As long as no pod of a headless Service is ready, its name leads nowhere. The second is that of older gRPC.
NAMELESS = (
    grpc.StatusCode.UNAVAILABLE,
    "errors resolving llm:8001: [field:hostname lookup error:"
    "address lookup failed for llm:8001: Domain name not found]",
)
UNRESOLVED = (
    grpc.StatusCode.UNAVAILABLE,
    "DNS resolution failed for llm:8001: C-ares status is not ARES_SUCCESS",
)
BROKEN = (grpc.StatusCode.UNAVAILABLE, "Stream removed (Socket closed)")
UNKNOWN = (grpc.StatusCode.NOT_FOUND, "Request for unknown model: 'llm' is not found")
WRONG = (grpc.StatusCode.INVALID_ARGUMENT, "you said refuse")

Status = tuple[grpc.StatusCode, str]


class Replica(service_pb2_grpc.GRPCInferenceServiceServicer):  # type: ignore[misc]
    """Answers with ``errors``, one for each request, and after them with its name.

    ``inside`` are errors that come inside a response, as Triton 2.51 sends them; ``late`` ends answers after
    their first chunk; ``delay`` are seconds before each, until ``over`` is set.
    """

    def __init__(self) -> None:
        self.errors: list[Status] = []
        self.inside: list[str] = []
        self.always: Status | None = None
        self.delay = 0.0
        self.over = threading.Event()
        self.late: Status | None = None
        self.seeds: list[bytes] = []
        self.url = ""

    def ModelStreamInfer(self, requests: Any, context: Any) -> Iterator[Any]:
        request = next(requests)
        names = [tensor.name for tensor in request.inputs]
        self.seeds.append(request.raw_input_contents[names.index("seed")])
        self.over.wait(self.delay)
        if self.inside:
            yield pb.ModelStreamInferResponse(error_message=self.inside.pop(0))
            return
        if error := self.always or (self.errors.pop(0) if self.errors else None):
            context.abort(*error)
        yield response("one ", "")
        if self.late:
            context.abort(*self.late)
        yield response("two", "stop")


def response(text: str, finish: str) -> Any:
    answer = pb.ModelInferResponse(model_name="llm")
    for name, value in (("text_output", text), ("finish_reason", finish)):
        output = answer.outputs.add()
        output.name, output.datatype = name, "BYTES"
        output.shape.extend([1, 1])
        answer.raw_output_contents.append(struct.pack("<I", len(value)) + value.encode())
    return pb.ModelStreamInferResponse(infer_response=answer)


@pytest.fixture
def start() -> Iterator[Callable[..., Any]]:
    servers: list[Any] = []

    def serve(replica: Replica, port: int = 0) -> Any:
        server = grpc.server(futures.ThreadPoolExecutor(4))
        service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(replica, server)
        replica.url = f"127.0.0.1:{server.add_insecure_port(f'127.0.0.1:{port}')}"
        server.start()
        servers.append(server)
        return server

    yield serve
    for server in servers:
        server.stop(None)


@pytest.fixture
def replica(start: Callable[..., Any]) -> Replica:
    one = Replica()
    start(one)
    return one


def generate(replica: Replica, **options: Any) -> str:
    with TritonClient(replica.url, timeout=20, **options) as client:
        return client.generate(text="a").text


def generate_async(replica: Replica, **options: Any) -> str:
    async def ask() -> str:
        async with AsyncTritonClient(replica.url, timeout=20, **options) as client:
            return (await client.generate(text="a")).text

    return asyncio.run(ask())


both = pytest.mark.parametrize("ask", [generate, generate_async])


@both
def test_a_server_that_leaves_is_asked_again(replica: Replica, ask: Callable[..., str]) -> None:
    replica.errors = [LEAVING, STOPPING, LEAVING, BROKEN]
    assert ask(replica) == "one two"
    assert len(replica.seeds) == 5
    assert len(set(replica.seeds)) == 1, "sent again it is the same request"


@both
def test_an_error_inside_a_response_is_looked_at_too(replica: Replica, ask: Callable[..., str]) -> None:
    replica.inside = [LEAVING[1], LEAVING[1]]
    assert ask(replica) == "one two"
    replica.inside = ["Expected content in request"]
    with pytest.raises(ServerError, match="Expected content"):
        ask(replica)
    assert len(replica.seeds) == 4


@both
@pytest.mark.parametrize("error", [FULL, UNKNOWN, WRONG], ids=["full", "unknown", "wrong"])
def test_an_answer_is_an_answer(replica: Replica, ask: Callable[..., str], error: Status) -> None:
    """A full queue, an unknown model, a wrong request: sent again it would only be more load."""
    replica.errors = [error]
    with pytest.raises((ServerError, RequestError), match=error[1].rpartition(" ")[2]):
        ask(replica)
    assert len(replica.seeds) == 1


@both
@pytest.mark.parametrize("error", [BROKEN, ENDED], ids=["broken", "ended"])
def test_a_connection_that_broke_is_tried_once_more(
    replica: Replica, ask: Callable[..., str], error: Status
) -> None:
    """The request itself may be what breaks it, and must not go through all replicas."""
    replica.always = error
    with pytest.raises(ServerError):
        ask(replica)
    assert len(replica.seeds) == 2


@both
def test_a_name_that_leads_nowhere_is_asked_for_again(replica: Replica, ask: Callable[..., str]) -> None:
    replica.errors = [NAMELESS, NAMELESS, UNRESOLVED]
    assert ask(replica, patience=20) == "one two"
    assert len(replica.seeds) == 4


def test_what_grpc_says_of_such_a_name() -> None:
    """A name of the top-level domain that never resolves (RFC 6761); without any DNS it says the same."""
    with grpc.insecure_channel("trimaran.invalid:8001") as channel, pytest.raises(grpc.RpcError) as caught:
        channel.unary_unary("/a/b")(b"", timeout=20)
    if caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
        pytest.skip("this machine's DNS does not answer")
    assert any(text in caught.value.details().lower() for text in resend._NOT_BEGUN)


def test_a_client_that_is_closed_sends_nothing_again(replica: Replica) -> None:
    replica.delay = 20
    client = TritonClient(replica.url)
    stream = client.stream(text="a")
    threading.Timer(0.3, client.close).start()
    with pytest.raises(ServerError, match="cancelled"):
        next(stream)
    replica.over.set()


@both
def test_patience_has_an_end(replica: Replica, ask: Callable[..., str]) -> None:
    replica.always = LEAVING
    with pytest.raises(ServerError, match="no available versions"):
        ask(replica, patience=2)
    # After pauses of 50 ms, 100 ms and so on, on a machine that is as slow as it likes.
    sent = len(replica.seeds)
    assert 2 <= sent <= 20
    with pytest.raises(ServerError, match="no available versions"):
        ask(replica, patience=0)
    assert len(replica.seeds) == sent + 1


def test_an_answer_that_began_is_not_sent_again(replica: Replica) -> None:
    replica.late = LEAVING
    with TritonClient(replica.url) as client:
        stream = client.stream(text="a")
        assert next(stream).text == "one "
        with pytest.raises(ServerError, match="no available versions"):
            next(stream)

    async def ask() -> None:
        async with AsyncTritonClient(replica.url) as client:
            stream = client.stream(text="a")
            assert (await anext(stream)).text == "one "
            with pytest.raises(ServerError, match="no available versions"):
                await anext(stream)

    asyncio.run(ask())
    assert len(replica.seeds) == 2


def test_all_attempts_share_the_timeout(replica: Replica) -> None:
    replica.always = LEAVING
    began = time.monotonic()
    with TritonClient(replica.url, timeout=0.3, patience=600) as client, pytest.raises(ServerError):
        client.generate(text="a")
    assert time.monotonic() - began < 60


def test_cancelling_ends_the_attempts(replica: Replica) -> None:
    replica.always = LEAVING
    with TritonClient(replica.url, patience=600) as client:
        stream = client.stream(text="a")
        threading.Timer(0.3, stream.cancel).start()
        with pytest.raises(ServerError):
            next(stream)


@both
def test_a_server_that_comes_back_is_waited_for(start: Callable[..., Any], ask: Callable[..., str]) -> None:
    replica = Replica()
    start(replica).stop(None).wait()
    back = threading.Timer(0.5, start, (replica, int(replica.url.rpartition(":")[2])))
    back.start()
    assert ask(replica, patience=15) == "one two"
    back.join()


@pytest.mark.parametrize("client", [TritonClient, AsyncTritonClient])
@pytest.mark.parametrize("patience", [-1, float("nan"), float("inf")])
def test_patience_must_be_seconds(client: Any, patience: float) -> None:
    with pytest.raises(ServerError, match="patience is"):
        client("127.0.0.1:1", patience=patience)
