"""OpenAI's ``/v1/completions``: one JSON answer per request, so no token times."""

from __future__ import annotations

from loadtests.openai_http import OpenAiUser

__all__ = ["OpenAiCompletionsUnaryUser"]


class OpenAiCompletionsUnaryUser(OpenAiUser):
    """Sends ``stream=false`` and reads the whole answer at once."""

    chat = False
    takes_messages = False
    label = "OpenAI"
    streams = False
