"""Dataclass, YAML and command line are one thing, and a wrong one of them is told exactly."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import pytest

from checkpoints.errors import ConfigError
from trimaran import command_table
from trimaran.cli import main
from trimaran.command_fields import walk_fields
from trimaran.command_parser import parse_command
from trimaran.command_table import COMMANDS, Command, find_command

REPOSITORY = Path(__file__).resolve().parents[2]
RECIPES = sorted(
    path for path in (REPOSITORY / "recipes").rglob("*.yaml") if path.parent.name != "accelerate"
)


@dataclass
class Sail:
    """A section."""

    area: float = 10.0
    """Area in square metres."""
    colours: list[str] = field(default_factory=lambda: ["white"])
    """Colours, 100% fast."""
    reefs: int | None = None
    """Reefs."""


@dataclass
class Boat:
    """Launch a boat."""

    POSITIONAL: ClassVar[tuple[str, ...]] = ("name",)

    name: Path
    """What it is called."""
    hull_count: int
    """How many hulls."""
    material: Literal["wood", "steel"] = "wood"
    """Built of this."""
    crew: str | list[str] = "all"
    """Who sails."""
    painted: bool = True
    """Whether it is painted."""
    sail: Sail = field(default_factory=Sail)
    """The sail."""

    def __post_init__(self) -> None:
        if self.hull_count < 1:
            raise ConfigError(f"hull_count is {self.hull_count}; accepted: 1 and more")


BOAT = Command("boat", "launch", f"{__name__}:Boat", "sea", ("trimaran boat Moana --hull-count 3",))


def boat(line: str) -> Boat:
    config, _ = parse_command(BOAT, shlex.split(line))
    assert isinstance(config, Boat)
    return config


def test_options_and_positional() -> None:
    found = boat("Moana --hull-count 3 --sail.area 2.5 --no-painted --sail.colours red,blue --sail.reefs 2")
    assert found == Boat(Path("Moana"), 3, "wood", "all", False, Sail(2.5, ["red", "blue"], 2))


@pytest.mark.parametrize(
    "line",
    [
        "Moana --hull_count 3",
        "--hull-count=3 Moana",
        "--name Moana --hull-count 3",
        "Moana --hull-count 3 --painted=true --painted",
    ],
)
def test_spellings_that_mean_the_same(line: str) -> None:
    assert boat(line) == Boat(Path("Moana"), 3)


def test_single_value_or_list() -> None:
    assert boat("M --hull-count 1 --crew ann").crew == "ann"
    assert boat("M --hull-count 1 --crew ann,李").crew == ["ann", "李"]
    assert boat("M --hull-count 1 --crew '[ann]'").crew == ["ann"]


def test_yaml_fills_and_command_line_wins(tmp_path: Path) -> None:
    file = write(
        tmp_path, "name: Moana\nhull_count: 2\nsail:\n  area: 1e2\n  colours: [red]\npainted: false\n"
    )
    assert boat(f"--config {file}") == Boat(Path("Moana"), 2, painted=False, sail=Sail(100.0, ["red"]))
    assert boat(f"--config {file} Maui --sail.area 3 --painted") == Boat(
        Path("Maui"), 2, sail=Sail(3.0, ["red"])
    )
    later = write(tmp_path, "hull_count: 5\n", "later.yaml")
    assert boat(f"--config {file} --config={later}").hull_count == 5


def test_none_can_be_said(tmp_path: Path) -> None:
    file = write(tmp_path, "name: M\nhull_count: 2\nsail: {reefs: 4}\n")
    assert boat(f"--config {file}").sail.reefs == 4
    assert boat(f"--config {file} --sail.reefs null").sail.reefs is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("hul_count: 3\n", "unknown key `hul_count`; did you mean hull_count?"),
        ("sail:\n  aria: 3\n", "unknown key `sail.aria`; did you mean area?"),
        ("zzz: 3\n", "unknown key `zzz`; accepted: name, hull_count, material, crew, painted, sail"),
        ("sail: 3\n", "`sail` is a section"),
        ("- a\n- b\n", "expected `key: value` lines, found a list"),
        ("name: [unclosed\nhull_count: 3\n", "boat.yaml:2: not valid YAML"),
    ],
)
def test_wrong_yaml_names_key_and_file(tmp_path: Path, text: str, said: str) -> None:
    file = write(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        boat(f"--config {file}")
    assert said in str(caught.value)
    assert str(file) in str(caught.value)


def test_yaml_that_is_not_text(tmp_path: Path) -> None:
    file = tmp_path / "boat.yaml"
    file.write_bytes(b"name: \xff\xfe")
    with pytest.raises(ConfigError, match="cannot be read as YAML"):
        boat(f"--config {file}")


def test_missing_file_names_the_recipes() -> None:
    with pytest.raises(
        ConfigError, match=r"no such file; packaged recipes: .*recipes/smollm2-135m/lora\.yaml"
    ):
        boat("--config recipes/smollm2-135m/laro.yaml")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("", "missing: NAME, --hull-count"),
        ("M --hull-count three", "--hull-count: expected a whole number, got 'three'"),
        ("M --hull-count 3 --sail.area wide", "--sail.area: expected a number, got 'wide'"),
        ("M --hull-count 3 --sail.reefs x", "--sail.reefs: expected a whole number or null, got 'x'"),
        ("M --hull-count 3 --material gold", "--material: expected one of wood, steel, got 'gold'"),
        ("M --hull-count 3 --sail.aera 3", "unknown option --sail.aera; did you mean --sail.area?"),
        ("M --hull-count 3 extra", "unexpected argument 'extra'"),
        ("M --hull-count 3 --no-such=1", "unknown option --no-such"),
    ],
)
def test_wrong_command_line_exits_2(line: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        boat(line)
    assert stop.value.code == 2
    assert said in capsys.readouterr().err


def test_wrong_type_in_yaml_names_the_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write(tmp_path, "name: M\nhull_count: three\n")
    with pytest.raises(SystemExit):
        boat(f"--config {file}")
    assert f"--hull-count: expected a whole number, got 'three' (in {file})" in capsys.readouterr().err


def test_range_is_the_dataclass_own(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(command_table.COMMANDS, "boat", BOAT)
    assert main(["boat", "M", "--hull-count", "0"]) == 2
    assert capsys.readouterr().err == "error: hull_count is 0; accepted: 1 and more\n"


def test_help_teaches(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        boat("--help")
    text = capsys.readouterr().out
    for part in (
        "usage: trimaran boat NAME --hull-count N [options]",
        "Launch a boat.",
        "Colours, 100% fast. (default: white)",
        "--material {wood,steel}",
        "--crew TEXT[,...]",
        "--painted, --no-painted",
        "trimaran boat Moana --hull-count 3",
    ):
        assert part in text


@pytest.mark.parametrize("path", RECIPES, ids=[str(path.relative_to(REPOSITORY)) for path in RECIPES])
def test_recipe_parses_and_so_does_the_command_in_its_header(
    path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)  # so that recipes/... is the packaged one
    header = [line.lstrip("# ") for line in path.read_text(encoding="utf-8").splitlines() if line[:1] == "#"]
    (line,) = [line for line in header if line.startswith("trimaran ")]
    assert str(path.relative_to(REPOSITORY)) in line
    assert parse_line(line) is not None


@pytest.mark.parametrize("line", [line for row in COMMANDS.values() for line in row.examples])
def test_example_parses(line: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert parse_line(line) is not None


def parse_line(line: str) -> Any:
    program, *words = shlex.split(line)
    assert program == "trimaran"
    return parse_command(*find_command(words))[0]


def write(folder: Path, text: str, name: str = "boat.yaml") -> Path:
    file = folder / name
    file.write_text(text, encoding="utf-8")
    return file


@pytest.fixture
def boat_with_a_command_of_its_own(monkeypatch: pytest.MonkeyPatch) -> Command:
    nested = Command(
        "boat race", "race it", f"{__name__}:Race", "sea", ("trimaran boat race --hull-count 2",)
    )
    for row in (replace(BOAT, config=f"{__name__}:Sail"), nested):
        monkeypatch.setitem(command_table.COMMANDS, row.name, row)
    return nested


@dataclass
class Race(Boat):
    """Race a boat."""

    POSITIONAL: ClassVar[tuple[str, ...]] = ()

    name: Path = field(default=Path("Moana"), init=False)
    material: Literal["wood", "steel"] = "steel"
    """Of something that is fast."""
    distance: int = 5
    """In miles."""


def test_a_nested_command_is_found_by_two_words(boat_with_a_command_of_its_own: Command) -> None:
    assert find_command(["boat", "race", "--x"]) == (boat_with_a_command_of_its_own, ["--x"])
    assert find_command(["boat", "--x"])[1] == ["--x"]
    assert boat_with_a_command_of_its_own.function == "boat_race"


def test_a_config_may_extend_another(
    boat_with_a_command_of_its_own: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    assert parse_line("trimaran boat race --hull-count 2 --distance 3") == Race(2, distance=3)
    with pytest.raises(SystemExit):
        parse_line("trimaran boat race --help")
    text = capsys.readouterr().out
    assert "usage: trimaran boat race --hull-count N [options]" in text
    assert "How many hulls." in text  # from the class it extends
    assert "Of something that is fast. (default: steel)" in text
    assert "--name" not in text
    assert text.index("--distance") < text.index("--crew")  # its own settings come first


@pytest.mark.usefixtures("boat_with_a_command_of_its_own")
def test_help_names_the_commands_within_and_a_typing_error_the_closest(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit):
        parse_line("trimaran boat --help")
    assert "trimaran boat race  race it" in capsys.readouterr().out
    assert main(["boat", "rase"]) == 2
    assert "unexpected argument 'rase'; did you mean boat race?" in capsys.readouterr().err


def test_one_name_is_a_list_of_one_where_only_lists_are_accepted() -> None:
    config, _ = parse_command(COMMANDS["serve"], ["models", "--models", "llm"])
    assert config.models == ["llm"]
    config, _ = parse_command(COMMANDS["serve"], ["models", "--models", "llm,llm_infer"])
    assert config.models == ["llm", "llm_infer"]


@dataclass
class Rigging:
    """What carries sails.

    More about it.
    """

    masts: int = 2
    """Masts."""
    flag: str = "none"
    """Flag."""


@dataclass
class Ship(Rigging):
    """Launch a ship."""

    name: str = "Hina"
    """What it is called."""
    flag: str = "blue"
    """Flag of a ship."""


def test_what_a_config_inherits_comes_last_under_the_name_of_its_class(
    capsys: pytest.CaptureFixture[str],
) -> None:
    ship = Command("ship", "launch", f"{__name__}:Ship", "sea", ("trimaran ship",))
    fields = [(one.name, one.section, one.text) for one in walk_fields(Ship)]
    assert fields == [
        ("flag", "", "Flag of a ship."), ("name", "", "What it is called."),
        ("masts", "What carries sails", "Masts."),
    ]  # fmt: skip
    config, _ = parse_command(ship, ["--masts", "3", "--name", "Moana"])
    assert config == Ship(masts=3, name="Moana")
    with pytest.raises(SystemExit):
        parse_command(ship, ["--help"])
    shown = capsys.readouterr().out
    assert shown.index("--name") < shown.index("What carries sails:") < shown.index("--masts")
