"""The model ``llm`` in a real Triton: what its contract says, as clients see it."""

from __future__ import annotations

import json
import threading
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from checkpoints.errors import RequestError
from checkpoints.loading import load_model
from checkpoints.prompt import PromptEncoder
from serving.client import TritonClient
from serving.triton_server import TritonServer
from tests.equality import assert_equal_tokens, generate_greedily
from tests.serving.endpoint import exported, metric, post, sealed_llama

pytestmark = pytest.mark.triton

TEXTS = [
    "The sea",
    "你好，世界",
    "Once upon a time there was a small ship on the sea. " * 3,
    "def add(a, b):",
    "今天的天气很好。" * 6,
    "What is the answer?",
    "🙂🚢",
    "a",
]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer: PreTrainedTokenizerFast) -> Path:
    return sealed_llama(tmp_path_factory.mktemp("llm") / "checkpoint", tiny_tokenizer)


@pytest.fixture(scope="module")
def model(checkpoint: Path) -> PreTrainedModel:
    return load_model(checkpoint)


@pytest.fixture(scope="module")
def encoder(checkpoint: Path) -> PromptEncoder:
    return PromptEncoder.from_checkpoint(checkpoint)


@pytest.fixture(scope="module")
def server(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TritonServer]:
    repository = tmp_path_factory.mktemp("repository")
    exported(checkpoint, repository)
    with TritonServer(repository) as server:
        yield server


@pytest.fixture
def client(server: TritonServer) -> Iterator[TritonClient]:
    with TritonClient(server.grpc_url, timeout=60) as client:
        yield client


def test_sixteen_prompts_at_once_and_mid_flight_equal_generate(
    server: TritonServer, client: TritonClient, model: PreTrainedModel, encoder: PromptEncoder
) -> None:
    requests: list[dict[str, Any]] = [{"text": text} for text in TEXTS]
    requests += [{"messages": [{"role": "user", "content": text}]} for text in TEXTS]
    stop = encoder.tokens.stop
    references = [
        generate_greedily(model, encoder.encode(text=one.get("text"), messages=one.get("messages")), 64, stop)
        for one in requests
    ]
    for pause in (0.0, 0.02):  # at once; arriving while others run
        with ThreadPoolExecutor(len(requests)) as pool:
            futures = []
            for one in requests:
                futures.append(pool.submit(client.generate, **one, max_tokens=64))
                time.sleep(pause)
            answers = [future.result() for future in futures]
        assert_equal_tokens(references, [answer.output_ids for answer in answers])
        for reference, answer in zip(references, answers, strict=True):
            if answer.output_ids == reference.token_ids:
                offline = encoder.tokenizer.decode(reference.token_ids, skip_special_tokens=True)
                assert answer.text == offline


def test_a_stream_gives_the_text_of_the_unary_answer(server: TritonServer, client: TritonClient) -> None:
    request: dict[str, Any] = {"text": "你好 🙂", "max_tokens": 40, "ignore_eos": True}
    whole = client.generate(**request)
    chunks = list(client.stream(**request))
    assert 5 < len(chunks) <= 40  # tokens that came meanwhile leave together
    assert "".join(chunk.text for chunk in chunks) == whole.text
    assert [token for chunk in chunks for token in chunk.output_ids] == whole.output_ids
    assert [chunk.finish_reason for chunk in chunks] == [""] * (len(chunks) - 1) + ["length"]
    assert chunks[-1].completion_tokens == 40


def test_http_generate_and_generate_stream(server: TritonServer) -> None:
    body = {"text_input": "The sea", "max_tokens": 12, "ignore_eos": True}
    status, answer = post(f"{server.http_url}/v2/models/llm/generate", body)
    assert status == 200
    assert len(answer["output_ids"]) == answer["completion_tokens"] == 12
    request = urllib.request.Request(
        f"{server.http_url}/v2/models/llm/generate_stream", json.dumps({**body, "stream": True}).encode()
    )
    with urllib.request.urlopen(request, timeout=60) as response:
        events = [json.loads(line[6:]) for line in response.read().decode().splitlines() if line]
    assert "".join(event["text_output"] for event in events) == answer["text_output"]
    assert 2 < len(events) <= 12
    assert events[-1]["completion_tokens"] == 12


def test_unary_infer_of_kserve_v2(server: TritonServer) -> None:
    def tensor(name: str, kind: str, value: Any) -> dict[str, Any]:
        return {"name": name, "shape": [1, 1], "datatype": kind, "data": [value]}

    body = {"inputs": [tensor("text_input", "BYTES", "The sea"), tensor("max_tokens", "INT32", 12)]}
    url = f"{server.http_url}/v2/models/llm_infer/infer"
    status, answer = post(url, body)
    assert status == 200
    outputs = {output["name"]: output["data"] for output in answer["outputs"]}
    _, direct = post(f"{server.http_url}/v2/models/llm/generate", {"text_input": "The sea", "max_tokens": 12})
    assert outputs["text_output"] == [direct["text_output"]]
    status, answer = post(url, {"inputs": [*body["inputs"], tensor("temperature", "FP32", -1)]})
    assert status >= 400
    assert "temperature" in answer["error"]


def test_sampling_repeats_with_its_seed_while_others_run(client: TritonClient) -> None:
    request: dict[str, Any] = {"text": "The sea", "max_tokens": 24, "temperature": 1.5, "top_p": 0.95}
    first = client.generate(**request, seed=11)
    with ThreadPoolExecutor(8) as pool:
        others = [pool.submit(client.generate, **request, seed=100 + index) for index in range(7)]
        again = pool.submit(client.generate, **request, seed=11).result()
        texts = {other.result().text for other in others}
    assert again.output_ids == first.output_ids
    assert len(texts) > 1
    drawn = client.generate(**request)
    assert drawn.seed is not None
    assert client.generate(**request, seed=drawn.seed).output_ids == drawn.output_ids


def test_stop_words_across_tokens(client: TritonClient) -> None:
    whole = client.generate(text="The sea", max_tokens=60, ignore_eos=True).text
    for start in range(4, 20):
        word = whole[start : start + 3]
        if "\ufffd" in word or whole.find(word) != start:
            continue
        cut = client.generate(text="The sea", max_tokens=60, ignore_eos=True, stop_words=["never", word])
        assert cut.text == whole[:start]
        assert cut.finish_reason == "stop"
        streamed = list(client.stream(text="The sea", max_tokens=60, ignore_eos=True, stop_words=[word]))
        assert "".join(chunk.text for chunk in streamed) == whole[:start]
        return
    pytest.fail(f"no usable stop word in {whole!r}")


def test_sampling_parameters_as_vllm_clients_send_them(server: TritonServer) -> None:
    url = f"{server.http_url}/v2/models/llm/generate"
    direct = {"text_input": "The sea", "max_tokens": 9, "temperature": 0.7, "seed": 5}
    packed = {
        "text_input": "The sea",
        "sampling_parameters": json.dumps({"max_tokens": "9", "temperature": "0.7", "seed": 5}),
    }
    assert post(url, packed)[1]["output_ids"] == post(url, direct)[1]["output_ids"]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"max_tokens": 3}, "exactly one of text_input, messages, input_ids"),
        ({"text_input": "a", "messages": "[]"}, "found text_input and messages"),
        ({"text_input": ""}, "empty"),
        ({"text_input": "a", "max_tokens": -1}, "max_tokens is -1"),
        ({"text_input": "a", "min_tokens": 9, "max_tokens": 3}, "min_tokens"),
        ({"text_input": "a", "temperature": 9.0}, "temperature is 9.0; accepted: 0.0 to 5.0"),
        ({"text_input": "a", "sampling_parameters": '{"temperature": NaN}'}, "temperature is nan"),
        ({"text_input": "a", "sampling_parameters": '{"warmth": 1}'}, "unknown name 'warmth'"),
        ({"text_input": "a", "sampling_parameters": "{"}, "not JSON"),
        ({"text_input": "a", "stop_words": ["x"] * 17}, "stop_words has 17"),
        ({"text_input": "a " * 3000}, "the context holds 2048"),
        ({"messages": "[{}]"}, "role"),
        ({"input_ids": [1, 99999]}, "input_ids[1] is 99999"),
        ({"text_input": "a", "top_p": 0}, "top_p is 0"),
    ],
)
def test_a_wrong_request_is_refused_by_name(server: TritonServer, body: dict[str, Any], message: str) -> None:
    status, answer = post(f"{server.http_url}/v2/models/llm/generate", body)
    assert status == 400, answer
    assert message in answer["error"]


def test_bytes_that_are_not_utf8_and_a_wrong_dtype(server: TritonServer) -> None:
    raw = b"\xff\xfe\xfa"
    header = {
        "inputs": [
            {
                "name": "text_input",
                "shape": [1, 1],
                "datatype": "BYTES",
                "parameters": {"binary_data_size": 4 + len(raw)},
            }
        ]
    }
    head = json.dumps(header).encode()
    request = urllib.request.Request(
        f"{server.http_url}/v2/models/llm_infer/infer",
        head + len(raw).to_bytes(4, "little") + raw,
        {"Inference-Header-Content-Length": str(len(head))},
    )
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(request, timeout=30)
    assert "text_input is not UTF-8: byte 0 is 0xff" in caught.value.read().decode()
    tensor = {"name": "max_tokens", "shape": [1, 1], "datatype": "INT64", "data": [3]}
    text = {"name": "text_input", "shape": [1, 1], "datatype": "BYTES", "data": ["a"]}
    status, answer = post(f"{server.http_url}/v2/models/llm_infer/infer", {"inputs": [text, tensor]})
    assert status == 400
    assert "max_tokens" in answer["error"]


def test_temperature_nan_over_grpc_fails_alone(client: TritonClient) -> None:
    with ThreadPoolExecutor(2) as pool:
        sound = pool.submit(client.generate, text="The sea", max_tokens=30, ignore_eos=True)
        with pytest.raises(RequestError, match="temperature is nan"):
            client.generate(text="The sea", temperature=float("nan"))
        assert len(sound.result().output_ids) == 30


def test_a_client_that_leaves_frees_its_slot(server: TritonServer, client: TritonClient) -> None:
    streams = [client.stream(text="The sea", max_tokens=2000, ignore_eos=True) for _ in range(3)]
    for stream in streams:
        next(stream)
    for stream in streams:
        stream.cancel()
    deadline = time.monotonic() + 10
    while metric(server.metrics_url, "trimaran_running_requests", model="llm") > 0:
        assert time.monotonic() < deadline, "the slots are still taken"
        time.sleep(0.05)
    # And over HTTP, by dropping the connection.
    body = json.dumps({"text_input": "a", "stream": True, "max_tokens": 2000, "ignore_eos": True})
    request = urllib.request.Request(f"{server.http_url}/v2/models/llm/generate_stream", body.encode())
    with urllib.request.urlopen(request, timeout=30) as response:
        response.readline()
    dropped = time.monotonic()
    while metric(server.metrics_url, "trimaran_running_requests", model="llm") > 0:
        assert time.monotonic() < dropped + 10, "the slot is still taken"
        time.sleep(0.05)


def test_sixteen_requests_share_steps(server: TritonServer, client: TritonClient) -> None:
    barrier = threading.Barrier(16)

    def ask(index: int) -> int:
        barrier.wait()
        return len(client.generate(text="a" * (index + 1), max_tokens=400, ignore_eos=True).output_ids)

    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(ask, range(16))) == [400] * 16
    time.sleep(0.2)  # the gauges are published every 50 ms
    assert metric(server.metrics_url, "trimaran_engine_batch_size_max", model="llm") > 8
    # Dynamic batching at work: fewer executions than requests.
    done = metric(server.metrics_url, "nv_inference_count", model="llm")
    assert metric(server.metrics_url, "nv_inference_exec_count", model="llm") < done
