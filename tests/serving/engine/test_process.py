"""An engine in a process of its own: what happens when either end goes away."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerFast

from checkpoints.errors import RequestError, ServingError
from checkpoints.manifest import read_manifest
from serving.engine.config import EngineConfig
from serving.engine.contract import Engine
from serving.engine.loop import EngineFailure, EngineLoop
from serving.engine.process.engine import ProcessEngine
from serving.engine.registry import load_engine
from serving.engine.request import GenerationRequest, SamplingParameters
from tests.serving.endpoint import sealed_llama
from tests.serving.engine.engines import build_engine, drive
from tests.serving.engine.test_delivery import Recorder

WAIT = 60
ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer: PreTrainedTokenizerFast) -> Path:
    return sealed_llama(tmp_path_factory.mktemp("process") / "checkpoint", tiny_tokenizer)


@pytest.fixture
def engine(checkpoint: Path) -> Engine:
    return build_engine("torch", checkpoint, checkpoint, own_process=True, max_context=2048)


def pid(engine: Engine) -> int:
    assert isinstance(engine, ProcessEngine)
    return engine._process.pid


def is_alive(number: int) -> bool:
    try:
        state = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def test_a_killed_process_is_a_failed_engine(engine: Engine, tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    failures: list[EngineFailure] = []
    loop = EngineLoop(lambda: engine, tiny_tokenizer, on_failure=failures.append)
    loop.start()
    sinks = [Recorder() for _ in range(6)]  # four run, two wait
    endless = GenerationRequest([5, 6], SamplingParameters(max_tokens=2000, ignore_eos=True))
    for sink in sinks:
        loop.submit(endless, sink)
    assert sinks[0].entered.wait(WAIT)
    os.kill(pid(engine), signal.SIGKILL)
    for sink in sinks:
        assert sink.ended.wait(WAIT)
        assert "process has ended" in str(sink.errors[0])
    with pytest.raises(EngineFailure, match="process has ended"):
        loop.submit(endless, Recorder())
    loop.close()
    assert len(failures) == 1


def test_a_process_that_dies_with_nothing_to_do_is_noticed(
    engine: Engine, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    # A server that only finds out with its next request would have stayed ready for nothing.
    noticed = threading.Event()
    loop = EngineLoop(lambda: engine, tiny_tokenizer, on_failure=lambda failure: noticed.set())
    loop.start()
    os.kill(pid(engine), signal.SIGKILL)
    assert noticed.wait(WAIT)
    with pytest.raises(EngineFailure, match="process has ended"):
        loop.submit(GenerationRequest([5, 6]), Recorder())
    loop.close()


def test_what_cannot_be_loaded_says_why(checkpoint: Path) -> None:
    manifest = read_manifest(checkpoint)
    config = EngineConfig(weights="fp32", kv_dtype="bf16", max_context=128, device="cpu", own_process=True)
    with pytest.raises(ServingError, match="kv_dtype is bf16"):
        load_engine(checkpoint, config, manifest)


def test_closing_ends_the_process(engine: Engine) -> None:
    (events,) = drive(engine, [GenerationRequest([5], SamplingParameters(max_tokens=3, ignore_eos=True))])
    assert events[-1].finish == "length"
    number = pid(engine)
    engine.close()
    assert not is_alive(number)


def test_what_only_the_engine_refuses_fails_alone(checkpoint: Path) -> None:
    engine = build_engine("openvino", checkpoint, checkpoint.parent / "openvino", own_process=True)
    sound = GenerationRequest([5, 6], SamplingParameters(max_tokens=4, ignore_eos=True))
    refused = GenerationRequest([5, 6], SamplingParameters(frequency_penalty=9.0))
    first, second = drive(engine, [refused, sound])
    assert isinstance(first[-1].error, RequestError)
    assert "frequency_penalty" in str(first[-1].error)
    assert second[-1].finish == "length"
    engine.close()


STARTER = """
import sys, time
from pathlib import Path
from tests.serving.engine.engines import build_engine
engine = build_engine("torch", Path(sys.argv[1]), Path(sys.argv[1]), own_process=True)
print(engine._process.pid, flush=True)
time.sleep(60)
"""


def test_the_process_ends_when_its_owner_is_killed(checkpoint: Path) -> None:
    command = [sys.executable, "-c", STARTER, str(checkpoint)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        number = int(owner.stdout.readline())
        assert is_alive(number)
        owner.kill()
    deadline = time.monotonic() + WAIT
    while is_alive(number):
        assert time.monotonic() < deadline, "the engine's process outlives its owner"
        time.sleep(0.05)
