"""Rules, dashboard and docs against a real server: every metric exists, every query returns data.

The facts about the bundled Triton that the alerts lean on are asserted too: another Triton that behaves
otherwise fails here, and not silently in production.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerFast

from serving.client import TritonClient
from serving.triton_server import TritonServer
from tests.deploy.monitoring.endpoint import fetch, running_prometheus, samples, trickle
from tests.deploy.monitoring.promql import (
    GPU_ONLY,
    OF_PROMETHEUS,
    ROOT,
    dashboard_queries,
    rules,
    selectors,
    substitute,
)
from tests.deploy.monitoring.tools import require
from tests.serving.endpoint import exported, metric, post, sealed_llama

pytestmark = pytest.mark.triton

BODY = {"text_input": "The sea", "ignore_eos": True}
PENDING = "nv_inference_pending_request_count"


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer: PreTrainedTokenizerFast) -> Path:
    """A model whose one slot and short queue are soon full; requests wait 300 ms at most."""
    folder = tmp_path_factory.mktemp("monitoring")
    checkpoint = sealed_llama(folder / "checkpoint", tiny_tokenizer)
    options = {"slots": 1, "max_batch_size": 1, "max_queue_size": 2, "queue_timeout_ms": 300}
    exported(checkpoint, folder / "repository", infer_model=False, **options)
    return folder / "repository"


@pytest.fixture(scope="module")
def server(repository: Path) -> Iterator[TritonServer]:
    with TritonServer(repository) as started:
        yield started


def outcome(server: TritonServer, name: str) -> float:
    return metric(server.metrics_url, "trimaran_requests_total", model="llm", outcome=name)


def failures(server: TritonServer, reason: str) -> float:
    return metric(server.metrics_url, "nv_inference_request_failure", model="llm", reason=reason)


def test_every_metric_and_label_that_is_asked_for_exists(server: TritonServer) -> None:
    """Before any request, too: a counter that appears with its first failure hides that failure."""
    published = samples(server.metrics_url)
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    expressions = [rule["expr"] for rule in rules()] + [substitute(query) for _, query in dashboard_queries()]
    added_by_prometheus = {"job", "instance", "namespace"}
    checked = 0
    for selector in {one for expression in expressions for one in selectors(expression)}:
        if selector.name in GPU_ONLY | OF_PROMETHEUS | recorded:
            continue
        wanted = [one for one in selector.matchers if one[0] not in added_by_prometheus]
        assert any(
            name == selector.name and all(accepts(labels, *matcher) for matcher in wanted)
            for name, labels, _ in published
        ), selector
        checked += 1
    assert checked > 30


def accepts(labels: dict[str, str], label: str, operator: str, value: str) -> bool:
    assert label in labels, f"no label {label} among {sorted(labels)}"
    if operator in ("=~", "!~"):
        equal = re.fullmatch(value, labels[label]) is not None
    else:
        equal = labels[label] == value
    return equal == (operator in ("=", "=~"))


def test_every_value_an_alternative_names_exists(server: TritonServer) -> None:
    """``outcome=~"a|b"`` matches with ``a`` alone: each of them must be published."""
    published = samples(server.metrics_url)
    for rule in rules():
        for selector in selectors(rule["expr"]):
            for label, operator, value in selector.matchers:
                if label in ("outcome", "reason"):
                    for one in value.split("|"):
                        assert any(
                            name == selector.name and labels[label] == one for name, labels, _ in published
                        ), (selector.name, operator, one)


def test_the_docs_list_every_metric_of_ours(server: TritonServer) -> None:
    listed = re.findall(r"^\| `(trimaran_\w+)`", (ROOT / "docs" / "monitoring.md").read_text("utf-8"), re.M)
    types = re.findall(r"^# TYPE (trimaran_\w+) \w+$", fetch(server.metrics_url), re.M)
    assert sorted(listed) == sorted(types)


def test_a_restart_can_be_told_and_the_queue_has_its_limit(server: TritonServer) -> None:
    loaded = metric(server.metrics_url, "trimaran_loaded_timestamp_seconds", model="llm")
    assert 0 < time.time() - loaded < 600
    before = metric(server.metrics_url, "trimaran_heartbeat_timestamp_seconds", model="llm")
    time.sleep(1.5)
    assert metric(server.metrics_url, "trimaran_heartbeat_timestamp_seconds", model="llm") > before
    assert metric(server.metrics_url, "trimaran_loaded_timestamp_seconds", model="llm") == loaded
    assert metric(server.metrics_url, "trimaran_queue_limit", model="llm") == 2


def test_the_runbooks_first_look_works(server: TritonServer) -> None:
    require("curl")
    (block,) = re.findall(r"^```\n(.*?)^```", (ROOT / "docs" / "runbook.md").read_text("utf-8"), re.M | re.S)
    script = block.replace("http://HOST:8000", server.http_url)
    script = script.replace("http://HOST:8002/metrics", server.metrics_url)
    done = subprocess.run(["sh", "-ec", script], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    status, *published, answer = done.stdout.splitlines()
    assert status == "200"
    assert any(line.startswith("trimaran_slots{") for line in published)
    assert any(line.startswith("nv_inference_request_failure{") for line in published)
    assert json.loads(answer)["completion_tokens"] == 1


def test_what_fails_is_counted_by_us_or_by_triton(server: TritonServer) -> None:
    url = f"{server.http_url}/v2/models/llm/generate"
    time.sleep(0.3)  # metrics are published every 50 ms
    answered = outcome(server, "ok")
    assert post(url, {**BODY, "max_tokens": 4})[0] == 200
    assert post(url, {**BODY, "max_tokens": -4})[0] == 400
    with TritonClient(server.grpc_url) as client:
        stream = client.stream(text="a", max_tokens=1900, ignore_eos=True)
        next(stream)
        with ThreadPoolExecutor(6) as pool:
            # The slot is taken: two wait in the queue until their time is over, the others find it full.
            statuses = sorted(status for status, _ in pool.map(lambda _: post(url, BODY), range(6)))
        stream.cancel()
    time.sleep(0.5)
    refused = statuses.count(503)
    assert refused >= 3
    assert outcome(server, "ok") == answered + 1
    assert (outcome(server, "invalid"), outcome(server, "cancelled")) == (1, 1)
    assert failures(server, "REJECTED") == 6 - refused
    # Triton calls the invalid request a success, and counts no request that its full queue refused.
    assert metric(server.metrics_url, "nv_inference_request_success", model="llm") == answered + 3
    assert failures(server, "BACKEND") == failures(server, "OTHER") == 0


def test_prometheus_gets_data_for_every_query(server: TritonServer, prometheus: str, tmp_path: Path) -> None:
    target = server.metrics_url.removeprefix("http://").removesuffix("/metrics")
    with running_prometheus(prometheus, target, tmp_path) as running, trickle(server.http_url):
        for title, query in dashboard_queries():
            expression = substitute(query, "10s")
            if not GPU_ONLY & {selector.name for selector in selectors(expression)}:
                assert running.wait_for(expression), f"{title}: {expression}"
        groups = running.get("rules")["groups"]
        assert {rule["health"] for group in groups for rule in group["rules"]} == {"ok"}
        assert running.numbers("count(trimaran:slo_burn_rate:1h)") == [3]
        assert running.numbers("count(prometheus_rule_evaluation_failures_total)") == [len(groups)]
        assert not running.numbers('ALERTS{severity="page",alertname!~".*Burn.*"}')


def test_an_unloaded_model_is_seen(repository: Path, prometheus: str, tmp_path: Path) -> None:
    """Triton takes its own gauge away and leaves ours: what TrimaranModelNotReady tells them apart by."""
    with TritonServer(repository) as server:
        target = server.metrics_url.removeprefix("http://").removesuffix("/metrics")
        with running_prometheus(prometheus, target, tmp_path) as running:
            pending_alert = 'ALERTS{alertname="TrimaranModelNotReady"}'
            assert running.wait_for(f"{PENDING} + on (model, version) trimaran_slots")
            assert not running.numbers(pending_alert)
            unload = f"{server.http_url}/v2/repository/models/llm/unload"
            urllib.request.urlopen(urllib.request.Request(unload, b"{}"), timeout=10).close()
            assert running.wait_for(pending_alert)
            with pytest.raises(urllib.error.HTTPError, match="400"):
                fetch(f"{server.http_url}/v2/models/llm/ready")
        names = {name for name, _, _ in samples(server.metrics_url)}
        assert PENDING not in names
        assert "trimaran_slots" in names


def test_a_killed_model_process_is_seen_by_its_silence(repository: Path) -> None:
    """Triton goes on calling it ready: the reason for the heartbeat."""
    # It would wait for the dead process as long as it may.
    with TritonServer(repository, exit_timeout=1) as server:
        metric(server.metrics_url, PENDING, model="llm")
        (stub,) = Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text("ascii").split()
        os.kill(int(stub), signal.SIGKILL)
        time.sleep(1.5)
        assert server.ready("llm")
        last = metric(server.metrics_url, "trimaran_heartbeat_timestamp_seconds", model="llm")
        assert time.time() - last > 1.2
        assert metric(server.metrics_url, PENDING, model="llm") == 0
        status, answer = post(f"{server.http_url}/v2/models/llm/generate", {**BODY, "max_tokens": 4})
        assert status >= 400, answer
        assert failures(server, "BACKEND") >= 1
