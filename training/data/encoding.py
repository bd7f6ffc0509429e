"""One row to token ids and labels: loss on completions only.

======================  ==================================================  =========================
format                  ids                                                 trained on
======================  ==================================================  =========================
``messages``            the chat template's, exactly                        assistant turns
``prompt_completion``   the prompt as serving encodes it, completion, EOS   completion, EOS
``text``                the text as serving encodes it, EOS                 everything
======================  ==================================================  =========================

An assistant turn is trained on up to and with its end-of-turn token; what the template puts after that
(a newline, usually) is never generated, so it is not trained on.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

from checkpoints.errors import ConfigError, DataError, PromptError
from checkpoints.manifest import TokenIds
from checkpoints.prompt import PromptEncoder
from training.data.formats import Row

__all__ = ["IGNORED", "Encoded", "RowEncoder", "encode_rows", "fit", "report_fit"]

IGNORED = -100  # the label that PyTorch's cross entropy skips

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Encoded:
    """Token ids of one row and, at each position, the id to learn there or ``IGNORED`` (same length)."""

    input_ids: list[int]
    labels: list[int]

    def cut(self, length: int) -> Encoded:
        """Return the first ``length`` tokens."""
        return Encoded(self.input_ids[:length], self.labels[:length])

    @property
    def trained_tokens(self) -> int:
        """Tokens that have a label. The first position has nothing before it to predict it from."""
        return sum(label != IGNORED for label in self.labels[1:])


class RowEncoder:
    """Encodes rows of all formats for one tokenizer, by the prompt contract of ``checkpoints.prompt``."""

    def __init__(self, encoder: PromptEncoder, tokens: TokenIds) -> None:
        self.encoder = encoder
        self.stop_ids = frozenset([*tokens.stop, *tokens.eos])
        self.eos_ids = tokens.eos

    @cached_property
    def eos_id(self) -> int:
        """The token that ends a text: the tokenizer's EOS, else the checkpoint's first."""
        own: Any = self.encoder.tokenizer.eos_token_id
        if isinstance(own, int):
            return own
        if self.eos_ids:
            return self.eos_ids[0]
        raise ConfigError(
            "the model has no end-of-sequence token, so a completion cannot be ended; name another model"
        )

    def encode(self, row: Row) -> Encoded:
        """Encode one row, whatever its length.

        Raises:
            DataError: the prompt cannot be encoded, or the chat template rewrites earlier turns.
        """
        try:
            if row.format == "messages":
                return self._encode_messages(row)
            if row.format == "text":
                ids = self._ended(self.encoder.encode_text(row.text))
                return Encoded(ids, list(ids))
            prompt = self.encoder.encode_text(row.prompt)
        except PromptError as error:
            raise DataError(f"{row.where}: {error}") from error
        completion = self.encoder.tokenizer.encode(row.completion, add_special_tokens=False)
        answer = self._ended(cast("list[int]", completion))
        return Encoded(prompt + answer, [IGNORED] * len(prompt) + answer)

    def _ended(self, ids: list[int]) -> list[int]:
        return ids if ids and ids[-1] == self.eos_id else [*ids, self.eos_id]

    def _encode_messages(self, row: Row) -> Encoded:
        ids: list[int] = []
        labels: list[int] = []
        answer: list[int] = []
        for index, message in enumerate(row.messages):
            if message["role"] != "assistant":
                continue
            prompt = self.encoder.encode_messages(list(row.messages[:index]))
            answered = self.encoder.encode_messages(
                list(row.messages[: index + 1]), add_generation_prompt=False
            )
            if prompt[: len(ids)] != ids or answered[: len(prompt)] != prompt:
                raise DataError(
                    f"{row.where}: the chat template does not put messages[{index}] behind its generation "
                    "prompt, or rewrites earlier turns, so the tokens to train on cannot be told apart; "
                    "try a row per answer, or the format prompt_completion"
                )
            answer = answered[len(prompt) :]
            labels += [IGNORED] * (len(prompt) - len(labels))
            labels += self._answer_labels(answer)
            ids = answered
        if not self.stop_ids.intersection(answer):  # a template that does not end its turns
            ids, labels = [*ids, self.eos_id], [*labels, self.eos_id]
        return Encoded(ids, labels)

    def _answer_labels(self, answer: list[int]) -> list[int]:
        ends = [position for position, token in enumerate(answer) if token in self.stop_ids]
        trained = ends[-1] + 1 if ends else len(answer)
        return answer[:trained] + [IGNORED] * (len(answer) - trained)


def fit(encoded: Encoded, max_length: int) -> tuple[Encoded | None, bool]:
    """Return ``encoded`` in at most ``max_length`` tokens, or None where none of these is to be learned; and
    whether it was cut."""
    cut = len(encoded.input_ids) > max_length
    if cut:
        encoded = encoded.cut(max_length)
    return (encoded if encoded.trained_tokens else None), cut


def report_fit(*, rows: int, cut: int, dropped: int, what: str, max_length: int) -> None:
    """Say in the log how many of ``rows`` rows were cut and dropped.

    Args:
        what: name of the set in log lines and errors ("training", "evaluation").

    Raises:
        DataError: no row is left.
    """
    if cut:
        logger.warning(
            "%d of %d %s rows were cut to %d tokens (data.max_length)", cut, rows, what, max_length
        )
    if dropped:
        logger.warning(
            "%d of %d %s rows were dropped: no token to train on within %d tokens",
            dropped,
            rows,
            what,
            max_length,
        )
    if dropped == rows:
        raise DataError(
            f"all {rows} {what} rows were dropped: none has a token to train on within "
            f"data.max_length = {max_length}; raise it or shorten the prompts"
        )


def encode_rows(encoder: RowEncoder, rows: Sequence[Row], *, max_length: int, what: str) -> list[Encoded]:
    """Encode ``rows``, cut those longer than ``max_length`` tokens, drop those with nothing left to train on.

    Args:
        what: name of the set in log lines and errors ("training", "evaluation").

    Raises:
        DataError: no row is left.
    """
    fitted = [fit(encoder.encode(row), max_length) for row in rows]
    kept = [encoded for encoded, _ in fitted if encoded is not None]
    cut = sum(cut for _, cut in fitted)
    report_fit(rows=len(rows), cut=cut, dropped=len(rows) - len(kept), what=what, max_length=max_length)
    return kept
