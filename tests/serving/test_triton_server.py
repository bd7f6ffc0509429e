"""A real Triton with a tiny model: start, swap, fail, stop, and never leave anything behind."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from checkpoints.errors import ServerError
from serving.triton_server import TritonServer
from tests.serving.conftest import write_version

ROOT = Path(__file__).parents[2]


def ask(http_url: str) -> str:
    body = json.dumps({"X": "anything"}).encode()
    request = urllib.request.Request(f"{http_url}/v2/models/toy/generate", data=body)
    with urllib.request.urlopen(request, timeout=30) as response:
        return str(json.load(response)["Y"])


def processes(word: str) -> list[int]:
    """Ids of live processes whose command line holds ``word``."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if word.encode() in (folder / "cmdline").read_bytes() and int(folder.name) != os.getpid():
                found.append(int(folder.name))
        except OSError:
            continue
    return found


def wait_until_gone(word: str, seconds: float) -> list[int]:
    deadline = time.monotonic() + seconds
    while (left := processes(word)) and time.monotonic() < deadline:
        time.sleep(0.05)
    return left


def spawn(code: str, *arguments: str) -> subprocess.Popen[str]:
    """Run ``code`` in a process of its own, as a user's program would."""
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        start_new_session=True,
    )


@pytest.mark.triton
def test_serves_swaps_and_stops(toy_repository: Path, tmp_path: Path) -> None:
    with TritonServer(toy_repository, log_file=tmp_path / "triton.log") as server:
        pid = server.pid
        assert ask(server.http_url) == "one"
        with urllib.request.urlopen(server.metrics_url, timeout=5) as metrics:
            assert b"nv_inference_count" in metrics.read()

        write_version(toy_repository, 2, answer="two")
        # What a cut export leaves is not a version.
        (toy_repository / "toy" / ".3.tmp-1").mkdir()
        with ThreadPoolExecutor(4) as pool:
            stop_at = time.monotonic() + 3
            asking = [pool.submit(_ask_until, server.http_url, stop_at) for _ in range(4)]
            server.load("toy")
            assert ask(server.http_url) == "two"
            answers = [answer for one in asking for answer in one.result()]
        assert set(answers) == {"one", "two"}, "a request failed, or none ran across the swap"

        write_version(toy_repository, 3, source="import not_a_module_of_anyone")
        with pytest.raises(ServerError, match="No module named 'not_a_module_of_anyone'"):
            server.load("toy")
        assert ask(server.http_url) == "two"
    assert not Path(f"/proc/{pid}").exists()
    assert processes(str(toy_repository)) == []
    assert not list(Path("/dev/shm").glob(f"trimaran-{os.getpid()}-*"))
    with pytest.raises(ServerError, match="not running"):
        _ = server.pid


def _ask_until(http_url: str, stop_at: float) -> list[str]:
    answers = []
    while time.monotonic() < stop_at:
        answers.append(ask(http_url))
    return answers


@pytest.mark.triton
def test_a_model_that_fails_shows_its_exception_and_the_log(tmp_path: Path) -> None:
    source = (
        "class TritonPythonModel:\n    def initialize(self, args):\n        raise ValueError('slots is -1')\n"
    )
    write_version(tmp_path / "repository", 1, source=source)
    log = tmp_path / "triton.log"
    with pytest.raises(ServerError) as caught, TritonServer(tmp_path / "repository", log_file=log):
        pass
    message = str(caught.value)
    assert "model 'toy' did not load: ValueError: slots is -1" in message
    assert "model.py(3): initialize" in message
    assert str(log) in message
    assert "slots is -1" in log.read_text()
    assert processes(str(tmp_path / "repository")) == []


@pytest.mark.triton
def test_giving_up_on_a_slow_start_does_not_wait_for_the_model(tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    source = (
        "import time\nclass TritonPythonModel:\n    def initialize(self, args):\n        time.sleep(120)\n"
    )
    write_version(repository, 1, source=source)
    began = time.monotonic()
    with pytest.raises(ServerError, match=r"toy not ready after 2 s; last log line: ."):
        TritonServer(repository, start_timeout=2).start()
    assert time.monotonic() - began < 30, "it should be killed, not drained"
    assert processes(str(repository)) == []
    assert not list(Path("/dev/shm").glob(f"trimaran-{os.getpid()}-*"))


OWNER = """
import sys, time
from pathlib import Path
from serving.triton_server import TritonServer
server = TritonServer(Path(sys.argv[1]))
server.start()
print(server.pid, server._guard.pid, server.http_url, flush=True)
time.sleep(600)
"""


@pytest.mark.triton
@pytest.mark.parametrize("victim", ["owner", "guard"])
def test_kill_9_leaves_no_process_and_no_shared_memory(toy_repository: Path, victim: str) -> None:
    owner = spawn(OWNER, str(toy_repository))
    try:
        assert owner.stdout is not None
        server_pid, guard_pid, url = owner.stdout.readline().split()
        assert ask(url) == "one"
        assert int(server_pid) in processes(str(toy_repository))
        stubs = _children(int(server_pid))
        assert stubs, "the Python stub should be a child of tritonserver"

        os.kill(owner.pid if victim == "owner" else int(guard_pid), signal.SIGKILL)
        deadline = time.monotonic() + 15
        while any(Path(f"/proc/{pid}").exists() for pid in stubs) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert [pid for pid in stubs if Path(f"/proc/{pid}").exists()] == []
        assert wait_until_gone(f"--model-repository={toy_repository}", 5) == []
        if victim == "owner":
            assert not list(Path("/dev/shm").glob(f"trimaran-{owner.pid}-*"))
    finally:
        owner.kill()
        owner.communicate()


def _children(pid: int) -> list[int]:
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        found += [int(word) for word in (task / "children").read_text().split()]
    return found


SERVE = """
import sys
from pathlib import Path
from serving.config import ServeConfig
from serving.serve import serve
config = ServeConfig(Path(sys.argv[1]), http_port=0, grpc_port=0, metrics_port=0)
serve(config, lambda line: print(line, flush=True))
"""


@pytest.mark.triton
def test_serve_drains_on_sigterm(tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    write_version(repository, 1, answer="late", delay=1.5)
    command = spawn(SERVE, str(repository))
    try:
        assert command.stdout is not None
        lines = []
        while not lines or "Ctrl-C" not in lines[-1]:
            lines.append(command.stdout.readline())
            assert lines[-1], "serve ended before it was ready"
        url = next(line for line in lines if line.startswith("HTTP")).split()[1]
        with ThreadPoolExecutor(1) as pool:
            answer = pool.submit(ask, url)
            time.sleep(0.5)
            command.terminate()
            assert answer.result() == "late"
        said, _ = command.communicate(timeout=40)
        assert "stopping" in said
        assert command.returncode == 0
        assert processes(str(repository)) == []
    finally:
        command.kill()
        command.communicate()


def test_a_port_that_is_taken_is_named(toy_repository: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ServerError, match=rf"port {port} on 127.0.0.1 cannot be used"):
            TritonServer(toy_repository, http_port=port).start()


@pytest.mark.parametrize(
    ("models", "message"),
    [(["missing"], "has no model missing; it holds toy"), ([], "has no model to load")],
)
def test_a_model_that_is_not_there_is_named(toy_repository: Path, models: list[str], message: str) -> None:
    with pytest.raises(ServerError, match=message):
        TritonServer(toy_repository, models=models)


def test_a_missing_repository_is_named(tmp_path: Path) -> None:
    with pytest.raises(ServerError, match=r"nowhere is no directory; `trimaran export`"):
        TritonServer(tmp_path / "nowhere")


def test_stopping_twice_or_before_the_start_is_harmless(toy_repository: Path) -> None:
    server = TritonServer(toy_repository)
    server.stop()
    server.stop()
    assert not server.running
    assert not server.ready("toy")
