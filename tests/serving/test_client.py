"""The client, the chat and config.pbtxt against a real Triton and a model with the contract of ``llm``."""

from __future__ import annotations

import asyncio
import io
import json
import shutil
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from checkpoints.errors import ConfigError, RequestError, ServerError
from serving.chat import chat
from serving.client import AsyncTritonClient, TritonClient
from serving.config import ChatConfig, ExportConfig
from serving.tensors import INPUTS
from serving.triton_config import model_config, render
from serving.triton_server import TritonServer

pytestmark = pytest.mark.triton


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TritonServer]:
    repository = tmp_path_factory.mktemp("echo")
    version = repository / "llm" / "1"
    version.mkdir(parents=True)
    config = ExportConfig(Path("unused"), repository, queue_delay_us=100_000)
    (repository / "llm" / "config.pbtxt").write_text(render(model_config(config)))
    shutil.copy(Path(__file__).with_name("echo_model.py"), version / "model.py")
    with TritonServer(repository) as running:
        yield running


@pytest.fixture
def client(server: TritonServer) -> Iterator[TritonClient]:
    with TritonClient(server.grpc_url, timeout=30) as one:
        yield one


def test_generate_sends_every_input_and_reads_every_output(client: TritonClient) -> None:
    answer = client.generate(
        text="naïve 你好",
        max_tokens=5,
        temperature=0.5,
        top_k=3,
        seed=2**64 - 1,
        stop_words=["。", "end"],
        return_log_probs=True,
    )
    sent = json.loads(answer.text)
    assert sent["text_input"] == ["naïve 你好"]
    assert sent["stop_words"] == ["。", "end"]
    assert (sent["max_tokens"], sent["temperature"], sent["top_k"]) == ([5], [0.5], [3])
    assert (sent["stream"], sent["return_log_probs"], sent["ignore_eos"]) == ([False], [True], [False])
    assert answer.output_ids == [8, 9]
    assert answer.log_probs == [-0.5, -0.5]
    assert (answer.finish_reason, answer.prompt_tokens, answer.completion_tokens) == ("stop", 4, 9)
    assert answer.seed == 2**64 - 1


def test_the_set_of_inputs_is_always_the_same_but_for_the_prompt(client: TritonClient) -> None:
    prompts = {"text_input", "messages", "input_ids"}
    messages = [{"role": "user", "content": "你好"}]
    plain = json.loads(client.generate(text="a").text)
    chatted = json.loads(client.generate(messages=messages, temperature=1.0, stop_words=["x"]).text)  # type: ignore[list-item]
    ids = json.loads(client.generate(input_ids=[3, 1, 2]).text)
    for one in (plain, chatted, ids):
        one.pop("cancelled"), one.pop("batches")
    assert plain.keys() - prompts == chatted.keys() - prompts == ids.keys() - prompts
    assert plain.keys() - prompts == {tensor.name for tensor in INPUTS} - prompts - {"sampling_parameters"}
    assert json.loads(chatted["messages"][0]) == messages
    assert ids["input_ids"] == [3, 1, 2]
    assert plain["stop_words"] == []


def test_triton_batches_prompts_and_stop_words_of_different_lengths(server: TritonServer) -> None:
    with TritonClient(server.grpc_url) as client, ThreadPoolExecutor(4) as pool:
        before = json.loads(client.generate(text="count").text)["batches"]
        list(
            pool.map(
                lambda n: client.generate(input_ids=list(range(1, n + 2)), stop_words=["x"] * n), range(4)
            )
        )
        after = json.loads(client.generate(text="count").text)["batches"]
    # 100 ms of queue delay in this test: at least two of the four met in one batch.
    assert max(after[len(before) :]) >= 2


def test_stream_brings_chunks_and_ends_with_the_reason(client: TritonClient) -> None:
    chunks = list(client.stream(text="hello"))
    assert len(chunks) == 3
    assert json.loads("".join(chunk.text for chunk in chunks))["stream"] == [True]
    assert [chunk.finish_reason for chunk in chunks] == ["", "", "stop"]
    assert [chunk.output_ids for chunk in chunks] == [[7], [7], [8, 9]]
    assert chunks[0].seed is not None
    assert chunks[0].seed == chunks[-1].seed


def cancelled(client: TritonClient, at_least: int) -> int:
    deadline = time.monotonic() + 5
    while (count := json.loads(client.generate(text="x").text)["cancelled"]) < at_least:
        if time.monotonic() > deadline:
            break
        time.sleep(0.05)
    return int(count)


def test_leaving_a_stream_cancels_that_request_only(client: TritonClient) -> None:
    before = cancelled(client, 0)
    kept = client.stream(text="drip")
    next(kept)
    for chunk in client.stream(text="drip"):
        assert chunk.text == "."
        break
    assert cancelled(client, before + 1) == before + 1
    next(kept)
    kept.cancel()
    assert cancelled(client, before + 2) == before + 2
    with pytest.raises(ServerError, match="cancelled"):
        list(kept)


def test_a_timeout_cancels_the_request(server: TritonServer, client: TritonClient) -> None:
    before = cancelled(client, 0)
    with (
        TritonClient(server.grpc_url, timeout=0.5) as hasty,
        pytest.raises(ServerError, match=r"no answer from .* in time"),
    ):
        hasty.generate(text="drip")
    assert cancelled(client, before + 1) == before + 1


def test_errors_say_whose_fault_it_is(client: TritonClient) -> None:
    with pytest.raises(RequestError, match="you said refuse"):
        client.generate(text="refuse")
    with pytest.raises(ServerError, match="you said break"):
        list(client.stream(text="break"))
    with pytest.raises(ServerError, match="without a finish reason"):
        client.generate(text="silent")


def test_an_unknown_model_and_a_dead_url_are_named(server: TritonServer) -> None:
    with TritonClient(server.grpc_url, model="other") as other:
        assert not other.ready()
        with pytest.raises(ServerError, match="other"):
            other.generate(text="x")
    with (
        TritonClient("127.0.0.1:9", patience=0) as nobody,
        pytest.raises(ServerError, match=r"nobody answers at 127\.0\.0\.1:9"),
    ):
        nobody.generate(text="x")


def test_async_client_generates_streams_and_cancels(server: TritonServer, client: TritonClient) -> None:
    before = cancelled(client, 0)

    async def scenario() -> None:
        async with AsyncTritonClient(server.grpc_url, timeout=30) as one:
            assert await one.ready()
            answers = await asyncio.gather(*(one.generate(text=f"prompt {n}") for n in range(8)))
            assert [json.loads(answer.text)["text_input"] for answer in answers] == [
                [f"prompt {n}"] for n in range(8)
            ]
            assert len([chunk async for chunk in one.stream(text="hello")]) == 3
            async for chunk in one.stream(text="drip"):
                assert chunk.text == "."
                break
            task = asyncio.create_task(one.generate(text="drip"))
            await asyncio.sleep(0.3)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            with pytest.raises(RequestError, match="you said refuse"):
                await one.generate(text="refuse")
            # The server notices at its next poll.
            deadline = time.monotonic() + 5
            while json.loads((await one.generate(text="x")).text)["cancelled"] < before + 2:
                assert time.monotonic() < deadline, "a request that was left went on"
                await asyncio.sleep(0.05)

    asyncio.run(scenario())


def test_http_generate_answers_a_bare_request(server: TritonServer) -> None:
    body = json.dumps({"text_input": "curl", "max_tokens": 3}).encode()
    request = urllib.request.Request(f"{server.http_url}/v2/models/llm/generate", data=body)
    with urllib.request.urlopen(request, timeout=10) as response:
        answer = json.load(response)
    sent = json.loads(answer["text_output"])
    assert sent["text_input"] == ["curl"]
    assert "stream" not in sent
    assert answer["finish_reason"] == "stop"


def test_chat_answers_what_is_piped_in(server: TritonServer) -> None:
    told = io.StringIO()
    config = ChatConfig(server.grpc_url, system="Be brief.", max_tokens=9, seed=5)
    chat(config, stdin=io.StringIO("  hi\nthere \n"), stdout=told)
    sent = json.loads(told.getvalue())
    assert json.loads(sent["messages"][0]) == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "hi\nthere"},
    ]
    assert (sent["max_tokens"], sent["seed"]) == ([9], [5])


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_chat_keeps_the_conversation_until_it_is_reset(server: TritonServer) -> None:
    told = io.StringIO()
    chat(
        ChatConfig(server.grpc_url),
        stdin=Terminal("one\ntwo\n/reset\n/what\nthree\n/exit\nnever\n"),
        stdout=told,
    )
    answers = [
        json.loads(line[2:])["messages"][0] for line in told.getvalue().splitlines() if line[:3] == "> {"
    ]
    turns = [[turn["role"] for turn in json.loads(messages)] for messages in answers]
    assert turns == [["user"], ["user", "assistant", "user"], ["user"]]
    assert "unknown command /what" in told.getvalue()
    assert "never" not in told.getvalue()


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({}, "found none"),
        ({"text": "a", "input_ids": [1]}, "found text and input_ids"),
        ({"text": "a", "temprature": 1}, "unknown field 'temprature'"),
        ({"text": "a", "max_tokens": "many"}, "max_tokens is 'many', which is no INT32"),
        ({"text": "a", "max_tokens": 2**31}, "max_tokens is 2147483648"),
        ({"text": "a", "seed": -1}, "seed is -1"),
        ({"text": 5}, "text_input is 5, which is no STRING"),
        ({"text": "\ud800"}, "text_input"),
        ({"input_ids": [1, "x"]}, "input_ids"),
        ({"messages": [{"role": "user", "content": {1, 2}}]}, "messages cannot be written as JSON"),
    ],
)
def test_a_request_that_cannot_be_sent_is_named(request_: dict[str, object], message: str) -> None:
    with TritonClient("127.0.0.1:1") as client, pytest.raises(RequestError, match=message):
        client.generate(**request_)  # type: ignore[arg-type]


@pytest.mark.parametrize("url", ["http://127.0.0.1:8000", "localhost", "127.0.0.1:port", "a:0", ""])
def test_a_url_that_is_no_grpc_endpoint_is_refused(url: str) -> None:
    with pytest.raises(ServerError, match=r"give host:port"):
        TritonClient(url)


@pytest.mark.parametrize("field", ["max_tokens", "temperature", "top_p", "top_k", "seed"])
def test_chat_config_names_the_field(field: str) -> None:
    with pytest.raises(ConfigError, match=f"{field} is -1"):
        ChatConfig("127.0.0.1:1", **{field: -1})  # type: ignore[arg-type]
    if field == "temperature":
        with pytest.raises(ConfigError, match="temperature is nan"):
            ChatConfig("127.0.0.1:1", temperature=float("nan"))
