"""What happens to requests when there are too many, when the server goes, changes or breaks."""

from __future__ import annotations

import json
import threading
import time
import urllib.error
import urllib.request
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
from transformers import PreTrainedTokenizerFast
from tritonclient.grpc import service_pb2_grpc

from checkpoints.errors import ServerError
from serving.client import Generation, TritonClient
from serving.engine.config import ENGINE_CONFIG_NAME
from serving.triton_server import TritonServer
from serving.wire import Request, encode
from tests.serving.endpoint import exported, metric, post, sealed_llama

pytestmark = pytest.mark.triton

ENDLESS = 16_384
"""Tokens of a context that no machine fills before a test cancels the request."""

BODY = {"text_input": "The sea", "ignore_eos": True}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer: PreTrainedTokenizerFast) -> Path:
    directory = tmp_path_factory.mktemp("faults") / "checkpoint"
    return sealed_llama(directory, tiny_tokenizer, max_position_embeddings=ENDLESS)


def test_a_burst_above_the_queue_limit_is_shed_and_the_rest_is_answered(
    checkpoint: Path, tmp_path: Path
) -> None:
    limits = {"slots": 4, "max_batch_size": 4, "max_queue_size": 8, "queue_delay_us": 100_000}
    exported(checkpoint, tmp_path, max_context=ENDLESS, **limits)
    with TritonServer(tmp_path) as server:
        url = f"{server.http_url}/v2/models/llm/generate"
        with ThreadPoolExecutor(40) as pool:
            answers = list(pool.map(lambda _: post(url, {**BODY, "max_tokens": 400}), range(40)))
        statuses = [status for status, _ in answers]
        assert set(statuses) == {200, 503}
        # Four run, at most four wait for a slot inside execute, eight wait in the queue.
        assert 8 <= statuses.count(200) <= 24
        assert all(len(answer["output_ids"]) == 400 for status, answer in answers if status == 200)
        _a_request_may_limit_its_wait(server)


def _a_request_may_limit_its_wait(server: TritonServer) -> None:
    """With one slot free, two requests of one batch: one runs, the other's timeout passes."""
    channel = grpc.insecure_channel(server.grpc_url)
    stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
    endless: Request = {"text": "a", "max_tokens": ENDLESS - 1000, "ignore_eos": True}

    def ask(_: int) -> tuple[grpc.Call, str]:
        message = encode("llm", endless, stream=True)
        message.parameters["timeout"].int64_param = 300_000  # microseconds
        call = stub.ModelStreamInfer(iter([message]))
        return call, next(call).error_message

    with TritonClient(server.grpc_url) as client, channel:
        held = [client.stream(**endless) for _ in range(3)]
        for stream in held:
            next(stream)
        with ThreadPoolExecutor(2) as pool:
            calls, errors = zip(*pool.map(ask, range(2)), strict=True)
        for running in (*held, *calls):
            running.cancel()
    assert sorted(errors)[0] == ""
    assert "timeout passed before a slot was free" in sorted(errors)[1]


def test_sigterm_during_load_drains(checkpoint: Path, tmp_path: Path) -> None:
    tokens = 4_000  # seconds, so that a look at the metrics finds all of them running
    exported(checkpoint, tmp_path, max_context=2 * tokens, infer_model=False)
    server = TritonServer(tmp_path)
    server.start()
    try:
        with TritonClient(server.grpc_url) as client, ThreadPoolExecutor(8) as pool:
            running: list[Future[Generation]] = [
                pool.submit(client.generate, text="The sea", max_tokens=tokens, ignore_eos=True)
                for _ in range(8)
            ]
            while metric(server.metrics_url, "trimaran_running_requests", model="llm") < 8:
                assert not any(one.done() for one in running), "not long enough to be seen running"
                time.sleep(0.02)
            server.stop()  # sends SIGTERM and waits
            assert [len(one.result().output_ids) for one in running] == [tokens] * 8
    finally:
        server.stop()


def test_a_version_swap_under_load_loses_nothing(
    checkpoint: Path, tmp_path: Path, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    repository = tmp_path / "repository"
    exported(checkpoint, repository, slots=4, infer_model=False)
    with TritonServer(repository) as server, ThreadPoolExecutor(8) as pool:
        url = f"{server.http_url}/v2/models/llm/generate"
        stop = threading.Event()

        def keep_asking() -> list[tuple[int, dict[str, Any]]]:
            answers = []
            while not stop.is_set():
                answers.append(post(url, {**BODY, "max_tokens": 60}))
            return answers

        askers = [pool.submit(keep_asking) for _ in range(8)]
        exported(
            sealed_llama(tmp_path / "second", tiny_tokenizer, seed=1),
            repository,
            slots=4,
            infer_model=False,
        )
        server.load("llm")
        time.sleep(0.5)
        stop.set()
        answers = [answer for asker in askers for answer in asker.result()]
        assert {status for status, _ in answers} == {200}
        assert all(len(answer["output_ids"]) == 60 for _, answer in answers)
        by_version = {answer["model_version"]: answer["output_ids"] for _, answer in answers}
        assert set(by_version) == {"1", "2"}
        assert by_version["1"] != by_version["2"]


def test_a_crashed_engine_answers_what_it_held_and_is_not_ready(checkpoint: Path, tmp_path: Path) -> None:
    version = exported(checkpoint, tmp_path, infer_model=False)
    # The fault: the engine's step raises as soon as three requests run.
    source = (version / "model.py").read_text()
    (version / "model.py").write_text(
        source
        + """

from serving.engine.process.engine import ProcessEngine

healthy_step = ProcessEngine.step


def failing_step(self):
    if self.counters.running >= 3:
        raise MemoryError("out of KV memory")
    return healthy_step(self)


ProcessEngine.step = failing_step
"""
    )
    with TritonServer(tmp_path) as server:
        url = f"{server.http_url}/v2/models/llm/generate"
        with ThreadPoolExecutor(4) as pool:
            answers = list(pool.map(lambda _: post(url, {**BODY, "max_tokens": 1500}), range(4)))
        # This Triton maps an error that a decoupled model sends to 400, whatever its code.
        assert all(status >= 400 for status, _ in answers), answers
        assert all("out of KV memory" in answer["error"] for _, answer in answers[:3])
        deadline = time.monotonic() + 10
        while server.ready("llm"):
            assert time.monotonic() < deadline, "still ready"
            time.sleep(0.05)
        status, _ = post(url, BODY)
        assert status >= 400
        with pytest.raises(urllib.error.HTTPError):
            urllib.request.urlopen(f"{server.http_url}/v2/health/ready", timeout=5)
        # Triton counts them as successes; the alert on availability sees them in our count.
        while metric(server.metrics_url, "trimaran_requests_total", model="llm", outcome="unavailable") < 3:
            assert time.monotonic() < deadline, "not counted"
            time.sleep(0.05)


def test_a_version_of_another_contract_is_refused_with_its_reason(checkpoint: Path, tmp_path: Path) -> None:
    version = exported(checkpoint, tmp_path, infer_model=False)
    settings = json.loads((version / ENGINE_CONFIG_NAME).read_text())
    (version / ENGINE_CONFIG_NAME).write_text(json.dumps({**settings, "contract_version": 99}))
    with (
        pytest.raises(ServerError, match=r"exported for contract version 99.*export the checkpoint again"),
        TritonServer(tmp_path),
    ):
        pass
