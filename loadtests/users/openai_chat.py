"""OpenAI's ``/v1/chat/completions``: server-sent events, one per delta."""

from __future__ import annotations

from loadtests.openai_http import OpenAiUser

__all__ = ["OpenAiChatUser"]


class OpenAiChatUser(OpenAiUser):
    """Sends ``stream=true`` and stamps every event when its line is complete."""

    chat = True
    label = "OpenAI SSE"
    streams = True
