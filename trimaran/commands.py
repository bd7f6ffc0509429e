"""One adapter per command: call the room's function, print where the artefact is, return the exit code.

The functions are imported inside, so that a command loads only what it needs.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from checkpoints.inspect import InspectConfig
    from checkpoints.prune_experts import PruneExpertsConfig
    from checkpoints.quantize import QuantizeConfig
    from loadtests.config import LoadTestConfig
    from loadtests.history.config import HistoryConfig
    from loadtests.sweep.config import SweepConfig
    from serving.config import ChatConfig, ExportConfig, LoadConfig, ServeConfig
    from training.config import MergeConfig, TrainConfig
    from training.data.cleaning.config import CleanDataConfig
    from trimaran.deploy.config import DeployConfig
    from trimaran.doctor import DoctorConfig
    from trimaran.pipeline import DemoConfig
    from trimaran.sweep.config import ServingSweepConfig

DONE, VERDICT_FAILED, RUN_INVALID = 0, 1, 4


def demo(config: DemoConfig) -> int:
    """Run all stages in a row; fail where the load test's verdict does."""
    from trimaran.pipeline import demo as run

    return DONE if run(config) else VERDICT_FAILED


def doctor(config: DoctorConfig) -> int:
    """Print what this machine can do; fail where a check does."""
    from trimaran.doctor import examine

    report = examine(config)
    print(report.as_json() if config.json else report.as_text())
    return DONE if report.healthy else VERDICT_FAILED


def inspect(config: InspectConfig) -> int:
    """Print what a checkpoint is."""
    from checkpoints.inspect import inspect_checkpoint

    print(inspect_checkpoint(config))
    return DONE


def clean_data(config: CleanDataConfig) -> int:
    """Clean, and say what was dropped and where the rows are."""
    from training.data.cleaning.run import clean_data as run

    cleaned = run(config)
    print(cleaned.report.as_text())
    print(f"report: {cleaned.directory / 'report.md'}\nrows: {cleaned.rows}")
    return DONE


def train(config: TrainConfig) -> int:
    """Train, and say where the result is; or only say what that would take."""
    if config.dry_run:
        from training.dry_run import dry_run

        print(dry_run(config))
        return DONE
    from training.ranks import is_first
    from training.run import train as run

    result = run(config)
    if is_first():
        print(f"{result.name}: {result}")
    return DONE


def merge(config: MergeConfig) -> int:
    """Merge, and say where the checkpoint is."""
    from training.merge import merge as run

    print(f"checkpoint: {run(config)}")
    return DONE


def quantize(config: QuantizeConfig) -> int:
    """Quantize, and say where the checkpoint is, what was packed and what was not."""
    from checkpoints.quantize import quantize as run

    checkpoint = run(config)
    from checkpoints.manifest import read_manifest
    from checkpoints.nf4_report import render_packing

    print(render_packing(read_manifest(checkpoint)))
    print(f"checkpoint: {checkpoint}")
    return DONE


def prune_experts(config: PruneExpertsConfig) -> int:
    """Drop experts, and say where the checkpoint is and what it cost."""
    from checkpoints.prune_experts import prune_experts as run

    done = run(config)
    print(
        f"experts: {done.experts} of {done.experts_before} per layer, which took {done.share:.1%} of the "
        f"choices on {done.tokens:,} calibration tokens"
    )
    if done.fidelity is not None:
        figures = done.fidelity
        print(
            f"perplexity: {figures.perplexity_reference:.4g} -> {figures.perplexity_candidate:.4g} "
            f"(x{figures.perplexity_ratio:.3f}), top-1 agreement {figures.top1_agreement:.1%}"
        )
    print(f"checkpoint: {done.path}")
    return DONE


def export(config: ExportConfig) -> int:
    """Export, and say which version that made."""
    from serving.export import export as run

    print(f"model version: {run(config)}")
    return DONE


def serve(config: ServeConfig) -> int:
    """Serve until interrupted."""
    from serving.serve import serve as run

    run(config, announce=lambda text: print(text, flush=True))
    return DONE


def load(config: LoadConfig) -> int:
    """Load a version, and say which one serves."""
    from serving.load import load as run

    print(f"model {config.model} serves version {', '.join(map(str, run(config)))}")
    return DONE


def chat(config: ChatConfig) -> int:
    """Talk to an endpoint until the user leaves."""
    from serving.chat import chat as run

    run(config)
    return DONE


def deploy(config: DeployConfig) -> int:
    """Write the folder, and say what was derived and what to run."""
    from trimaran.deploy.run import deploy as run

    run(config, announce=lambda text: print(text, flush=True))
    return DONE


def loadtest(config: LoadTestConfig) -> int:
    """Load an endpoint; fail where a limit is broken, or the load was not the one that was asked for."""
    from loadtests.report.texts import tiles
    from loadtests.run import run_load_test

    result = run_load_test(config)
    for tile in tiles(json.loads(result.results_json.read_text(encoding="utf-8"))):
        figure = f"{tile['value']} {tile['unit']}".strip()
        print(f"{tile['label']:16} {figure:>10}   {tile['note']}")
    print(f"report: {result.report_html}\nresults: {result.results_json}")
    print(f"verdict: {result.verdict.outcome}")
    for reason in result.verdict.reasons:
        print(f"  {reason}")
    for note in result.remarks:
        print(f"note: {note}")
    if result.interrupted:
        # Written and judged so far, but no gate may take it for the whole run.
        raise KeyboardInterrupt
    if result.verdict.invalid:
        return RUN_INVALID
    return DONE if result.verdict.passed else VERDICT_FAILED


def loadtest_history(config: HistoryConfig) -> int:
    """List runs, and say where their page is."""
    from loadtests.history.run import history

    found = history(config)
    print(found.as_json() if config.json else found.as_text())
    if config.page is not None and not config.json:
        print(f"page: {config.page}")
    return DONE


def loadtest_sweep(config: SweepConfig) -> int:
    """Find the highest good load; fail where none is, or it is lower than required."""
    from loadtests.sweep.run import run_sweep

    result = run_sweep(config, announce=lambda text: print(text, flush=True))
    print(result)
    if result.interrupted:
        raise KeyboardInterrupt
    return {"passed": DONE, "failed": VERDICT_FAILED, "invalid": RUN_INVALID}[result.outcome]


def sweep(config: ServingSweepConfig) -> int:
    """Try serving configurations; fail where none meets the limits."""
    from trimaran.sweep.run import sweep_serving

    result = sweep_serving(config, announce=lambda text: print(text, flush=True))
    print(result)
    if result.interrupted:
        raise KeyboardInterrupt
    return {"passed": DONE, "failed": VERDICT_FAILED, "invalid": RUN_INVALID}[result.outcome]
