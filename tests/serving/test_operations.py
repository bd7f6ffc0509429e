"""Running a server for long: closed admin APIs, versions swapped under load, a model that died."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

import grpc
import pytest
from transformers import PreTrainedTokenizerFast
from tritonclient.grpc import service_pb2, service_pb2_grpc

from checkpoints.errors import ConfigError, ServerError
from serving import health, serve
from serving.admin_key import HTTP_HEADER, make_key, read_key
from serving.client import TritonClient
from serving.config import LoadConfig
from serving.load import load
from serving.log_echo import LogEcho
from serving.triton_server import TritonServer
from tests.serving.endpoint import exported, post, sealed_llama, wait_until_alive

pytestmark = pytest.mark.triton


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer: PreTrainedTokenizerFast) -> Path:
    """Two versions of different models, so that an answer tells which one gave it."""
    folder = tmp_path_factory.mktemp("operations")
    for seed in (1, 2):
        checkpoint = sealed_llama(folder / f"checkpoint-{seed}", tiny_tokenizer, seed=seed)
        exported(checkpoint, folder / "models")
    return folder / "models"


def only_first(repository: Path, target: Path) -> Path:
    shutil.copytree(repository, target)
    shutil.rmtree(target / "llm" / "2")
    return target


def text(server: TritonServer) -> str:
    status, answer = post(
        f"{server.http_url}/v2/models/llm/generate",
        {"text_input": "The sea", "max_tokens": 8, "ignore_eos": True},
    )
    assert status == 200, answer
    return str(answer["output_ids"])


def test_a_key_is_made_once_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "key"
    key = make_key(path)
    assert len(key) >= 24
    assert path.stat().st_mode & 0o777 == 0o600
    assert make_key(path) == read_key(path) == key
    path.write_text("\n")
    with pytest.raises(ServerError, match="one word"):
        read_key(path)
    with pytest.raises(ServerError, match="cannot be read"):
        read_key(tmp_path / "none")


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", "schl\u00fcssel".encode(), b"a\x07b"])
def test_a_key_that_no_header_can_carry_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "key"
    path.write_bytes(content)
    with pytest.raises(ServerError, match=r"admin_key_file .*key must hold one word"):
        read_key(path)


@pytest.mark.parametrize("url", ["http://h:port", "http://h:70000", "https://h:8000", "http://"])
def test_a_url_that_is_none_is_named(url: str) -> None:
    with pytest.raises(ConfigError, match=r"url is .*accepted: http://host:port"):
        load(LoadConfig(url=url))


def stream(client: TritonClient) -> str:
    """Ask as ``text`` does, in a stream."""
    chunks = list(client.stream(text="The sea", max_tokens=8, ignore_eos=True))
    return str([token for chunk in chunks for token in chunk.output_ids])


def grpc_code(server: TritonServer, method: str, request: object, key: str | None = None) -> grpc.StatusCode:
    metadata = [] if key is None else [(f"triton-grpc-protocol-{HTTP_HEADER}", key)]
    with grpc.insecure_channel(server.grpc_url) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        try:
            getattr(stub, method)(request, metadata=metadata, timeout=20)
        except grpc.RpcError as error:
            code: grpc.StatusCode = error.code()
            return code
    return grpc.StatusCode.OK


def check_what_is_open(server: TritonServer, key: str) -> None:
    """The four admin APIs ask for the key over both protocols; what clients and probes need does not."""
    model = service_pb2.ModelMetadataRequest(name="llm")
    closed = {
        "RepositoryIndex": service_pb2.RepositoryIndexRequest(),
        "RepositoryModelUnload": service_pb2.RepositoryModelUnloadRequest(model_name="none"),
        "SystemSharedMemoryStatus": service_pb2.SystemSharedMemoryStatusRequest(),
        "TraceSetting": service_pb2.TraceSettingRequest(),
        "LogSettings": service_pb2.LogSettingsRequest(),
    }
    for method, request in closed.items():
        assert grpc_code(server, method, request) == grpc.StatusCode.UNAVAILABLE, method
        assert grpc_code(server, method, request, "wrong") == grpc.StatusCode.UNAVAILABLE, method
    assert grpc_code(server, "RepositoryIndex", closed["RepositoryIndex"], key) == grpc.StatusCode.OK
    opened = {
        "ServerReady": service_pb2.ServerReadyRequest(),
        "ModelMetadata": model,
        "ModelConfig": service_pb2.ModelConfigRequest(name="llm"),
        "ModelStatistics": service_pb2.ModelStatisticsRequest(name="llm"),
    }
    for method, request in opened.items():
        assert grpc_code(server, method, request) == grpc.StatusCode.OK, method
    for path, status in {
        "systemsharedmemory/status": 403,
        "trace/setting": 403,
        "logging": 403,
        "health/ready": 200,
        "models/llm/config": 200,
        "models/llm/stats": 200,
    }.items():
        try:
            with urllib.request.urlopen(f"{server.http_url}/v2/{path}", timeout=20) as answer:
                found = answer.status
        except urllib.error.HTTPError as error:
            found = error.code
        assert found == status, path


def test_swap_and_rollback_under_load_with_closed_admin_apis(repository: Path, tmp_path: Path) -> None:
    models = only_first(repository, tmp_path / "models")
    key_file = tmp_path / "key"
    key = make_key(key_file)
    with TritonServer(models, admin_key=key) as server:
        assert key not in server.log_file.read_text()
        admin = f"{server.http_url}/v2/repository"
        for path in ("index", "models/llm/load", "models/llm/unload"):
            assert post(f"{admin}/{path}", {})[0] == 403, path
        check_what_is_open(server, key)
        with pytest.raises(ServerError, match="--admin-key-file"):
            load(LoadConfig(url=server.http_url))
        first = text(server)

        texts: list[str] = []
        failures: list[BaseException] = []
        over = threading.Event()

        def ask(streaming: bool) -> None:
            with TritonClient(server.grpc_url) as client:
                while not over.is_set():
                    try:
                        texts.append(stream(client) if streaming else text(server))
                    except BaseException as error:
                        failures.append(error)

        threads = [threading.Thread(target=ask, args=(number > 0,)) for number in range(4)]
        for thread in threads:
            thread.start()
        try:
            shutil.copytree(repository / "llm" / "2", models / "llm" / "2")
            assert load(LoadConfig(url=server.http_url, admin_key_file=key_file)) == [2]
            second = text(server)
            assert load(LoadConfig(url=server.http_url, admin_key_file=key_file, version=1)) == [1]
            assert text(server) == first
            since_rollback = len(texts)
            time.sleep(0.5)
            # Nothing was written since the rollback, which Triton alone takes for nothing to do.
            until = len(texts)
            assert load(LoadConfig(url=server.http_url, admin_key_file=key_file)) == [2]
            assert text(server) == second
        finally:
            over.set()
            for thread in threads:
                thread.join()
        assert not failures
        assert first != second
        assert set(texts) == {first, second}
        # What was in flight at the rollback may be the other version's, however late it comes: one answer of
        # each thread at most.
        assert texts[since_rollback:until].count(second) <= len(threads)

        with pytest.raises(ServerError, match=r"no version 7 .*loaded so far: 1, 2"):
            load(LoadConfig(url=server.http_url, admin_key_file=key_file, version=7))
        assert text(server) == second
    assert HTTP_HEADER in server.log_file.read_text()


def test_a_model_whose_process_was_killed_ends_the_server(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "HEARTBEAT_SECONDS", 2.0)
    monkeypatch.setattr(serve, "_DEATH_SECONDS", 1.0)
    with TritonServer(repository, models=["llm"], exit_timeout=1) as server:
        wait_until_alive(server)
        stub = next(
            pid
            for pid in subprocess.check_output(["pgrep", "-P", str(server.pid)], text=True).split()
            if "python_backend_stub" in Path(f"/proc/{pid}/cmdline").read_text()
        )
        os.kill(int(stub), signal.SIGKILL)
        begin = time.monotonic()
        with pytest.raises(ServerError, match=r"model llm died: .*not been heard"):
            serve._watch(server)
        assert time.monotonic() - begin < 30


def test_a_model_that_an_operator_unloaded_is_left_alone(repository: Path) -> None:
    with TritonServer(repository, models=["llm"]) as server:
        server.unload("llm")
        deadline = time.monotonic() + 10
        while server.ready("llm"):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert server.dead_reason("llm") is None


def test_an_echo_loses_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "log"
    path.write_text("of an earlier run\n")
    with LogEcho(path), path.open("w") as file:
        for number in range(200):
            file.write(f"line {number}\n")
            file.flush()
        time.sleep(0.5)
        file.write("the last\n")
    assert capfd.readouterr().err == "".join(f"line {number}\n" for number in range(200)) + "the last\n"


def test_an_echo_keeps_a_character_that_came_in_two_writes(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "log"
    with LogEcho(path), path.open("wb", buffering=0) as file:
        file.write(b"caf\xc3")
        time.sleep(0.6)
        file.write(b"\xa9\n")
    assert capfd.readouterr().err == "caf\u00e9\n"


def test_an_echo_removes_no_file(tmp_path: Path) -> None:
    """The log may be a device or a link, such as ``/dev/stdout``."""
    target = tmp_path / "target"
    target.write_text("")
    (tmp_path / "log").symlink_to(target)
    with LogEcho(tmp_path / "log"):
        pass
    assert (tmp_path / "log").is_symlink()


def test_serve_echoes_and_obeys_a_signal(repository: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "trimaran", "serve", str(repository), "--models", "llm", "--echo-log"]
    command += ["--http-port", "0", "--grpc-port", "0", "--metrics-port", "0"]
    command += ["--log-file", str(tmp_path / "log"), "--admin-key-file", str(tmp_path / "key")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        for line in process.stdout:
            if line.startswith("Ctrl-C"):
                break
        process.send_signal(signal.SIGTERM)
        said = process.communicate(timeout=60)[1]
    finally:
        process.kill()
    assert process.returncode == 0
    assert "successfully loaded 'llm'" in said
    assert read_key(tmp_path / "key") not in said
    # So that clients look for other servers before one is stopped.
    assert "--grpc-max-connection-age=10000" in (tmp_path / "log").read_text()
