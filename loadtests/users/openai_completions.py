"""OpenAI's ``/v1/completions``: server-sent events, one per delta."""

from __future__ import annotations

from loadtests.openai_http import OpenAiUser

__all__ = ["OpenAiCompletionsUser"]


class OpenAiCompletionsUser(OpenAiUser):
    """Sends ``stream=true`` and stamps every event when its line is complete."""

    chat = False
    takes_messages = False
    label = "OpenAI SSE"
    streams = True
