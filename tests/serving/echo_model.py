"""A Triton model with the contract of ``llm`` and no language model: it answers with what it was sent.

Copied into a model repository by the tests. What ``text_input`` says decides what happens: ``refuse`` is
the caller's mistake, ``break`` is ours, ``drip`` goes on until it is cancelled, ``silent`` gives no reason.
"""

from __future__ import annotations

import json
import threading
import time
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

STRINGS = ("text_input", "messages", "stop_words", "sampling_parameters")


class TritonPythonModel:
    """Answers each request in a thread of its own."""

    def initialize(self, args: dict[str, str]) -> None:
        names = [entry["name"] for entry in json.loads(args["model_config"])["input"]]
        self.names = names
        self.cancelled = 0
        self.batches: list[int] = []

    def execute(self, requests: list[Any]) -> None:
        self.batches.append(len(requests))
        for request in requests:
            sender = request.get_response_sender()
            threading.Thread(target=self.answer, args=(self.read(request), sender), daemon=True).start()

    def read(self, request: Any) -> dict[str, Any]:
        found = {}
        for name in self.names:
            if (tensor := pb_utils.get_input_tensor_by_name(request, name)) is not None:
                array = tensor.as_numpy()
                assert array.shape[0] == 1, array.shape
                values = array[0].tolist()
                found[name] = [value.decode() for value in values] if name in STRINGS else values
        return found

    def answer(self, given: dict[str, Any], sender: Any) -> None:
        final = pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL
        text = given.get("text_input", [""])[0]
        if text in ("refuse", "break"):
            code = pb_utils.TritonError.INVALID_ARG if text == "refuse" else pb_utils.TritonError.INTERNAL
            error = pb_utils.TritonError(f"you said {text}", code)
            sender.send(pb_utils.InferenceResponse(error=error), flags=final)
        elif text == "drip":
            while not sender.is_cancelled():
                sender.send(self.response(".", [1], ""))
                time.sleep(0.02)
            self.cancelled += 1
            sender.send(flags=final)
        elif text == "silent":
            sender.send(self.response("no reason given", [1], ""), flags=final)
        else:
            if text == "slow":
                time.sleep(1.5)
            seed = given.get("seed", [0])[0]
            told = {"cancelled": self.cancelled, "batches": self.batches, **given}
            whole = json.dumps(told, ensure_ascii=False)
            parts = [whole[:5], whole[5:9], whole[9:]] if given.get("stream", [False])[0] else [whole]
            for part in parts[:-1]:
                sender.send(self.response(part, [7], "", seed=seed))
            sender.send(self.response(parts[-1], [8, 9], "stop", seed=seed, total=9), flags=final)

    def response(self, text: str, ids: list[int], finish: str, *, seed: int = 0, total: int = 0) -> Any:
        def tensor(name: str, values: list[Any], dtype: Any) -> Any:
            return pb_utils.Tensor(name, np.array([values], dtype=dtype))

        return pb_utils.InferenceResponse(
            [
                tensor("text_output", [text.encode()], object),
                tensor("output_ids", ids, np.int32),
                tensor("log_probs", [-0.5] * len(ids), np.float32),
                tensor("finish_reason", [finish.encode()], object),
                tensor("prompt_tokens", [4], np.int32),
                tensor("completion_tokens", [total], np.int32),
                tensor("seed", [seed], np.uint64),
            ]
        )
