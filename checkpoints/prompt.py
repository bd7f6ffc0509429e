"""A prompt -> token ids, exactly once, and the same in training, evaluation and serving.

Text gets the special tokens in front that the tokenizer gives it; messages go through the chat
template, which writes its own; ids are taken as they are. None of them gets a second BOS.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, cast

from checkpoints.errors import PromptError
from checkpoints.manifest import TokenIds, read_manifest

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["ROLES", "Message", "PromptEncoder", "parse_messages", "validate_messages"]

ROLES = ("system", "developer", "user", "assistant", "tool")


class Message(TypedDict):
    """One turn of a chat."""

    role: str
    content: str


def parse_messages(json_text: str) -> list[Message]:
    """Parse a JSON list of ``{"role", "content"}`` objects.

    Raises:
        PromptError: the JSON is broken or is not such a list; the message says which turn is wrong.
    """
    try:
        value = json.loads(json_text)
    except (ValueError, RecursionError) as error:
        raise PromptError(f"messages is not JSON: {error}") from error
    return validate_messages(value)


def validate_messages(value: Any) -> list[Message]:
    """Check that ``value`` is a non-empty list of messages and return it.

    Raises:
        PromptError: it is not; the message says which turn is wrong.
    """
    if not isinstance(value, list):
        raise PromptError(f"messages must be a list of role/content objects, found {type(value).__name__}")
    if not value:
        raise PromptError("messages is empty; give at least one turn")
    for index, turn in enumerate(value):
        where = f"messages[{index}]"
        if not isinstance(turn, dict):
            raise PromptError(f"{where} must be an object with role and content, found {type(turn).__name__}")
        extra = sorted(str(key) for key in turn.keys() - {"role", "content"})
        if extra:
            raise PromptError(f"{where} has the unknown key {extra[0]!r}; only role and content are read")
        if turn.get("role") not in ROLES:
            raise PromptError(f"{where}.role is {turn.get('role')!r}, expected one of {', '.join(ROLES)}")
        content = turn.get("content")
        if not isinstance(content, str) or not content:
            raise PromptError(f"{where}.content must be a non-empty string, found {content!r:.40}")
        check_unicode(content, f"{where}.content")
    return cast("list[Message]", value)


class PromptEncoder:
    """Turns the three kinds of prompt into token ids.

    Args:
        tokenizer: a tokenizer with, for ``messages``, a chat template.
        tokens: the special tokens the checkpoint's manifest names.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, tokens: TokenIds) -> None:
        self._tokenizer = tokenizer
        self._tokens = tokens
        self._prefix = _prefix_ids(tokenizer)
        if not tokens.add_bos:
            self._prefix = [token for token in self._prefix if token != tokens.bos]
        elif tokens.bos is not None and tokens.bos not in self._prefix:
            self._prefix = [tokens.bos, *self._prefix]
        self._vocabulary_size = 1 + max(tokenizer.get_vocab().values())

    @classmethod
    def from_checkpoint(cls, directory: Path, *, trust_remote_code: bool = False) -> PromptEncoder:
        """Build the encoder of a sealed checkpoint.

        Raises:
            ManifestError: there is no manifest.
            CheckpointError: there is no tokenizer.
        """
        # Here and not above: parsing a prompt should not need torch.
        from checkpoints.tokenizer import load_tokenizer

        tokens = read_manifest(directory).tokens
        return cls(load_tokenizer(directory, trust_remote_code=trust_remote_code), tokens)

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The tokenizer behind it."""
        return self._tokenizer

    @property
    def tokens(self) -> TokenIds:
        """The special tokens behind it."""
        return self._tokens

    @property
    def has_chat_template(self) -> bool:
        """Whether ``messages`` can be encoded."""
        return bool(self._tokenizer.chat_template)

    def encode(
        self,
        *,
        text: str | None = None,
        messages: list[Message] | None = None,
        input_ids: Sequence[int] | None = None,
    ) -> list[int]:
        """Encode exactly one of the three.

        Raises:
            PromptError: none or several were given, or the one given cannot be encoded.
        """
        given = {
            name: value
            for name, value in (("text", text), ("messages", messages), ("input_ids", input_ids))
            if value is not None
        }
        if len(given) != 1:
            found = " and ".join(given) if given else "none"
            raise PromptError(f"give exactly one of text, messages and input_ids; found {found}")
        if text is not None:
            return self.encode_text(text)
        if messages is not None:
            return self.encode_messages(messages)
        assert input_ids is not None
        return self._check_ids(input_ids)

    def encode_text(self, text: str) -> list[int]:
        """Encode raw text, behind the special tokens the tokenizer puts in front (a BOS, once).

        Raises:
            PromptError: the text is empty or not valid Unicode.
        """
        if not isinstance(text, str) or not text:
            raise PromptError("the prompt text is empty")
        check_unicode(text, "the prompt text")
        ids = list(self._tokenizer.encode(text, add_special_tokens=False))
        if not ids:
            raise PromptError("the prompt text has no tokens")
        starts_with_bos = self._tokens.bos is not None and ids[0] == self._tokens.bos
        return ids if starts_with_bos else [*self._prefix, *ids]

    def encode_messages(self, messages: list[Message], add_generation_prompt: bool = True) -> list[int]:
        """Encode a chat through the checkpoint's template.

        Args:
            messages: the turns.
            add_generation_prompt: end with the header of the assistant's next turn.

        Raises:
            PromptError: there is no template, a turn is malformed, or the template refuses the chat.
        """
        messages = validate_messages(messages)
        if not self.has_chat_template:
            raise PromptError(
                "this checkpoint's tokenizer has no chat template; send text or input_ids, "
                "or use a chat (instruct) model"
            )
        from jinja2 import TemplateError

        try:
            ids = self._tokenizer.apply_chat_template(
                cast("list[dict[str, str]]", messages),
                add_generation_prompt=add_generation_prompt,
                tokenize=True,
                return_dict=False,
            )
        except TemplateError as error:
            raise PromptError(f"the chat template refuses these messages: {error}") from error
        encoded = [int(token) for token in cast("list[int]", ids)]
        if not encoded:
            raise PromptError("the chat template renders these messages to nothing")
        return encoded

    def _check_ids(self, input_ids: Sequence[int]) -> list[int]:
        ids = []
        for position, token in enumerate(input_ids):
            # __index__ takes numpy's and torch's integers, and refuses floats.
            if isinstance(token, bool) or not hasattr(token, "__index__"):
                raise PromptError(f"input_ids[{position}] is {token!r}, expected an integer")
            identifier = token.__index__()
            if not 0 <= identifier < self._vocabulary_size:
                raise PromptError(
                    f"input_ids[{position}] is {identifier}, outside 0..{self._vocabulary_size - 1}"
                )
            ids.append(identifier)
        if not ids:
            raise PromptError("input_ids is empty")
        return ids


def _prefix_ids(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Return what the tokenizer puts in front of a text (a BOS, ``[gMASK]<sop>``, or nothing)."""
    plain = list(tokenizer.encode("a", add_special_tokens=False))
    full = list(tokenizer.encode("a", add_special_tokens=True))
    for start in range(len(full) - len(plain) + 1):
        if full[start : start + len(plain)] == plain:
            return full[:start]
    return []


def check_unicode(text: str, where: str) -> None:
    """Raise PromptError where ``text`` holds half of a surrogate pair, which no tokenizer takes."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise PromptError(f"{where} is not valid Unicode (a lone surrogate at {error.start})") from error
