"""Text -> words, with a blank spaCy pipeline: rules of a language for tokens, nothing to download."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from checkpoints.errors import ConfigError
from training.data.extra import import_extra

__all__ = ["SplitText", "WordSplitter"]

_IDEOGRAPHS = r"\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_MARKS = r"\u3000-\u303f\uff01-\uff0f\uff1a-\uff20"  # full-width punctuation
# Chinese and Japanese are written without spaces; each character counts as a word, whatever the language.
_PIECES = re.compile(rf"[{_IDEOGRAPHS}]|[^{_IDEOGRAPHS}{_MARKS}]+")


@dataclass(frozen=True)
class SplitText:
    """The words of a text."""

    words: list[str]
    """In lower case, without punctuation: what has a letter or a digit."""
    stop_words: int


class WordSplitter:
    """Splits texts by the rules of one language."""

    def __init__(self, language: str) -> None:
        """Make the pipeline.

        Raises:
            ConfigError: spaCy is not installed, does not know the language, or needs more for it.
        """
        spacy = import_extra("spacy", "cleaning data")
        try:
            self._pipeline: Any = spacy.blank(language)
        except (ImportError, ValueError) as error:
            raise ConfigError(
                f"language = {language}: spaCy has no rules for it, or needs a package more; use xx for any "
                f"language. spaCy says: {str(error).splitlines()[0]}"
            ) from error
        self._pipeline.max_length = 2**31  # the limit is for models; there are none

    def split(self, texts: Sequence[str]) -> Iterator[SplitText]:
        """Yield the words of each text."""
        with self._pipeline.memory_zone():  # or its vocabulary would grow with every new word
            for document in self._pipeline.pipe(texts):
                words: list[str] = []
                stop_words = 0
                for token in document:
                    text: str = token.lower_
                    if any(character.isalnum() for character in text):
                        words += _PIECES.findall(text)
                        stop_words += bool(token.is_stop)
                yield SplitText(words, stop_words)
