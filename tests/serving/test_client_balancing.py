"""A client whose address stands for several servers spreads its requests over them."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent import futures
from typing import Any

import grpc
import pytest
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc

from serving.client import TritonClient


class Replica(service_pb2_grpc.GRPCInferenceServiceServicer):  # type: ignore[misc]
    """Says that the model is ready, and counts how often it was asked."""

    asked = 0

    def ModelReady(self, request: Any, context: Any) -> Any:
        self.asked += 1
        return pb.ModelReadyResponse(ready=True)


@pytest.fixture
def replicas() -> Iterator[dict[str, Replica]]:
    servers: list[Any] = []
    found: dict[str, Replica] = {}
    for _ in range(2):
        replica = Replica()
        server = grpc.server(futures.ThreadPoolExecutor(2))
        service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(replica, server)
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        servers.append(server)
        found[f"127.0.0.1:{port}"] = replica
    yield found
    for server in servers:
        server.stop(None)


def test_requests_go_to_each_replica_in_turn(replicas: dict[str, Replica]) -> None:
    with TritonClient(f"ipv4:{','.join(replicas)}") as client:
        for _ in range(20):
            assert client.ready()
    # The first ones may all go to the replica whose connection stood first.
    assert all(replica.asked >= 5 for replica in replicas.values()), [one.asked for one in replicas.values()]
