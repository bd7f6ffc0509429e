from __future__ import annotations

import pytest

from loadtests.durations import format_duration, parse_duration
from loadtests.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [("500ms", 500_000_000), ("1.5s", 1_500_000_000), ("1m30s", 90_000_000_000), ("250us", 250_000)],
)
def test_durations_are_exact_nanoseconds(text: str, nanoseconds: int) -> None:
    assert parse_duration(text, "duration") == nanoseconds


@pytest.mark.parametrize("text", ["30", "", "s", "-5s", "5 parsecs", "1e3s", "0s", "5s later"])
def test_a_bad_duration_names_its_field(text: str) -> None:
    with pytest.raises(ConfigError, match=r"^max_ttft_p95: "):
        parse_duration(text, "max_ttft_p95")


def test_zero_only_where_it_makes_sense() -> None:
    assert parse_duration("0s", "warmup", allow_zero=True) == 0


@pytest.mark.parametrize(
    ("nanoseconds", "text"),
    [(812_000, "812 us"), (51_300_000, "51.3 ms"), (812_400_000, "812 ms"), (2_340_000_000, "2.34 s")],
)
def test_durations_for_people(nanoseconds: int, text: str) -> None:
    assert format_duration(nanoseconds) == text
