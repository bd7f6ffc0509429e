"""OpenAI's HTTP API: what chat and completions, streamed and whole, share.

The API names no token ids. A streamed answer is counted by its chunks, and at the end by ``usage``, which is
asked for with ``stream_options``; a whole one by ``usage`` alone.
"""

from __future__ import annotations

import json
from typing import Any, ClassVar

from geventhttpclient.response import HTTPParseError

from loadtests.answer import Answer
from loadtests.credentials import Credentials
from loadtests.errors import EndpointError
from loadtests.failures import RequestFailed
from loadtests.http_user import HttpUser, broken, check_events, connect, decode, get_json
from loadtests.repeated_delta import RepeatedDelta
from loadtests.streamed_lines import streamed_lines
from loadtests.target import Target
from loadtests.workloads.workload import Request

__all__ = ["OpenAiUser"]

_PREFLIGHT_TIMEOUT_S = 10.0
_DONE = b"[DONE]"
# Where servers put the text of a delta; the last two hold the thoughts of reasoning models.
_TEXTS = ("content", "reasoning_content", "reasoning")


class OpenAiUser(HttpUser):
    """Posts to ``/v1/chat/completions`` or ``/v1/completions``, as a concrete user says."""

    abstract = True
    host = "http://127.0.0.1:8000"
    chat: ClassVar[bool]
    """Whether a prompt is a conversation. A text then becomes its only message."""

    @classmethod
    def preflight(cls, target: Target, model: str, credentials: Credentials) -> dict[str, Any]:
        """See ``MeasuredUser.preflight``."""
        cls.check_target(target)
        client = connect(target, credentials, _PREFLIGHT_TIMEOUT_S)
        try:
            status, content = get_json(client, f"{_base(target)}/models", credentials.headers)
        except (OSError, HTTPParseError) as error:
            raise EndpointError(
                f"{target.url}: nothing answers there ({error}); start a server, or give its address (--url)"
            ) from error
        finally:
            client.close()
        if status in (401, 403):
            raise EndpointError(f"{target.url}: HTTP {status}; give the API key with --api-key-file")
        if status != 200 or not isinstance(content.get("data"), list):
            raise EndpointError(
                f"{target.url}: {_base(target)}/models answers HTTP {status} and no list of models, so this "
                "is no OpenAI API; give its address with --url, or choose another --protocol"
            )
        names = [str(entry.get("id")) for entry in content["data"] if isinstance(entry, dict)]
        if model not in names:
            raise EndpointError(
                f"{target.url}: model {model!r} is not served; served there: "
                f"{', '.join(sorted(names)) or 'none'} (choose one with --model)"
            )
        return {"server": "OpenAI API", "server_version": None, "model_versions": [], "model_config": None}

    def send(self, request: Request, answer: Answer) -> None:
        """See ``MeasuredUser.send``."""
        endpoint = "chat/completions" if self.chat else "completions"
        response = self.post(f"{_base(self.target)}/{endpoint}", self._body(request))
        try:
            if self.streams:
                self._read_stream(response, answer)
            else:
                self._read_whole(response.read(), answer)
        except (OSError, HTTPParseError) as error:
            raise broken(error) from error

    def _body(self, request: Request) -> dict[str, Any]:
        prompt = request.prompt
        body: dict[str, Any] = {
            "model": self.workload.model, "stream": self.streams, **request.parameters,
        }  # fmt: skip
        if self.streams:
            body["stream_options"] = {"include_usage": True}
        if not self.chat:
            return {**body, "prompt": prompt.value}
        if prompt.messages is not None:
            return {**body, "messages": json.loads(prompt.messages)}
        return {**body, "messages": [{"role": "user", "content": prompt.text}]}

    def _read_stream(self, response: Any, answer: Answer) -> None:
        usage: dict[str, Any] = {}
        repeated = RepeatedDelta(self._plain_text)
        events, strange = False, b""
        for seen_ns, line in streamed_lines(response, answer):
            if (plain := repeated.text_of(line)) is not None:
                answer.add_piece(seen_ns, plain)
                continue
            if not line.startswith(b"data:"):
                strange = strange or line
                continue
            events = True
            if (data := line[5:].strip()) == _DONE:
                continue
            chunk = decode(data)
            usage = chunk.get("usage") or usage
            if chunk.get("choices"):
                said, text, finish_reason = self._choice(chunk)
                answer.add(seen_ns, 1 if said else 0, text, finish_reason, None)
                if text and not finish_reason:
                    repeated.learn(line, text)
        check_events(events, strange)
        if usage:
            prompt_tokens, completion_tokens = _counted(usage)
            answer.spread(completion_tokens)
            answer.add(answer.now(), 0, "", "", prompt_tokens, completion_tokens)

    def _plain_text(self, line: bytes) -> str | None:
        """Return the text of a line of a stream that is a piece of the answer and nothing else."""
        chunk = decode(line[5:])
        said, text, finish_reason = self._choice(chunk)
        return text if said and not finish_reason and not chunk.get("usage") else None

    def _read_whole(self, body: bytes, answer: Answer) -> None:
        seen_ns = answer.now()
        if not body:
            raise RequestFailed("empty", "HTTP 200 with no body")
        content = decode(body)
        _, text, finish_reason = self._choice(content)
        prompt_tokens, completion_tokens = _counted(content.get("usage"))
        answer.add(seen_ns, completion_tokens, text, finish_reason, prompt_tokens, completion_tokens)

    def _choice(self, content: dict[str, Any]) -> tuple[bool, str, str]:
        """Return of the only choice: whether it says or thinks something, what it says, its finish reason.

        Raises:
            RequestFailed: ``malformed``, when there is none.
        """
        try:
            choice = content["choices"][0]
            holder = choice if not self.chat else choice["delta"] if self.streams else choice["message"]
            texts = [holder.get(name) for name in (_TEXTS if self.chat else ("text",))]
        except (KeyError, IndexError, TypeError, AttributeError) as error:
            raise RequestFailed("malformed", f"no choice in {str(content)[:120]!r}") from error
        return any(texts), str(texts[0] or ""), str(choice.get("finish_reason") or "")


def _base(target: Target) -> str:
    """Return the path before ``/models``; the URL may end in ``/v1``, as the clients of this API want it."""
    return target.path if target.path.endswith("/v1") else f"{target.path}/v1"


def _counted(usage: Any) -> tuple[int | None, int]:
    """Return the tokens of prompt and answer.

    Raises:
        RequestFailed: ``malformed``, when those of the answer are missing.
    """
    usage = usage if isinstance(usage, dict) else {}
    prompt_tokens, completion_tokens = usage.get("prompt_tokens"), usage.get("completion_tokens")
    if not isinstance(completion_tokens, int):
        raise RequestFailed("malformed", "no usage.completion_tokens, from which tokens are counted")
    return prompt_tokens if isinstance(prompt_tokens, int) else None, completion_tokens
