"""Which settings of a workload are out of range, and which clash."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loadtests.errors import ConfigError
from loadtests.workloads.lengths import parse_lengths
from loadtests.workloads.pauses import parse_pause

if TYPE_CHECKING:
    from loadtests.workloads.settings import WorkloadSettings

__all__ = ["WORKLOADS", "check_workload_settings"]

WORKLOADS = ("prompts", "sharegpt", "humaneval", "gsm8k", "synthetic")
"""Everything that ``--workload`` takes."""
_OF_FILES = ("prompts", "sharegpt")
_OF_TURNS = ("prompts", "sharegpt", "synthetic")


def check_workload_settings(settings: WorkloadSettings) -> None:
    """Check every setting by itself and against the others.

    Raises:
        ConfigError: one is out of range, missing or without a meaning.
    """
    if settings.workload not in WORKLOADS:
        raise ConfigError(f"workload: {settings.workload!r} is unknown; known: {', '.join(WORKLOADS)}")
    _check_ranges(settings)
    _check_sources(settings)
    _check_companions(settings)
    for name in ("input_tokens", "output_tokens"):
        if (text := getattr(settings, name)) is not None:
            parse_lengths(str(text), name)
    parse_pause(settings.think_time)


def _check_sources(settings: WorkloadSettings) -> None:
    chosen, synthetic = settings.workload, settings.workload == "synthetic"
    if settings.prompts is not None and chosen not in _OF_FILES:
        raise ConfigError(
            f"prompts: {settings.prompts} has no meaning with workload: {chosen}; "
            f"it works with workload: {', '.join(_OF_FILES)}"
        )
    if chosen == "sharegpt" and settings.prompts is None:
        raise ConfigError("prompts: workload: sharegpt needs a JSON file of conversations")
    if synthetic and settings.input_tokens is None:
        raise ConfigError("input_tokens: workload: synthetic needs lengths, such as 200 or uniform:16..128")
    if not synthetic and settings.input_tokens is not None:
        raise ConfigError(
            f"input_tokens: {settings.input_tokens} has no meaning with workload: {chosen}; "
            "it works with workload: synthetic"
        )
    if settings.turns > 1 and chosen not in _OF_TURNS:
        raise ConfigError(
            f"turns: {settings.turns} has no meaning with workload: {chosen}, whose prompts are single; "
            f"it works with workload: {', '.join(_OF_TURNS)}"
        )
    if settings.tokenizer is None and (synthetic or settings.prefixes is not None):
        what = "workload: synthetic" if synthetic else f"prefixes: {settings.prefixes}"
        raise ConfigError(
            f"tokenizer: {what} counts tokens and needs the model's tokenizer.json "
            "(the checkpoint and the exported model have it)"
        )


def _check_companions(settings: WorkloadSettings) -> None:
    """Refuse what would be ignored."""
    for field, companion, missing in (
        ("prefix_tokens", "prefixes", settings.prefixes is None),
        ("prefix_share", "prefixes", settings.prefixes is None),
        ("unique_prompts", "workload: synthetic", settings.workload != "synthetic"),
    ):
        value = getattr(settings, field)
        if missing and value != getattr(type(settings), field):
            raise ConfigError(f"{field}: {value} has no meaning without {companion}")


def _check_ranges(settings: WorkloadSettings) -> None:
    for field in ("max_tokens", "unique_prompts", "prefixes", "prefix_tokens", "turns"):
        value = getattr(settings, field)
        if value is not None and value < 1:
            raise ConfigError(f"{field}: {value} is too small; the least is 1")
    for field, lowest, highest in (
        ("temperature", 0, 5),
        ("prefix_share", 0, 1),
        ("top_p", 0, 1),
        ("top_k", 0, 2**31 - 1),
        ("min_p", 0, 1),
        ("repetition_penalty", 0, 10),
        ("presence_penalty", -10, 10),
        ("frequency_penalty", -10, 10),
    ):
        value = getattr(settings, field)
        if value is not None and not lowest <= value <= highest:
            raise ConfigError(f"{field}: {value} is not between {lowest} and {highest}")
    for field in ("top_p", "repetition_penalty"):
        if getattr(settings, field) == 0:
            raise ConfigError(f"{field}: 0 must be above 0")
