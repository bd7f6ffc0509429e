"""Two servers restarted one after the other under load: who loses requests, and who does not."""

from __future__ import annotations

import json
import shutil
import threading
import time
import urllib.error
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from serving.client import TritonClient
from serving.config import ExportConfig
from serving.ports import choose_ports
from serving.triton_config import model_config, render
from serving.triton_server import TritonServer
from tests.deploy.monitoring.tools import require
from tests.serving.page_proxy import post, proxy

pytestmark = [pytest.mark.triton, pytest.mark.timeout(300)]

GRPC = ("patient client", "client without patience")
HTTP = ("proxy of the page", "proxy without retries")
EXIT_SECONDS = 60


@dataclass
class Load:
    """What came of the requests that one client sent."""

    answered: int = 0
    failed: list[str] = field(default_factory=list)


@dataclass
class Rolled:
    """Both servers were restarted."""

    loads: dict[str, Load]
    logs: list[str]
    connections: set[int]


@pytest.fixture(scope="module")
def rolled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rolled]:
    """Two servers that were restarted in turn, while each kind of client sent requests all the time.

    The loads of HTTP are missing where there is no HAProxy.
    """
    folder = tmp_path_factory.mktemp("rolling")
    version = folder / "models" / "llm" / "1"
    version.mkdir(parents=True)
    config = ExportConfig(Path("unused"), folder / "models")
    (version.parent / "config.pbtxt").write_text(render(model_config(config)))
    shutil.copy(Path(__file__).with_name("echo_model.py"), version / "model.py")
    ports = choose_ports("127.0.0.1", (0,) * 8)
    servers = [server(folder, name, ports[at : at + 3]) for name, at in (("a", 0), ("b", 3))]
    loads = {name: Load() for name in GRPC}
    logs: list[str] = []
    over = threading.Event()
    with ExitStack() as stack:
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(lambda one: one.start(), servers))
        stack.callback(stop_both, servers)
        address = "ipv4:" + ",".join(one.grpc_url for one in servers)
        patient = stack.enter_context(TritonClient(address, timeout=60, patience=60))
        hasty = stack.enter_context(TritonClient(address, timeout=60, patience=0))
        senders = [
            (loads[name], lambda text, client=client: client.generate(text=text).text)
            for name, client in zip(GRPC, (patient, hasty), strict=True)
        ]
        if haproxy := shutil.which("haproxy"):
            loads |= {name: Load() for name in HTTP}
            http = [one.http_url.removeprefix("http://") for one in servers]
            stack.enter_context(proxy(haproxy, folder, http, ports[6:]))
            senders += [
                (loads[name], lambda text, port=port: post(port, text))
                for name, port in zip(HTTP, ports[6:], strict=True)
            ]
        # "slow" is in flight when a server is told to stop.
        threads = [
            threading.Thread(target=send, args=(*sender, text, over))
            for sender in senders
            for text in ("quick", "slow")
        ]
        for thread in threads:
            thread.start()
        try:
            connections = grpc_connections(servers[0])
            for one in servers:
                time.sleep(1.5)
                one.stop()
                logs.append(one.log_file.read_text(encoding="utf-8", errors="replace"))
                one.start()
            time.sleep(1.5)
        finally:
            over.set()
            for thread in threads:
                thread.join(90)
        assert not any(thread.is_alive() for thread in threads), "a request hangs"
        yield Rolled(loads, logs, connections)


def grpc_connections(server: TritonServer) -> set[int]:
    """Client ports of the connections to a server, seen until there were three, for a minute at most."""
    port = int(server.grpc_url.rpartition(":")[2])
    seen: set[int] = set()
    deadline = time.monotonic() + 60
    while len(seen) < 3 and time.monotonic() < deadline:
        for table in ("/proc/net/tcp", "/proc/net/tcp6"):
            for line in Path(table).read_text().splitlines()[1:]:
                _, ours, theirs, state, *_ = line.split()
                if state == "01" and int(theirs.rpartition(":")[2], 16) == port:
                    seen.add(int(ours.rpartition(":")[2], 16))
        time.sleep(0.1)
    return seen


def stop_both(servers: list[TritonServer]) -> None:
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda one: one.stop(), servers))


def server(folder: Path, name: str, ports: list[int]) -> TritonServer:
    return TritonServer(
        folder / "models",
        http_port=ports[0],
        grpc_port=ports[1],
        metrics_port=ports[2],
        threads=1,
        exit_timeout=EXIT_SECONDS,
        log_file=folder / f"{name}.log",
        # As `trimaran serve` does, but oftener.
        extra_arguments=["--grpc-max-connection-age=1000"],
    )


def send(load: Load, ask: Callable[[str], str], text: str, over: threading.Event) -> None:
    while not over.is_set():
        try:
            assert json.loads(ask(text))["text_input"] == [text]
            load.answered += 1
        except Exception as error:
            detail = error.read()[:200] if isinstance(error, urllib.error.HTTPError) else b""
            load.failed.append(f"{type(error).__name__}: {error} {detail!r}")
        time.sleep(0.02)


def test_our_client_loses_nothing(rolled: Rolled) -> None:
    assert rolled.loads[GRPC[0]].failed == []
    assert rolled.loads[GRPC[0]].answered > 5


def test_without_patience_requests_fail(rolled: Rolled) -> None:
    assert any("no available versions" in reason for reason in rolled.loads[GRPC[1]].failed)


def test_http_behind_the_proxy_of_the_page_loses_nothing(rolled: Rolled) -> None:
    require("haproxy")
    assert rolled.loads[HTTP[0]].failed == []
    assert rolled.loads[HTTP[0]].answered > 5


def test_without_checks_and_retries_requests_fail(rolled: Rolled) -> None:
    require("haproxy")
    assert any("503" in reason for reason in rolled.loads[HTTP[1]].failed)


def test_connections_are_replaced_and_no_request_is_cut(rolled: Rolled) -> None:
    """With an age of 1 s, looked at for up to a minute: two clients have two, unless some are replaced.

    The requests of ``test_our_client_loses_nothing`` ran meanwhile.
    """
    assert len(rolled.connections) >= 3


def test_no_connection_held_a_server(rolled: Rolled) -> None:
    """An idle one would: until the exit timeout, when everything is cut."""
    assert len(rolled.logs) == 2
    assert not any("Exit timeout expired" in log for log in rolled.logs)
