"""Serving, side by side: Trimaran's engines and their peers on this machine.

Each peer gets the same checkpoint (SmolLM2-135M-Instruct) and the same requests: prompts of 16 to 128
tokens, output lengths exponential with mean 48, clipped to 4 to 192 and forced, greedy, in a closed loop
of 1, 8 and 32 users. Peers take turns in interleaved rounds; figures are medians over the rounds.

  make bench-serving                            everything, some hours on two cores; both pages
  python -m benchmarks.serving --quick          under 5 minutes: nothing is built, fewer requests, one round
  python -m benchmarks.serving --list           the peers there are
  python -m benchmarks.serving --peers triton-openvino-int8,llamacpp-q8_0 --concurrency 1
  python -m benchmarks.serving --full           128 requests instead of 32, at 8 and 32 users: serving-128
  python -m benchmarks.serving --both           the usual page, and then that of --full

Peers are installed into environments of their own under the cache folder (~/.cache/trimaran/bench), with
pins and flags as their files in benchmarks/serving_peers/ have them. A peer that cannot run here is named
in the table with the reason. What has been measured is kept: a run that was cut short goes on where it
was; --fresh begins anew. The last line printed is one JSON object of ratios, keys "OURS/PEER@cN".

Exit code 1: measured, but the run does not count, because on the design's kind of machine a peer stayed
below 0.9 of its figure there; the lines before the JSON say which. A --quick look is never judged.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.cells import CellStore
from benchmarks.design_figures import floor_shares, peer_shares, shortfalls
from benchmarks.machine import is_of_design_kind, machine_facts, measure_floors
from benchmarks.options import numbers
from benchmarks.plot import plot_serving
from benchmarks.preparation import make_setting, tell
from benchmarks.prompts import prompt_texts
from benchmarks.ratios import ratios_of
from benchmarks.reference import Reference
from benchmarks.report import render_report
from benchmarks.results import peer_results
from benchmarks.rounds import Plan, prepare_peers, run_rounds
from benchmarks.serving_peers.peer import Peer
from benchmarks.serving_peers.registry import all_peers, default_keys, quick_keys
from benchmarks.setting import Setting
from benchmarks.workload import fingerprint, make_items
from checkpoints.errors import TrimaranError
from checkpoints.manifest import read_manifest

__all__ = ["main"]

_BYTES = {"fp32": 4, "bf16": 2, "fp16": 2, "int8": 1}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    options = _parse(arguments)
    try:
        with make_setting(options.checkpoint, options.precision, threads=options.threads) as setting:
            return _run(options, setting)
    except TrimaranError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def _run(options: argparse.Namespace, setting: Setting) -> int:
    known = all_peers(setting)
    if options.list:
        print("\n".join(f"{key:32s} {peer.note}" for key, peer in known.items()))
        return 0
    keys = options.peers or (quick_keys(setting) if options.quick else default_keys(setting))
    if unknown := [key for key in keys if key not in known]:
        print(f"error: no peer {', '.join(unknown)}; --list names them all", file=sys.stderr)
        return 2
    peers = [known[key] for key in keys]

    facts = machine_facts()
    tell(f"{facts['cpu']}, {facts['cores']} cores, {', '.join(facts['cpu_flags'])}")
    if not is_of_design_kind(facts):
        tell("not the kind of machine of the design's table (2 AMD cores with avx512_bf16)")
    floors = measure_floors(setting.threads, setting.precision)
    prepared = prepare_peers(peers, tell)
    pages = []
    for full in (False, True) if options.both else (options.full,):
        results = _measure(
            _plan(options, setting, full), setting, peers, prepared, facts, floors, options.fresh
        )
        name = "serving-128" if full else "serving"
        pages.append(_write(results, options.output, name, judged=not options.quick))
    return _conclude(pages)


def _measure(
    plan: Plan,
    setting: Setting,
    peers: Sequence[Peer],
    prepared: tuple[list[Peer], dict[str, str]],
    facts: dict[str, Any],
    floors: dict[str, float],
    fresh: bool,
) -> dict[str, Any]:
    """Return the results of one page."""
    store = CellStore(setting.cache / f"cells-{_run_name(plan, setting, facts)}.json", fresh=fresh)
    ready, failed = prepared
    failed = failed | run_rounds(ready, plan, store, tell)
    tell("comparing texts with the fp32 reference")
    manifest = read_manifest(setting.checkpoint)
    reference = Reference(setting.checkpoint, manifest.tokens.stop, store)
    return {
        "made": time.strftime("%Y-%m-%d"),
        "machine": facts,
        "floors": floors,
        "ceilings": _ceilings(floors, manifest.parameters, setting.precision),
        "precision": setting.precision,
        "threads": setting.threads,
        "rounds": plan.rounds,
        "concurrency": list(plan.items),
        "workload": _workload_facts(plan),
        "checkpoint": setting.checkpoint_hash,
        "peers": peer_results(peers, plan, store, reference, failed),
    }


def _plan(options: argparse.Namespace, setting: Setting, full: bool) -> Plan:
    texts = prompt_texts(setting.checkpoint, setting.cache / "data")
    quick = {1: 3, 8: 8, 32: 32}
    default = [1, 8] if options.quick else [8, 32] if full else [1, 8, 32]
    usual = 128 if full else 32
    items = {
        users: make_items(texts, options.requests or (quick.get(users, usual) if options.quick else usual))
        for users in options.concurrency or default
    }
    return Plan(items, options.rounds or (1 if options.quick else 3))


def _run_name(plan: Plan, setting: Setting, facts: dict[str, Any]) -> str:
    """What must be equal for figures to be reused: the work, the weights, the machine, the threads."""
    from benchmarks.environments import key_of

    work = [f"{users}:{fingerprint(items)}" for users, items in plan.items.items()]
    return key_of(*work, setting.checkpoint_hash, facts["cpu"], str(facts["cores"]), str(setting.threads))


def _ceilings(floors: dict[str, float], parameters: int, precision: str) -> dict[str, Any]:
    read = floors["read_bytes_per_second"]
    return {
        "read": {name: round(read / (parameters * size), 1) for name, size in _BYTES.items()},
        "matmul": round(floors["matmul_flops_per_second"] / (2 * parameters), 1),
    }


def _workload_facts(plan: Plan) -> dict[str, Any]:
    longest = max(plan.items.values(), key=len)
    return {"requests": len(longest), "fingerprint": fingerprint(longest)}


def _write(results: dict[str, Any], output: Path, name: str, *, judged: bool) -> dict[str, Any]:
    """Write a page and its results, and return them with verdict and ratios."""
    matches = is_of_design_kind(results["machine"])
    below = shortfalls(results["peers"], results["concurrency"]) if matches and judged else []
    results["design"] = {
        "machine_matches": matches,
        "judged": judged and matches,
        "shortfalls": below,
        "peer_shares": peer_shares(results["peers"], results["concurrency"]) if matches else {},
        "floor_shares": floor_shares(results["floors"]) if matches and results["precision"] == "bf16" else {},
    }
    results["ratios"] = ratios_of(results["peers"])
    output.mkdir(parents=True, exist_ok=True)
    (output / f"{name}.json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    page = render_report(results, f"{name}.png")
    (output / f"{name}.md").write_text(page, encoding="utf-8")
    if any(facts["concurrency"] for facts in results["peers"].values()):
        plot_serving(results, output / f"{name}.png")
    print(page)
    tell(f"written: {output}/{name}.json, {name}.md, {name}.png")
    return results


def _conclude(pages: Sequence[dict[str, Any]]) -> int:
    """Say which run does not count, and last the ratios of the first page; return the exit code."""
    for results in pages:
        for line in results["design"]["shortfalls"]:
            requests = results["workload"]["requests"]
            tell(f"the run of {requests} requests DOES NOT COUNT: below 0.9 of the design's figure: {line}")
        shares = results["design"]["floor_shares"]
        if results["design"]["shortfalls"] and shares:
            tell(
                f"this machine itself reads {shares['read_bytes_per_second']:.2f} and multiplies "
                f"{shares['matmul_flops_per_second']:.2f} of what the design's did"
            )
    print(json.dumps(pages[0]["ratios"]))
    return 1 if any(results["design"]["shortfalls"] for results in pages) else 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.serving",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--quick", action="store_true", help="under 5 minutes: nothing is built, 3 and 8 requests, one round")
    add("--full", action="store_true",
        help="128 requests instead of 32, at 8 and 32 users; results are named serving-128")  # fmt: skip
    add("--both", action="store_true", help="first the usual page, then that of --full")
    add("--requests", type=int, metavar="N", help="requests per concurrency")
    add("--peers", type=_list, metavar="A,B", help="only these peers (--list)")
    add("--list", action="store_true", help="print the peers and stop")
    add("--rounds", type=int, metavar="N", help="interleaved rounds (default 3; with --quick 1)")
    add("--concurrency", type=numbers(), metavar="1,8,32", help="users at once")
    add("--precision", choices=("auto", "fp32", "bf16"), default="auto",
        help="of transformers, vLLM and our torch engine; auto: bf16 where the processor has it")  # fmt: skip
    add("--threads", type=int, help="math threads of each engine (default: the cores)")
    add("--checkpoint", type=Path, help="another checkpoint with a manifest (default: SmolLM2-135M-Instruct)")
    add("--output", type=Path, metavar="FOLDER", default=None,
        help="where the results go (default benchmarks/results; with --quick out/bench)")  # fmt: skip
    add("--fresh", action="store_true", help="measure everything again")
    options = parser.parse_args(arguments)
    if (options.full or options.both) and (options.quick or options.requests):
        parser.error("--full is 128 requests; leave --quick and --requests out")
    if options.full and options.both:
        parser.error("--both includes --full; give one of them")
    if options.output is None:
        options.output = Path("out/bench") if options.quick else Path(__file__).parent / "results"
    for name in ("requests", "rounds", "threads"):
        if (value := getattr(options, name)) is not None and value < 1:
            parser.error(f"--{name} is {value}; accepted: at least 1")
    return options


def _list(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


if __name__ == "__main__":
    sys.exit(main())
