"""A prompt: what one request, or the first turn of a conversation, says to the model."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace

__all__ = ["Prompt", "conversation"]


@dataclass(frozen=True)
class Prompt:
    """One prompt: raw text or a conversation, never both."""

    index: int
    """Position among the prompts of their source, from 0."""
    text: str | None
    """Raw text, for the model's input ``text_input``."""
    messages: str | None
    """A conversation as a JSON string, for the model's input ``messages``."""
    later: tuple[str, ...] = ()
    """What the user says in the turns after this one, each when the answer before it has come."""
    tokens: int | None = None
    """Tokens of the text as ``--tokenizer`` counts them, its special ones included; None: not counted."""

    @property
    def input_name(self) -> str:
        """Name of the Triton input this prompt goes to."""
        return "text_input" if self.text is not None else "messages"

    @property
    def value(self) -> str:
        """What that input gets."""
        return self.text if self.text is not None else self.messages or ""

    def turn_after(self, answer: str) -> Prompt | None:
        """Return the next turn of the conversation: all that was said, and what the user says now.

        Args:
            answer: what the model said to this turn.
        """
        if not self.later or self.messages is None:
            return None
        said = json.loads(self.messages)
        said += [_message("assistant", answer), _message("user", self.later[0])]
        return replace(self, messages=json.dumps(said, ensure_ascii=False), later=self.later[1:], tokens=None)

    def with_system(self, text: str) -> Prompt:
        """Return a conversation that begins with a system prompt, before what its own may say."""
        said = json.loads(self.messages or "[]")
        if said and said[0]["role"] == "system":
            said[0]["content"] = f"{text}\n\n{said[0]['content']}"
        else:
            said.insert(0, _message("system", text))
        return replace(self, messages=json.dumps(said, ensure_ascii=False))


def conversation(index: int, says: Sequence[str], system: str | None = None) -> Prompt:
    """Return the prompt of a conversation in which the user says one text per turn."""
    said = [_message("system", system)] if system else []
    said.append(_message("user", says[0]))
    return Prompt(index, text=None, messages=json.dumps(said, ensure_ascii=False), later=tuple(says[1:]))


def _message(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}
