"""Lines that repeat one before are read without parsing; whatever else they may be is parsed."""

from __future__ import annotations

import json
from typing import Any

import pytest

from loadtests.repeated_delta import RepeatedDelta


def event(text: str, finish_reason: str | None = None, **more: Any) -> bytes:
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": finish_reason}
    return (
        b"data: " + json.dumps({"id": "x", "choices": [choice], **more}, ensure_ascii=False).encode() + b"\n"
    )


def text_of(line: bytes) -> str | None:
    choice = json.loads(line[5:])["choices"][0]
    text: str = choice["delta"]["content"]
    return None if choice["finish_reason"] else text


def test_only_another_text_is_recognised() -> None:
    delta = RepeatedDelta(text_of)
    assert delta.text_of(event("sea")) is None  # nothing is known yet
    delta.learn(event("sea"), "sea")
    assert delta.text_of(event(" and 海")) == " and 海"
    for other in (
        event("sea", "stop"), event(""), event('a "quoted" word'), event("a\nb"), event("sea", created=1),
        event("sea").replace(b"sea", b"\x01"), event("sea").replace(b"sea", b"\xff"), b"data: [DONE]\n",
    ):  # fmt: skip
        assert delta.text_of(other) is None


@pytest.mark.parametrize("text", ["x", ",", ":", "content", 'a"b', ""])
def test_a_text_that_stands_elsewhere_too_is_not_taken_for_it(text: str) -> None:
    delta = RepeatedDelta(text_of)
    delta.learn(event(text), text)
    assert delta.text_of(event("word")) in (None, "word")
    assert delta.text_of(event("sea").replace(b'"id": "x"', b'"id": "y"')) is None


def test_a_stream_of_lines_that_all_differ_is_not_probed_for_ever() -> None:
    probed: list[bytes] = []

    def read(line: bytes) -> str | None:
        probed.append(line)
        return text_of(line)

    delta = RepeatedDelta(read)
    for number in range(20):
        line = event("word", created=number)
        assert delta.text_of(line) is None
        delta.learn(line, "word")
    assert len(probed) == 4
