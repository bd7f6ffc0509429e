"""The users of OpenAI's API, against the scripted server; API keys, TLS and several targets of all users."""

from __future__ import annotations

import subprocess
from collections import Counter
from pathlib import Path

import pytest

from loadtests.config import LoadTestConfig
from loadtests.errors import ConfigError, EndpointError, PromptFileError
from loadtests.record import read_records
from loadtests.result import LoadTestResult
from loadtests.run import run_load_test
from tests.loadtests import script
from tests.loadtests.conftest import scripted

pytestmark = pytest.mark.locust
UNARY = ("openai_chat_unary", "openai_completions_unary")


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    path = tmp_path / "key"
    path.write_text(f"{script.API_KEY}\n", encoding="utf-8")
    return path


def run(tmp_path: Path, **settings: object) -> LoadTestResult:
    return run_load_test(
        LoadTestConfig(
            **{"users": 2, "max_requests": 6, "output": tmp_path / "out", **settings}  # type: ignore[arg-type]
        )
    )


@pytest.mark.parametrize("protocol", ["openai_chat", "openai_completions", *UNARY])
def test_each_api_is_measured(protocol: str, http_url: str, tmp_path: Path) -> None:
    result = run(tmp_path, url=f"{http_url}/v1", protocol=protocol)
    numbers = result.measurement
    assert numbers.failures == []
    assert numbers.counts["ok"] == 6
    tokens, prompts, ttft = (numbers.summaries[tag] for tag in ("output_tokens", "prompt_tokens", "ttft"))
    assert tokens is not None
    assert (tokens.min, tokens.max) == (script.TOKENS, script.TOKENS)
    assert prompts is not None
    assert prompts.max == script.PROMPT_TOKENS
    if protocol in UNARY:
        assert ttft is None
    else:
        assert ttft is not None
        assert ttft.min >= 1e9 * script.FIRST_S
        assert numbers.distributions["itl"].count == 6 * (script.TOKENS - 1)


def test_tokens_of_chunks_that_hold_several_come_from_the_usage(http_url: str, tmp_path: Path) -> None:
    result = run(tmp_path, url=http_url, protocol="openai_chat", model="chunked", max_requests=2)
    records = list(read_records(result.requests_jsonl))
    assert [record.chunk_tokens for record in records] == [[3, 3], [3, 3]]
    assert [record.completion_tokens for record in records] == [script.TOKENS] * 2
    assert result.notes == ()


def test_a_stream_without_usage_is_counted_by_its_chunks_and_said_so(http_url: str, tmp_path: Path) -> None:
    result = run(tmp_path, url=http_url, protocol="openai_chat", model="uncounted", max_requests=2)
    assert result.verdict.passed
    assert result.measurement.counts["ok"] == 2
    (note,) = result.notes
    assert "2 of 2 answers came without usage" in note
    assert note in result.report_html.read_text(encoding="utf-8")


def test_conversations_go_to_chat_as_they_are_and_not_to_completions(http_url: str, tmp_path: Path) -> None:
    prompts = tmp_path / "talk.jsonl"
    prompts.write_text('{"messages": [{"role": "user", "content": "first-50"}]}\n', encoding="utf-8")
    result = run(tmp_path, url=http_url, protocol="openai_chat", prompts=prompts, max_requests=2)
    ttft = result.measurement.summaries["ttft"]
    assert ttft is not None
    assert ttft.min < 1e9 * script.FIRST_S  # the server saw the text of the message
    with pytest.raises(PromptFileError, match="takes texts alone; choose --protocol openai_chat"):
        run(tmp_path, url=http_url, protocol="openai_completions", prompts=prompts, output=tmp_path / "no")


@pytest.mark.parametrize("protocol", ["openai_chat", "generate_stream"])
def test_an_api_key_is_sent_and_told_nobody(
    protocol: str, http_url: str, key_file: Path, tmp_path: Path
) -> None:
    result = run(
        tmp_path, url=f"{http_url}/secured", protocol=protocol, api_key_file=key_file, max_requests=2
    )
    assert result.measurement.counts["ok"] == 2
    for path in result.output.iterdir():
        assert script.API_KEY not in path.read_text(encoding="utf-8")


def test_an_api_key_goes_over_grpc_too(grpc_url: str, key_file: Path, tmp_path: Path) -> None:
    settings = {"url": grpc_url, "protocol": "grpc", "model": "locked", "max_requests": 2}
    without = run(tmp_path, **settings).measurement
    assert [(group.kind, group.count) for group in without.failures] == [("4xx", 2)]
    assert run(tmp_path, **settings, api_key_file=key_file, overwrite=True).measurement.counts["ok"] == 2


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"url": "{}/secured"}, EndpointError, "HTTP 401; give the API key with --api-key-file"),
        (
            {"url": "{}", "model": "typo"},
            EndpointError,
            "model 'typo' is not served; served there: chunked, ",
        ),
        ({"url": "{}/other"}, EndpointError, "/other/v1/models answers HTTP 404 and no list of models"),
        ({"url": "http://127.0.0.1:1"}, EndpointError, "nothing answers there"),
        (
            {"url": "grpc://127.0.0.1:1"},
            ConfigError,
            "protocol openai_chat speaks HTTP and cannot use grpc://",
        ),
        ({"url": "{},{}"}, ConfigError, "names one address twice"),
        ({"url": "{}", "api_key_file": Path("/none")}, ConfigError, "api_key_file: /none cannot be read"),
        ({"url": "{}", "ca_file": Path(__file__)}, ConfigError, "holds no certificate in PEM format"),
    ],
)
def test_an_api_that_cannot_be_tested_is_told_before_any_load(
    settings: dict[str, object], error: type[Exception], message: str, http_url: str, tmp_path: Path
) -> None:
    url = str(settings["url"]).format(http_url, http_url)
    with pytest.raises(error) as raised:
        run(tmp_path, protocol="openai_chat", **{**settings, "url": url})
    assert message in str(raised.value)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """Files of a certificate that signs itself, and of its key."""
    folder = tmp_path_factory.mktemp("tls")
    files = str(folder / "certificate.pem"), str(folder / "key.pem")
    subject = ("-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1")
    curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1")
    command = ["openssl", "req", "-x509", "-nodes", "-days", "2", *curve, *subject]
    subprocess.run([*command, "-out", files[0], "-keyout", files[1]], check=True, capture_output=True)
    return files


@pytest.mark.parametrize(
    ("protocol", "server", "scheme", "refusal"),
    [
        ("openai_chat", "scripted_http", "https", "certificate verify failed"),
        ("grpc", "scripted_grpc", "grpcs", "no Triton answers there over gRPC"),
    ],
)
def test_tls_with_a_private_authority(
    protocol: str, server: str, scheme: str, refusal: str, certificate: tuple[str, str], tmp_path: Path
) -> None:
    with scripted(server, *certificate) as port:
        url = f"{scheme}://127.0.0.1:{port}"
        result = run(tmp_path, url=url, protocol=protocol, ca_file=Path(certificate[0]))
        assert result.measurement.counts["ok"] == 6
        with pytest.raises(EndpointError, match=refusal):
            run(tmp_path, url=url, protocol=protocol, output=tmp_path / "untrusted")
        # A client that forgets the s is refused as well, and not by a timeout.
        with pytest.raises(EndpointError):
            run(tmp_path, url=url.replace("s://", "://"), protocol=protocol, output=tmp_path / "plain")


def test_several_targets_take_requests_in_turn(http_url: str, tmp_path: Path) -> None:
    with scripted("scripted_http") as port:
        second = f"http://127.0.0.1:{port}"
        # In an open loop too, where the user that was free last sends the next request.
        result = run(
            tmp_path, url=f"{http_url},{second}", arrivals="constant", rate=20, users=10, max_requests=10,
            max_lateness_p99="2s",
        )  # fmt: skip
        counts = Counter(record.target for record in read_records(result.requests_jsonl))
    assert result.measurement.failures == []
    assert counts == {0: 5, 1: 5}
