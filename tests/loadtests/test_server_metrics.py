"""The server's metrics: read on time, summed through restarts, and undefined where there are none."""

from __future__ import annotations

import socket
import threading
from http.server import ThreadingHTTPServer
from io import StringIO
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from loadtests.config import LoadTestConfig
from loadtests.errors import ConfigError, EndpointError
from loadtests.metrics.metric import Window
from loadtests.server_metrics import endpoint
from loadtests.server_metrics.batch_sizes import BATCHES, BatchSizes
from loadtests.server_metrics.endpoint import find_metrics
from loadtests.server_metrics.gauges import gauges
from loadtests.server_metrics.scraper import Scraper
from loadtests.server_metrics.snapshot import Key, Snapshot, SnapshotWriter, parse_metrics, read_snapshots
from loadtests.server_metrics.summary import server_metrics
from tests.loadtests.metrics_server import Growing, page, published

SECOND = 1_000_000_000


def summed(
    pages: list[tuple[float, str | None]], window: tuple[float, float], answered: int
) -> dict[str, Any]:
    """Return the summary of pages read at some seconds since the load began; None for a failed reading."""
    snapshots = [
        Snapshot(round(when * SECOND), failure="gone")
        if text is None
        else Snapshot(round(when * SECOND), parse_metrics(text, "llm"))
        for when, text in pages
    ]
    edges = (round(second * SECOND) for second in window)
    return server_metrics(
        snapshots, origin_ns=0, window=Window(*edges), urls=["u"], interval_s=1.0, answered=answered
    )


def test_counts_are_those_of_the_window() -> None:
    # 10 requests per second from second 0; 100 were answered before.
    pages = [
        (when, page(100 + 10 * max(when, 0), queue_us=20_000 * max(when, 0))) for when in (-1, 0, 1, 2, 3)
    ]
    found = summed(pages, (0.5, 2.5), answered=30)
    window = found["window"]
    assert window["requests"] == pytest.approx(20)
    assert window["requests_per_batch"] == pytest.approx(2)
    assert window["queue_ns_per_request"] == pytest.approx(2_000_000)
    assert found["whole_run"] == {"requests": 30, "answered": 30, "output_tokens": None}
    assert found["notes"] == []
    # Of two versions the one that is loaded.
    assert window["gauges"]["running"] == {"mean": 2, "max": 2}
    assert window["gauges"]["queued"] == {"mean": 3, "max": 3}
    assert [moment["time_s"] for moment in found["series"]] == [0, 1, 2, 3]
    # What this server does not publish is not zero.
    assert window["gauges"]["gpu_share"] is None
    assert window["output_tokens"] is None
    assert window["histograms"]["batch_size"] is None


def test_a_model_that_passes_requests_on_has_the_engine_of_the_other() -> None:
    pending = 'nv_inference_pending_request_count{model="llm",version="1"} 3\n'
    text = page(5, running=3).replace(
        pending, pending + pending.replace('"llm",version="1"} 3', '"llm_infer",version="4"} 2')
    )
    names = {(key.name, key.label("model")) for key in parse_metrics(text, "llm_infer")}
    assert ("nv_inference_request_success", "llm_infer") in names
    assert ("nv_inference_request_success", "llm") not in names
    assert ("trimaran_running_requests", "llm") in names
    found = gauges(parse_metrics(text, "llm_infer"))
    assert (found["running"], found["queued"]) == (3, 3 + 2)
    assert gauges(parse_metrics(text, "llm"))["queued"] == 3


def test_what_is_served_is_told_of_the_versions_that_are_loaded() -> None:
    def info(version: int, weights: str) -> str:
        return f'trimaran_engine_info{{model="llm",version="{version}",weights="{weights}"}} 1\n'

    kind = "# TYPE trimaran_engine_info gauge\n"
    pages: list[tuple[float, str | None]] = [
        (0, page(0) + kind + info(0, "int4") + info(1, "bf16")),
        (1, page(5) + kind + info(0, "int4") + info(1, "int8")),
        (2, page(9) + kind + info(0, "int4") + info(1, "int8")),
    ]
    # Version 0 was unloaded; version 1 was exported again and loaded while the load ran.
    assert [facts["weights"] for facts in summed(pages, (0, 2), answered=9)["engines"]] == ["bf16", "int8"]
    assert summed([(0, page(0)), (1, page(9))], (0, 1), answered=9)["engines"] == []


def test_sizes_of_batches_are_those_of_the_window() -> None:
    def look(when: float, ones: int, fours: int) -> Snapshot:
        sizes = {
            Key(0, BATCHES, (("batch_size", size), ("model", "llm"), ("version", "1")), True): float(count)
            for size, count in (("1", ones), ("4", fours))
        }
        return Snapshot(round(when * SECOND), parse_metrics(page(ones), "llm") | sizes)

    found = server_metrics(
        [look(0, 100, 7), look(1, 110, 7), look(2, 130, 12)], origin_ns=0, window=Window(SECOND, 2 * SECOND),
        urls=["u"], interval_s=1.0, answered=30,
    )  # fmt: skip
    assert found["window"]["batch_sizes"] == {"sizes": [1, 4], "counts": [20.0, 5.0]}
    assert summed([(0, page(0)), (1, page(9))], (0, 1), answered=9)["window"]["batch_sizes"] is None


def test_only_a_server_that_never_had_statistics_is_left_alone(http_url: str) -> None:
    batches = BatchSizes(f"{http_url},grpc://127.0.0.1:1", "llm", {}, None)
    for _ in range(3):
        assert len(batches._asks) == 2
        assert batches.read(1.0) == {}
    assert batches._asks == {}

    answers = iter([[("1", 4, 10)], TimeoutError("busy"), TimeoutError(), TimeoutError(), [("1", 4, 30)]])

    def ask(_: float) -> list[tuple[str, int, int]]:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    batches = BatchSizes(http_url, "llm", {}, None)
    batches._asks[0] = ask
    assert [list(batches.read(1.0).values()) for _ in range(5)] == [[10], [], [], [], [30]]


def test_a_restart_is_said_and_loses_nothing_that_was_seen() -> None:
    pages = [(0, page(50)), (1, page(60)), (2, None), (3, page(4)), (4, page(9))]
    found = summed(pages, (0, 4), answered=25)
    assert found["resets_s"] == [3]
    assert found["failed_scrapes"] == 1
    assert found["window"]["requests"] == 10 + 4 + 5
    assert "restarted (seen at 3 s)" in found["notes"][0]
    assert "1 readings failed, such as gone" in found["notes"][1]


def test_a_model_that_was_loaded_again_is_a_restart() -> None:
    assert summed([(0, page(5)), (1, page(9, loaded=2))], (0, 1), answered=4)["resets_s"] == [1]


def test_other_clients_and_other_servers_are_noticed() -> None:
    (note,) = summed([(0, page(0)), (1, page(9))], (0, 1), answered=4)["notes"]
    assert "somebody else asks it too" in note
    (note,) = summed([(0, page(0)), (1, page(9))], (0, 1), answered=12)["notes"]
    assert "not the metrics of every server" in note


def test_what_the_readings_do_not_cover_is_said() -> None:
    notes = summed([(1, page(0)), (2, page(9))], (0, 3), answered=9)["notes"]
    assert [note.split(":")[0] for note in notes] == [
        "the first reading came after the window had begun",
        "the last reading came before the window had ended",
    ]
    assert summed([(0, None)], (0, 1), answered=1)["window"] is None


def test_histograms_give_the_counts_between_their_edges() -> None:
    def batches(one: int, two: int, more: int) -> str:
        name = "trimaran_engine_batch_size"
        return (
            f"# TYPE {name} histogram\n"
            f'{name}_bucket{{model="llm",version="1",le="1"}} {one}\n'
            f'{name}_bucket{{model="llm",version="1",le="2"}} {one + two}\n'
            f'{name}_bucket{{model="llm",version="1",le="+Inf"}} {one + two + more}\n'
            f'{name}_sum{{model="llm",version="1"}} {one + 2 * two + 4 * more}\n'
            f'{name}_count{{model="llm",version="1"}} {one + two + more}\n'
        )

    pages = [(0, page(0, buckets=batches(5, 5, 5))), (1, page(1, buckets=batches(6, 8, 5)))]
    found = summed(pages, (0, 1), answered=1)["window"]["histograms"]["batch_size"]
    assert found == {"unit": "requests", "edges": [1, 2], "counts": [1, 3, 0], "count": 4, "mean": 7 / 4}


def test_snapshots_survive_the_file(tmp_path: Path) -> None:
    snapshots = [
        Snapshot(1, parse_metrics(page(1), "llm")),
        Snapshot(2, failure="refused"),
        Snapshot(3, parse_metrics(page(2, running=5), "llm")),
        Snapshot(4, parse_metrics("# TYPE nv_cpu_utilization gauge\nnv_cpu_utilization 1\n", "llm")),
    ]
    sink = StringIO()
    writer = SnapshotWriter(sink)
    for snapshot in snapshots:
        writer.write(snapshot)
    path = tmp_path / "snapshots.jsonl"
    path.write_text(sink.getvalue() + '{"time_ns": 5, "new', encoding="utf-8")  # cut by a kill
    assert list(read_snapshots(path)) == snapshots


def test_they_are_read_in_a_process_of_its_own_until_the_load_is_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(endpoint, "_PATIENCE_S", 0.2)
    with published() as url:
        config = LoadTestConfig(metrics_url=url, metrics_interval="100ms")
        before = Growing.looks
        with Scraper(config) as scraper:
            while Growing.looks < before + 4:
                threading.Event().wait(0.05)
            scraper.stop()
            found = list(scraper.snapshots())
        assert scraper.notes == []
        assert scraper.urls == [f"{url}/metrics"]
        counts = [
            value for one in found for key, value in one.values.items() if key.name == "nv_inference_count"
        ]
        assert len(counts) >= 4
        assert counts == sorted(set(counts))
        gaps = [later.time_ns - earlier.time_ns for earlier, later in pairwise(found)]
        assert gaps[-1] > 0.3 * SECOND  # the last requests are waited for
        with pytest.raises(EndpointError, match="publishes no metric nv_"):
            find_metrics("http://127.0.0.1:8000", "other", f"{url}/metrics", None)


def test_an_address_that_was_named_must_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint, "_PATIENCE_S", 0.2)
    with pytest.raises(EndpointError, match=r"does not answer with metrics.*--metrics-url none"):
        Scraper(LoadTestConfig(metrics_url="http://127.0.0.1:1"))
    scraper = Scraper(LoadTestConfig(metrics_url="none"))
    assert scraper.notes == ["the server's metrics were not read (--metrics-url none)"]
    with scraper:
        scraper.stop()
        assert list(scraper.snapshots()) == []


def test_a_port_that_opens_a_little_later_is_waited_for() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    servers: list[ThreadingHTTPServer] = []

    def open_later() -> None:
        servers.append(ThreadingHTTPServer(("127.0.0.1", port), Growing))
        servers[0].serve_forever()

    timer = threading.Timer(0.4, open_later)
    timer.start()
    url = f"http://127.0.0.1:{port}/metrics"
    assert find_metrics("http://127.0.0.1:8000", "llm", url, None) == ([url], [])
    servers[0].shutdown()
    servers[0].server_close()
    timer.join()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"metrics_url": "grpc://x:1"}, "metrics_url: 'grpc://x:1' is not an address"),
        ({"metrics_url": "http://me:secret@x:1"}, "metrics_url: leave name and password out"),
        ({"metrics_interval": "20ms"}, "metrics_interval: 20ms is too short"),
    ],
)
def test_wrong_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        LoadTestConfig(**settings)
