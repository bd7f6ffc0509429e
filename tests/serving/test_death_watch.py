"""``serve`` ends when a model died, and only then."""

from __future__ import annotations

import shutil
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerFast

from checkpoints.errors import ServerError
from serving import health, serve
from serving.triton_log import engine_failure
from serving.triton_server import TritonServer
from tests.serving.endpoint import exported, post, sealed_llama, wait_until_alive

FAILURE = "trimaran.llm: model a: the engine failed: MemoryError: no KV; unloading the model\n"

# The fault: the engine's step raises as soon as two requests run.
FAULT = """

from serving.engine.process.engine import ProcessEngine

healthy_step = ProcessEngine.step


def failing_step(self):
    if self.counters.running >= 2:
        raise MemoryError("out of KV memory")
    return healthy_step(self)


ProcessEngine.step = failing_step
"""


@pytest.fixture(scope="module")
def version(tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer: PreTrainedTokenizerFast) -> Path:
    folder = tmp_path_factory.mktemp("death")
    checkpoint = sealed_llama(folder / "checkpoint", tiny_tokenizer)
    return exported(checkpoint, folder / "models", infer_model=False)


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A port that takes connections and never answers, as a machine that swaps does."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


class Watched:
    """A server that is seen ``looks`` times, its model dead for ``reasons``, the last one for ever."""

    models = ("llm",)
    log_file = Path("/nowhere")

    def __init__(self, reasons: list[str | None], looks: int) -> None:
        self._reasons = reasons
        self._looks = looks

    @property
    def running(self) -> bool:
        self._looks -= 1
        return self._looks >= 0

    def dead_reason(self, name: str) -> str | None:
        return self._reasons.pop(0) if len(self._reasons) > 1 else self._reasons[0]


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serve, "_WATCH_SECONDS", 0.02)
    monkeypatch.setattr(serve, "_DEATH_SECONDS", 0.2)


@pytest.mark.usefixtures("quick")
def test_one_bad_look_does_not_end_the_server() -> None:
    with pytest.raises(ServerError, match="tritonserver ended by itself"):
        serve._watch(Watched(["the metrics do not answer", None], looks=30))  # type: ignore[arg-type]


@pytest.mark.usefixtures("quick")
def test_a_death_that_lasts_ends_the_server() -> None:
    with pytest.raises(ServerError, match="model llm died: the engine failed"):
        serve._watch(Watched(["the engine failed"], looks=1000))  # type: ignore[arg-type]


def test_an_answer_that_is_no_http_is_a_reason_and_no_traceback() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()

        def answer() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(b"nonsense\r\n\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        reason = health.silent_reason("127.0.0.1", listener.getsockname()[1], "llm")
        thread.join()
    assert reason is not None
    assert "metrics do not answer" in reason


def test_metrics_that_never_come_are_a_reason(silent_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "_TIMEOUT", 0.2)
    assert "do not answer" in str(health.silent_reason("127.0.0.1", silent_port, "llm"))


@pytest.mark.parametrize(
    ("loaded", "beat", "silent"),
    [
        (0.0, 0.0, False),
        (-100.0, 0.0, True),
        (-1.0, 0.0, False),
        (-100.0, -1.0, False),
        (-100.0, -90.0, True),
    ],
    ids=["loading", "killed before its first beat", "just loaded", "alive", "killed"],
)
def test_silence_counts_from_the_load(
    loaded: float, beat: float, silent: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.time()
    values = {"loaded": loaded and now + loaded, "heartbeat": beat and now + beat}
    text = "".join(
        f'trimaran_{name}_timestamp_seconds{{model="llm",version="1"}} {value}\n'
        for name, value in values.items()
    )
    monkeypatch.setattr(health, "_get", lambda url: text)
    assert (health.silent_reason("127.0.0.1", 1, "llm") is not None) == silent


def test_a_failure_is_of_the_model_that_it_names(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text(FAILURE)
    assert engine_failure(log, "a") == "the engine failed: MemoryError: no KV"
    assert engine_failure(log, "b") is None
    # Versions exported before the line named its model.
    log.write_text(FAILURE.replace("model a: ", ""))
    assert engine_failure(log, "b") == "the engine failed: MemoryError: no KV"


def break_engine(server: TritonServer) -> None:
    """Make the engine fail, and wait until Triton calls the model not ready."""
    body = {"text_input": "The sea", "max_tokens": 1500, "ignore_eos": True}
    threads = [
        threading.Thread(target=post, args=(f"{server.http_url}/v2/models/llm/generate", body))
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    deadline = time.monotonic() + 20
    while server.ready("llm"):
        assert time.monotonic() < deadline, "still ready"
        time.sleep(0.05)


@pytest.mark.triton
def test_an_engine_that_died_ends_the_server_unless_it_is_loaded_again(
    version: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serve, "_DEATH_SECONDS", 1.0)
    models = tmp_path / "models"
    shutil.copytree(version.parents[1], models)
    code = models / "llm" / "1" / "model.py"
    healthy = code.read_text()
    code.write_text(healthy + FAULT)
    with TritonServer(models, exit_timeout=1) as server:
        break_engine(server)
        assert "out of KV memory" in str(server.dead_reason("llm"))

        # A load that takes longer than the watch waits: someone is mending it.
        code.write_text("import time\ntime.sleep(4)\n" + healthy + FAULT)
        loading = threading.Thread(target=server.load, args=("llm",))
        loading.start()
        time.sleep(1)
        assert server.dead_reason("llm") is None
        loading.join()
        assert server.dead_reason("llm") is None

        break_engine(server)
        with pytest.raises(ServerError, match=r"model llm died: the engine failed: .*out of KV memory"):
            serve._watch(server)


@pytest.mark.triton
def test_a_swap_does_not_end_the_server(
    version: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serve, "_WATCH_SECONDS", 0.05)
    monkeypatch.setattr(serve, "_DEATH_SECONDS", 0.0)
    models = tmp_path / "models"
    shutil.copytree(version.parents[1], models)
    ended: list[BaseException] = []

    def watch() -> None:
        try:
            serve._watch(server)
        except ServerError as error:
            ended.append(error)

    with TritonServer(models) as server:
        wait_until_alive(server)
        thread = threading.Thread(target=watch)
        thread.start()
        shutil.copytree(models / "llm" / "1", models / "llm" / "2")
        server.load("llm")
        time.sleep(1)
        assert thread.is_alive(), ended
    thread.join()
    assert "ended by itself" in str(ended)  # we stopped it
