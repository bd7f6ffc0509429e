"""The page as a browser lays it out: light and dark, on a desk and on a phone."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from PIL import Image

from tests.loadtests.browser import MODES, browse, look
from tests.loadtests.sample_run import sample_page


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report with everything that one can have: limits, a baseline, failures, the server's metrics."""
    return sample_page(tmp_path_factory.mktemp("runs"))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("width", [1280, 390])
def test_nothing_overlaps_or_overflows_and_all_can_be_read(page: Path, mode: str, width: int) -> None:
    found = look(page, "checked", page.read_text(encoding="utf-8"), mode, width)
    assert found["problems"] == []
    assert found["charts"] >= 14
    assert found["seen"] > 300
    bright = [int(channel) for channel in re.findall(r"\d+", found["before"])]
    assert (sum(bright) > 600) == (mode == "light"), found["before"]


def test_the_check_finds_what_is_wrong(page: Path) -> None:
    source = page.read_text(encoding="utf-8")
    spoiled = source.replace("</style>", """
      .tile { min-width: 700px; } .faint { color: #bbb; } #on { margin-top: -80px; }
    </style>""").replace("</main>", """
      <p class="card" id="on">on the card before</p><p class="faint">hard to read</p>
      <figure class="card"><svg viewBox="0 0 200 100" width="400"><text x="20" y="50">one text</text>
      <text x="30" y="52">another</text><text x="190" y="90">outside</text></svg></figure>
      </main>""")  # fmt: skip
    problems = "\n".join(look(page, "spoiled", spoiled, "light", 1280)["problems"])
    for expected in ("the page is ", '"on the card before"', "contrast 1.", '"another"', "outside its chart"):
        assert expected in problems, problems


def test_the_screenshots_show_a_page_in_two_themes(page: Path) -> None:
    pictures = {}
    for mode in MODES:
        target = page.with_name(f"{mode}.png")
        browse(page, mode, 1280, f"--screenshot={target}")
        pictures[mode] = Image.open(target).convert("RGB")
    assert {picture.size for picture in pictures.values()} == {(1280, 6000)}
    for mode, picture in pictures.items():
        grey = picture.convert("L")
        shades = grey.histogram()
        usual = max(range(256), key=shades.__getitem__)
        assert (usual > 200) == (mode == "light")
        # Not blank: texts and lines, in many colours, in every fifth of the upper part.
        assert len(picture.quantize(256).getcolors()) > 100
        for part in range(5):
            band = grey.crop((0, 600 * part, 1280, 600 * (part + 1)))
            assert band.getextrema()[1] - band.getextrema()[0] > 100, (mode, part)
