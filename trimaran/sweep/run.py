"""``trimaran sweep``: export, serve, measure, stop; then the next configuration."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from checkpoints.atomic import write_text_atomically
from checkpoints.errors import TrimaranError
from checkpoints.manifest import manifest_sha256
from loadtests.errors import EndpointError, OutputError
from loadtests.output import default_output
from loadtests.run import check_files
from loadtests.sweep.config import SweepConfig
from loadtests.sweep.folder import SWEEP_NAME, open_folder
from loadtests.sweep.result import SweepResult
from loadtests.sweep.run import run_sweep
from serving.export import export
from serving.triton_install import find_triton
from serving.triton_server import TritonServer
from trimaran.sweep.candidates import Candidate
from trimaran.sweep.config import ServingSweepConfig
from trimaran.sweep.page import render_page
from trimaran.sweep.result import Outcome, ServingSweepResult

__all__ = ["sweep_serving"]

logger = logging.getLogger(__name__)

BEST_NAME = "best.yaml"


def sweep_serving(
    config: ServingSweepConfig, announce: Callable[[str], None] = logger.info
) -> ServingSweepResult:
    """Try every configuration; write ``sweep.json``, ``sweep.html`` and ``best.yaml``.

    Only one server runs at a time, and it is stopped whatever happens. The first Ctrl-C ends the sweep: what
    was measured until then is written. Points that the output directory holds already are kept.

    Args:
        config: the settings.
        announce: takes lines for the user.

    Raises:
        ManifestError: the checkpoint has no manifest.
        ServerError: there is no Triton.
        LoadTestError: a setting of the load, a file it names, or the output cannot be used.
    """
    now = datetime.now(UTC)
    fingerprint = manifest_sha256(config.checkpoint)
    candidates = config.candidates()
    check_files(config.point(config.loads[0] if config.loads else config.start))
    find_triton()  # without one every configuration would be exported for nothing
    output, started = _open(config, now)
    places = [f"configurations/{one.directory(fingerprint)}" for one in candidates]
    # A directory with other settings is found before the first export.
    for candidate, place in zip(candidates, places, strict=True):
        if (output / place).exists():
            open_folder(config.endpoint(candidate.export.name, output / place), now.astimezone(), moved=True)
    outcomes: list[Outcome] = []
    interrupted = False
    for number, (candidate, place) in enumerate(zip(candidates, places, strict=True), 1):
        announce(f"[{number}/{len(candidates)}] {candidate.label}")
        try:
            outcome = _try(config, candidate, output, place, announce)
        except KeyboardInterrupt:
            interrupted = True
            break
        outcomes.append(outcome)
        if outcome.error is not None:
            announce(f"  skipped: {outcome.error}")
        interrupted = outcome.sweep is not None and outcome.sweep.interrupted
        _write(ServingSweepResult(config, started, output, outcomes, interrupted))
        if interrupted:
            break
    result = ServingSweepResult(config, started, output, outcomes, interrupted)
    _write(result)
    return result


def _try(
    config: ServingSweepConfig,
    candidate: Candidate,
    output: Path,
    place: str,
    announce: Callable[[str], None],
) -> Outcome:
    """Export, serve and measure one configuration, as far as that is not done."""
    name, target = candidate.export.name, output / place
    if (done := _finished(config.endpoint(name, target))) is not None:
        announce("  measured already")
        return Outcome(candidate, place, done)
    repository = output / "repositories" / target.name
    shutil.rmtree(repository, ignore_errors=True)
    try:
        export(candidate.into(repository))
        with TritonServer(repository, start_timeout=config.start_timeout) as server:
            url = f"grpc://{server.grpc_url}" if config.protocol == "grpc" else server.http_url
            endpoint = config.endpoint(name, target, url, server.metrics_url)
            done = run_sweep(endpoint, lambda line: announce(f"  {line}"), moved=True)
            return Outcome(candidate, place, done)
    except (TrimaranError, EndpointError, RuntimeError, MemoryError) as error:
        # Also what a library raises, such as for memory that is not there: it must not cost the others.
        known = isinstance(error, TrimaranError | EndpointError)
        logger.log(
            logging.DEBUG if known else logging.WARNING, "%s: skipped", candidate.label, exc_info=error
        )
        return Outcome(candidate, place, None, str(error) or type(error).__name__)
    finally:
        if not config.keep_repositories:
            shutil.rmtree(repository, ignore_errors=True)
            _remove_if_empty(repository.parent)


def _finished(endpoint: SweepConfig) -> SweepResult | None:
    """Return the load tests of a configuration that needs no more, else None."""
    assert endpoint.output is not None
    if not endpoint.output.exists():
        return None
    now = datetime.now(UTC)
    folder, search = open_folder(endpoint, now, moved=True), endpoint.search()
    if search.next_load(folder.points) is not None and len(folder.points) < endpoint.max_points:
        return None
    started = folder.started or now.isoformat(timespec="seconds")
    return SweepResult(endpoint, started, folder.points, search.conclude(folder.points), folder.path)


def _open(config: ServingSweepConfig, now: datetime) -> tuple[Path, str]:
    """Return the output directory, made where it is not there, and when its sweep began.

    Raises:
        OutputError: it holds something else, or cannot be made.
    """
    target, started = config.output, now.isoformat(timespec="seconds")
    if target is None:
        plain = default_output(now.astimezone())
        target = plain.with_name(f"serving-{plain.name}")
    target = target.absolute()
    before = _read(target)
    if before is None and target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise OutputError(f"output: {target} exists and holds no sweep of configurations; choose another")
    if before is not None and config.overwrite:
        shutil.rmtree(target)
        before = None
    try:
        target.mkdir(parents=True, exist_ok=True)
        if before is None:
            _write(ServingSweepResult(config, started, target, []))
    except OSError as error:
        raise OutputError(f"output: {target} cannot be made: {error}") from error
    return target, started if before is None else before["started"]


def _read(target: Path) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = json.loads((target / SWEEP_NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) and found.get("kind") == "serving" else None


def _remove_if_empty(directory: Path) -> None:
    if directory.is_dir() and not any(directory.iterdir()):
        directory.rmdir()


def _write(result: ServingSweepResult) -> None:
    text = json.dumps(result.as_dict(), indent=2, ensure_ascii=False) + "\n"
    write_text_atomically(result.output / SWEEP_NAME, text)
    write_text_atomically(result.output / "sweep.html", render_page(result))
    best = result.best_yaml()
    if best is None:
        (result.output / BEST_NAME).unlink(missing_ok=True)
    else:
        write_text_atomically(result.output / BEST_NAME, best)
