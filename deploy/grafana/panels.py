"""The panels of the dashboard, row by row.

Every query may use only metrics that the bundled Triton and our model publish; those that need a GPU stand in
a row of their own.
"""

from __future__ import annotations

from panel import HOST, LOADED, MODEL, RATE, SLO, Panel, Query, loaded, mean, per_second, quantiles, stat

ROWS: tuple[tuple[str, tuple[Panel, ...]], ...] = (
    (
        "At a glance",
        (
            stat(
                "Models loaded",
                (Query(f"count(nv_inference_pending_request_count{{{MODEL}}})", "loaded"),),
                "Versions that Triton serves now, over all instances.",
            ),
            stat(
                "Requests per second",
                (Query(f"sum(rate(trimaran_requests_total{{{MODEL}}}{RATE}))", "requests"),),
                "Requests that ended, however they ended.",
                unit="reqps",
            ),
            stat(
                "Tokens per second",
                (Query(f"sum(rate(trimaran_completion_tokens_total{{{MODEL}}}{RATE}))", "tokens"),),
                "Tokens generated.",
            ),
            stat(
                "TTFT p95",
                (quantiles("trimaran_time_to_first_token_seconds")[1],),
                "Without the wait in Triton's queue, which has a panel of its own.",
                unit="s",
            ),
            stat(
                "Worst error budget left",
                (Query(f"min(trimaran:slo_error_budget_left:ratio30d{{{SLO}}})", "left"),),
                "Share of the 30 days' budget that is left, of the objective that has least.",
                unit="percentunit",
            ),
            stat(
                "Alerts that fire",
                (Query('count(ALERTS{alertname=~"Trimaran.*",alertstate="firing"}) or vector(0)', "alerts"),),
                "docs/runbook.md says what to do.",
            ),
        ),
    ),
    (
        "Latency",
        (
            Panel(
                "Request duration",
                quantiles("trimaran_request_duration_seconds"),
                "From leaving Triton's queue to the last token.",
                unit="s",
            ),
            Panel(
                "Time to first token",
                quantiles("trimaran_time_to_first_token_seconds"),
                "From leaving Triton's queue to the first token.",
                unit="s",
            ),
            Panel(
                "Inter-token latency",
                quantiles("trimaran_inter_token_latency_seconds"),
                "Time per token between two responses of a request.",
                unit="s",
            ),
            Panel(
                "Burn rate over one hour",
                (Query(f"trimaran:slo_burn_rate:1h{{{SLO}}}", "{{model}} {{slo}}"),),
                "1 spends the error budget in exactly 30 days; 14.4 for an hour pages.",
                width=12,
            ),
            Panel(
                "Error budget left",
                (Query(f"trimaran:slo_error_budget_left:ratio30d{{{SLO}}}", "{{model}} {{slo}}"),),
                "Of 30 days, or of what Prometheus has kept.",
                unit="percentunit",
                width=12,
            ),
        ),
    ),
    (
        "Throughput",
        (
            Panel(
                "Tokens per second",
                (
                    Query(per_second("trimaran_completion_tokens_total", "model"), "{{model}} generated"),
                    Query(per_second("trimaran_prompt_tokens_total", "model"), "{{model}} prompt"),
                ),
                "Prompt tokens are those that were computed.",
            ),
            Panel(
                "Requests by outcome",
                (Query(per_second("trimaran_requests_total", "outcome"), "{{outcome}}"),),
                "cancelled: by the client; invalid: its mistake; unavailable: no engine or time; error: ours",
                unit="reqps",
                stacked=True,
            ),
            Panel(
                "Where the engine's time goes",
                (
                    Query(per_second("trimaran_decode_seconds_total", "instance"), "{{instance}} decode"),
                    Query(per_second("trimaran_prefill_seconds_total", "instance"), "{{instance}} prefill"),
                ),
                "Share of wall time. What is missing to 1 is idle.",
                unit="percentunit",
            ),
        ),
    ),
    (
        "Queues and batches",
        (
            Panel(
                "Wait in Triton's queue, mean",
                (
                    Query(
                        mean("nv_inference_queue_duration_us", "nv_inference_request_success") + " / 1e6",
                        "{{instance}} {{model}}",
                    ),
                ),
                "Before our code sees the request. Counted when a request ends, so it lags under load.",
                unit="s",
            ),
            Panel(
                "Wait for a slot",
                quantiles("trimaran_queue_seconds"),
                "From leaving Triton's queue to a slot of the engine.",
                unit="s",
            ),
            Panel(
                "Requests in Triton's queue",
                (
                    Query(f"nv_inference_pending_request_count{{{MODEL}}}", "{{instance}} {{model}} pending"),
                    Query(f"trimaran_queue_limit{{{MODEL}}} > 0 {LOADED}", "{{instance}} {{model}} limit"),
                ),
                "At the limit Triton refuses requests (503); it counts these nowhere.",
            ),
            Panel(
                "Running, waiting, slots",
                (
                    Query(loaded("trimaran_running_requests"), "{{instance}} {{model}} running"),
                    Query(loaded("trimaran_waiting_requests"), "{{instance}} {{model}} waiting"),
                    Query(loaded("trimaran_slots"), "{{instance}} {{model}} slots"),
                ),
                "Requests inside the engine.",
            ),
            Panel(
                "Decode batch",
                (
                    Query(
                        f"sum by (le) (increase(trimaran_engine_batch_size_bucket{{{MODEL}}}{RATE}))",
                        "{{le}}",
                    ),
                ),
                "Requests computed together in a decode step.",
                kind="heatmap",
            ),
            Panel(
                "Mean batch",
                (
                    Query(
                        mean("trimaran_engine_batch_size_sum", "trimaran_engine_batch_size_count"),
                        "{{instance}} {{model}} decode step",
                    ),
                    Query(
                        mean("nv_inference_count", "nv_inference_exec_count"),
                        "{{instance}} {{model}} Triton's batcher",
                    ),
                ),
                "The decode step counts: a request joins the running batch, however Triton grouped it.",
            ),
            Panel(
                "KV cache in use",
                (
                    Query(
                        f"{loaded('trimaran_kv_tokens_used')} / ({loaded('trimaran_kv_tokens')} > 0)",
                        "{{instance}} {{model}}",
                    ),
                ),
                "Positions that requests hold, of all.",
                unit="percentunit",
                maximum=1,
                width=12,
            ),
            Panel(
                "Backlog per slot",
                (
                    Query(
                        f"({loaded('nv_inference_pending_request_count')}"
                        f" + {loaded('trimaran_waiting_requests')}) / {loaded('trimaran_slots')}",
                        "{{instance}} {{model}}",
                    ),
                ),
                "Waiting in Triton's queue or for a slot. At 1 a request waits about as long as one runs.",
                width=12,
            ),
        ),
    ),
    (
        "Errors and restarts",
        (
            Panel(
                "Failed requests, by our count",
                (
                    Query(
                        per_second(
                            "trimaran_requests_total",
                            "model, outcome",
                            where=f'{MODEL},outcome=~"unavailable|error|invalid"',
                        ),
                        "{{model}} {{outcome}}",
                    ),
                ),
                "Triton counts these as successes: their answer left through a response sender.",
                unit="reqps",
            ),
            Panel(
                "Failed requests, by Triton's count",
                (Query(per_second("nv_inference_request_failure", "model, reason"), "{{model}} {{reason}}"),),
                "REJECTED: queue timeout. BACKEND: the model's process died. CANCELED: left while queued.",
                unit="reqps",
            ),
            Panel(
                "Loads and silence",
                (
                    Query(
                        "sum by (instance, model) "
                        f"(changes(trimaran_loaded_timestamp_seconds{{{MODEL}}}[30m]))",
                        "{{instance}} {{model}} loads in 30 min",
                    ),
                    Query(
                        "time() - max by (instance, model) "
                        f"(trimaran_heartbeat_timestamp_seconds{{{MODEL}}} {LOADED})",
                        "{{instance}} {{model}} seconds since the last heartbeat",
                    ),
                    Query(f'1 - up{{job="trimaran",{HOST}}}', "{{instance}} down"),
                ),
                "A restart shows as a load. A process that was killed shows as growing silence.",
            ),
        ),
    ),
    (
        "Machine",
        (
            Panel(
                "CPU",
                (Query(f"nv_cpu_utilization{{{HOST}}}", "{{instance}}"),),
                "Of the whole host, not of the container.",
                unit="percentunit",
                maximum=1,
                width=12,
            ),
            Panel(
                "Memory",
                (
                    Query(f"nv_cpu_memory_used_bytes{{{HOST}}}", "{{instance}} used"),
                    Query(f"nv_cpu_memory_total_bytes{{{HOST}}}", "{{instance}} total"),
                ),
                "Of the whole host, not of the container.",
                unit="bytes",
                width=12,
            ),
        ),
    ),
    (
        "GPU (empty on a server without one)",
        (
            Panel(
                "GPU utilization",
                (Query(f"nv_gpu_utilization{{{HOST}}}", "{{instance}} {{gpu_uuid}}"),),
                "Time in which a kernel ran.",
                unit="percentunit",
                maximum=1,
            ),
            Panel(
                "GPU memory",
                (
                    Query(f"nv_gpu_memory_used_bytes{{{HOST}}}", "{{instance}} {{gpu_uuid}} used"),
                    Query(f"nv_gpu_memory_total_bytes{{{HOST}}}", "{{instance}} {{gpu_uuid}} total"),
                ),
                "Of the whole device.",
                unit="bytes",
            ),
            Panel(
                "GPU power",
                (Query(f"nv_gpu_power_usage{{{HOST}}}", "{{instance}} {{gpu_uuid}}"),),
                "As the device reports it.",
                unit="watt",
            ),
        ),
    ),
)
