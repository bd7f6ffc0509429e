"""What a row says, turn by turn: what is asked, and what is answered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from training.data.cleaning.words import SplitText
from training.data.formats import Row

__all__ = ["RowText", "RowWords", "text_of", "words_of"]


@dataclass(frozen=True)
class RowText:
    """The texts of a row."""

    system: str
    """System turns. Many rows have the same, so only duplicates are told apart by them."""
    parts: tuple[tuple[bool, str], ...]
    """(whether it is an answer, text) of each other turn. A row that is one text is an answer."""

    @property
    def text(self) -> str:
        """All but the system turns."""
        return "\n".join(text for _, text in self.parts)

    @property
    def asked(self) -> str:
        """What the model is asked; of a row that is one text, that text."""
        asked = "\n".join(text for answer, text in self.parts if not answer)
        return asked or self.text


@dataclass(frozen=True)
class RowWords:
    """The words of a row, system turns left out."""

    all: list[str]
    asked: list[str]
    answered: list[str]
    stop_words: int


def text_of(row: Row) -> RowText:
    """Return what ``row`` says."""
    system = [turn["content"] for turn in row.messages if turn["role"] == "system"]
    turns = [
        (turn["role"] == "assistant", turn["content"]) for turn in row.messages if turn["role"] != "system"
    ]
    parts = [*turns, (False, row.prompt), (True, row.completion), (True, row.text)]
    return RowText("\n".join(system), tuple((answer, text) for answer, text in parts if text))


def words_of(text: RowText, split: Sequence[SplitText]) -> RowWords:
    """Return the words of ``text``, of whose parts ``split`` has one each."""
    by_part = list(zip((answer for answer, _ in text.parts), split, strict=True))
    return RowWords(
        all=[word for one in split for word in one.words],
        asked=[word for answer, one in by_part if not answer for word in one.words],
        answered=[word for answer, one in by_part if answer for word in one.words],
        stop_words=sum(one.stop_words for one in split),
    )
