"""Text of an exact number of tokens, by the model's own tokenizer: the package ``tokenizers``, no torch."""

from __future__ import annotations

import json
import re
from pathlib import Path
from random import Random
from typing import Any

from loadtests.errors import ConfigError
from loadtests.workloads.jsonl import PACKAGED_PROMPTS

__all__ = ["TextMaker", "read_tokenizer"]

_TRIES = 40
_WORD = re.compile(r"\b[a-z]{3,}\b")
# What lengthens a text by little where no word fits; most tokenizers know each as a token.
_SMALL = tuple(".,;:!?-") + tuple("abcdefghijklmnopqrstuvwxyz")


def read_tokenizer(path: Path) -> TextMaker:
    """Read a ``tokenizer.json``, or the one in a directory.

    Raises:
        ConfigError: it cannot be read, or the package ``tokenizers`` is not installed.
    """
    file = path / "tokenizer.json" if path.is_dir() else path
    try:
        from tokenizers import Tokenizer
    except ImportError as error:
        raise ConfigError(
            "tokenizer: the package tokenizers is not installed; run: pip install 'trimaran[loadtest]'"
        ) from error
    try:
        content = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"tokenizer: {file} cannot be read: {error}") from error
    try:
        tokenizer = Tokenizer.from_str(content)
    except Exception as error:  # the package raises nothing more special
        raise ConfigError(
            f"tokenizer: {file} is no tokenizer.json of Hugging Face's tokenizers: {error}"
        ) from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return TextMaker(tokenizer, str(file))


class TextMaker:
    """Counts tokens and makes texts of words.

    The words are those of the packaged prompts in random order, so hardly two texts begin alike, and a prefix
    cache finds nothing that was not asked for.

    Args:
        tokenizer: ``tokenizers.Tokenizer``.
        name: for messages.
    """

    def __init__(self, tokenizer: Any, name: str) -> None:
        self._tokenizer = tokenizer
        self._name = name
        self.special = self.count("a") - len(self.ids("a"))
        """Tokens that the tokenizer itself adds to a text, such as BOS."""
        between = len(self.ids("the the"))
        self._costs = {word: max(1, len(self.ids(f"the {word} the")) - between) for word in _words()}
        self._words = sorted(self._costs)

    def count(self, text: str) -> int:
        """Return the number of tokens that the model gets for a text, special ones included."""
        return len(self._tokenizer.encode(text).ids)

    def make(self, tokens: int, random: Random, field: str, before: str = "") -> str:
        """Return a text of exactly so many tokens, special ones included; it is encoded again to make sure.

        Args:
            tokens: how many.
            random: decides which words.
            field: the setting that wants them, for the message.
            before: what the text begins with; its tokens stay the first ones and count.

        Raises:
            ConfigError: this tokenizer has no such text.
        """
        wanted, first = tokens - self.special, self.ids(before)
        for _ in range(_TRIES):
            text = self._fit(before, len(first), wanted, random)
            ids = self.ids(text) if text else []
            if text and len(ids) == wanted and ids[: len(first)] == first:
                return text
        raise ConfigError(
            f"{field}: {self._name} gives no text of {tokens} tokens"
            + (f" after a prefix of {len(first)}" if before else "")
            + (f", {self.special} of them special" if self.special else "")
            + "; choose other lengths"
        )

    def ids(self, text: str) -> list[int]:
        """Return the tokens of a text without special ones."""
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def _fit(self, before: str, start: int, wanted: int, random: Random) -> str:
        """Return words, and letters at the end, of about so many tokens."""
        words, left = [before] if before else [], wanted - start
        while left > 0:
            word = self._words[int(random.random() * len(self._words))]
            if self._costs[word] > left:
                break
            words.append(word)
            left -= self._costs[word]
        text = " ".join(words)
        # Costs are those between other words: at either end, and for some tokenizers everywhere, they differ.
        least = 1 if before else 0
        while (found := len(self.ids(text))) > wanted and len(words) > least:
            del words[-max(1, (found - wanted) // 8) :]
            words = words or ([before] if before else [])
            text = " ".join(words)
        while found < wanted:
            longer = self._longer(text, found, wanted, random)
            if longer is None:
                return ""
            text, found = longer
        return text

    def _longer(self, text: str, found: int, wanted: int, random: Random) -> tuple[str, int] | None:
        """Return the text with a word or a letter more, and its length; None where nothing fits."""
        fitting = [word for word in self._words if self._costs[word] <= wanted - found]
        tries = [f" {fitting[int(random.random() * len(fitting))]}" for _ in range(4) if fitting]
        tries += sorted(_SMALL, key=lambda _: random.random())
        for piece in tries:
            length = len(self.ids(text + piece))
            if found < length <= wanted:
                return text + piece, length
        return None


def _words() -> set[str]:
    lines = PACKAGED_PROMPTS.read_text(encoding="utf-8").splitlines()
    return {word for line in lines for word in _WORD.findall(str(json.loads(line)["prompt"]))}
