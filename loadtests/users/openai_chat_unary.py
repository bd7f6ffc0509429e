"""OpenAI's ``/v1/chat/completions``: one JSON answer per request, so no token times."""

from __future__ import annotations

from loadtests.openai_http import OpenAiUser

__all__ = ["OpenAiChatUnaryUser"]


class OpenAiChatUnaryUser(OpenAiUser):
    """Sends ``stream=false`` and reads the whole answer at once."""

    chat = True
    label = "OpenAI"
    streams = False
