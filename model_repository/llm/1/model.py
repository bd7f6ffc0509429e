"""Triton's Python-backend model: translates between Triton requests and the engine, no more.

``execute`` hands its requests to the engine and blocks while every slot is taken, so that the
backlog stays in Triton's queue, where the dynamic batcher forms batches and the queue policy
sheds load. Answers leave through response senders on the loop's delivery thread.
"""

import json
import logging
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import triton_python_backend_utils as pb_utils

from checkpoints.errors import CheckpointError, RequestError, TrimaranError
from checkpoints.manifest import manifest_sha256, read_manifest
from checkpoints.prompt import PromptEncoder
from serving.cpus import engine_threads
from serving.engine.config import ENGINE_CONFIG_NAME, EngineConfig
from serving.engine.delivery import Ticket
from serving.engine.loop import EngineFailure, EngineLoop
from serving.engine.process.front_end import leave_out_torch
from serving.engine.registry import load_engine
from serving.engine.text_stream import Delta
from serving.tensors import OUTPUTS
from serving.triton_metrics import ModelMetrics, engine_facts
from serving.triton_request import TritonRequest, read_request

logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(name)s: %(message)s")
logger = logging.getLogger("trimaran.llm")

WATCH_SECONDS = 0.05
"""How often deadlines are looked at and metrics published."""

ASK_SECONDS = 0.25
"""How often Triton is asked whether a client has left: a message to the server and back for each request."""

FINAL = pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL


class TritonPythonModel:
    """One instance of the model ``llm``: an engine, its loop, and a thread that watches clients."""

    def initialize(self, args):
        """Load the version's checkpoint into the engine that its ``engine.json`` names."""
        self.name = args["model_name"]
        version = Path(args["model_repository"]) / args["model_version"]
        checkpoint = version / "checkpoint"
        try:
            model_config = json.loads(args["model_config"])
            config = EngineConfig.read(version / ENGINE_CONFIG_NAME)
            instances = sum(group["count"] for group in model_config["instance_group"])
            config = replace(config, threads=engine_threads(config.threads, instances))
            logger.info("engine %s, threads %d, instances %d", config.engine, config.threads, instances)
            if config.own_process and not config.trust_remote_code:
                leave_out_torch()
            manifest = read_manifest(checkpoint)
            self.encoder = PromptEncoder.from_checkpoint(
                checkpoint, trust_remote_code=config.trust_remote_code
            )
            self.loop = EngineLoop(
                lambda: load_engine(checkpoint, config, manifest),
                self.encoder.tokenizer,
                stream_interval=config.stream_interval,
                on_failure=self.retire,
            )
            self.loop.start()
        except TrimaranError as error:
            raise pb_utils.TritonModelException(str(error)) from error
        self.answers = set()
        labels = {"model": self.name, "version": args["model_version"]}
        queue = model_config.get("dynamic_batching", {}).get("default_queue_policy", {})
        self.metrics = ModelMetrics(
            pb_utils,
            labels,
            self.loop.capacity,
            self.loop.counters,
            self.loop.observations,
            queue_limit=queue.get("max_queue_size", 0),
            facts=engine_facts(config, manifest, manifest_sha256(checkpoint)),
        )
        self.finished = threading.Event()
        self.watcher = threading.Thread(target=self.watch, name="watcher", daemon=True)
        self.watcher.start()

    def execute(self, requests):
        """Hand ``requests`` to the engine, then wait until it has a free slot."""
        for request in requests:
            self.accept(request)
        while not self.loop.wait_for_free_slot(timeout=0.1):
            pass

    def finalize(self):
        """Finish what is held and stop the threads."""
        self.finished.set()
        self.watcher.join()
        self.loop.close()
        self.metrics.publish(0, 0)

    def accept(self, request):
        """Submit one request, or answer it with the error that names what is wrong with it."""
        answer = Answer(request, self.forget)
        try:
            asked = read_request(
                {tensor.name(): tensor.as_numpy() for tensor in request.inputs()}, self.encoder
            )
            answer.begin(asked)
            self.answers.add(answer)
            answer.ticket = self.loop.submit(asked.generation, answer, stream=asked.stream)
        except Exception as error:
            if not isinstance(error, TrimaranError):
                logger.exception("a request could not be read")
            answer.on_error(error)

    def forget(self, answer, outcome):
        """Count a request that has been answered."""
        self.answers.discard(answer)
        self.metrics.count(outcome)

    def watch(self):
        """Cancel what clients have left, refuse what waited too long, publish the metrics."""
        while not self.finished.wait(WATCH_SECONDS):
            now = time.monotonic()
            for answer in list(self.answers):
                if answer.ticket is None:
                    continue
                try:
                    self.look_after(answer, now)
                except Exception:  # one answer that cannot be sent must not end the watch over the others
                    logger.exception("an answer could not be looked after")
            self.metrics.publish(self.loop.running, self.loop.waiting)

    def look_after(self, answer, now):
        """Cancel a request whose client has left, or which waited longer than it may."""
        if answer.ask_at <= now and answer.is_cancelled():
            self.loop.cancel(answer.ticket)
        elif answer.deadline < now and not answer.started:
            answer.expire()
            self.loop.cancel(answer.ticket)

    def retire(self, failure: EngineFailure):
        """Make the model not ready: its engine is dead and only a new load can help.

        Triton keeps a Python model ready while its process lives, so the model unloads itself.
        """
        logger.error("model %s: %s; unloading the model", self.name, failure)
        threading.Thread(target=pb_utils.unload_model, args=(self.name,), daemon=True).start()


class Answer:
    """One request's way back: a sink of the engine loop that sends Triton responses.

    Args:
        request: Triton's request.
        on_end: called with this answer and its outcome just before its last response is sent.
    """

    def __init__(self, request, on_end):
        self.sender = request.get_response_sender()
        # Triton frees a request's response factory with its last response; asking it afterwards
        # whether the request was cancelled would crash the server. So a last response that comes
        # while the watcher asks is left to the watcher: delivery need not wait for Triton's answer.
        self.lock = threading.Lock()
        self.asking = False
        self.left_to_watcher = None
        self.ask_at = time.monotonic() + ASK_SECONDS
        asked_for = set(request.requested_output_names())
        self.wanted = [tensor.name for tensor in OUTPUTS if tensor.name in asked_for]
        timeout = request.timeout()  # microseconds, 0 is none
        self.deadline = time.monotonic() + timeout / 1e6 if timeout else float("inf")
        self.on_end = on_end
        self.ticket: Ticket | None = None
        self.started = False
        self.ended = False

    def begin(self, asked: TritonRequest):
        """Take what the request asked for."""
        self.stream = asked.stream
        self.seed = asked.generation.sampling.seed
        self.text, self.token_ids, self.log_probs = [], [], []
        self.lasting = {}

    def on_delta(self, delta: Delta):
        """Send ``delta``, or keep it for the one response of a request that does not stream."""
        if self.ended:
            return
        self.started = True
        self.text.append(delta.text)
        self.token_ids += delta.token_ids
        self.log_probs += delta.log_probs
        last = bool(delta.finish_reason)
        if not (self.stream or last):
            return
        response = pb_utils.InferenceResponse(self.outputs(delta))
        self.text, self.token_ids, self.log_probs = [], [], []
        if last:
            self.end(response, "cancelled" if delta.finish_reason == "cancelled" else "ok")
        else:
            self.sender.send(response)

    def on_error(self, error: Exception):
        """Send ``error`` as the last response."""
        if isinstance(error, RequestError):
            code, outcome = pb_utils.TritonError.INVALID_ARG, "invalid"
        elif isinstance(error, TrimaranError) and not isinstance(error, CheckpointError):
            code, outcome = pb_utils.TritonError.UNAVAILABLE, "unavailable"
        else:
            code, outcome = pb_utils.TritonError.INTERNAL, "error"
        self.end(pb_utils.InferenceResponse([], error=pb_utils.TritonError(str(error), code)), outcome)

    def expire(self):
        """Refuse a request that found no slot before its own timeout."""
        error = pb_utils.TritonError(
            "the request's timeout passed before a slot was free", pb_utils.TritonError.UNAVAILABLE
        )
        self.end(pb_utils.InferenceResponse([], error=error), "unavailable")

    def is_cancelled(self):
        """Whether the client has left and has not been answered yet; called by the watcher alone."""
        self.ask_at = time.monotonic() + ASK_SECONDS
        with self.lock:
            if self.ended:
                return False
            self.asking = True
        try:
            return self.sender.is_cancelled()
        finally:
            with self.lock:
                self.asking = False
                response = self.left_to_watcher
            if response is not None:
                self.sender.send(response, flags=FINAL)

    def end(self, response, outcome):
        """Send the last response, once."""
        with self.lock:
            if self.ended:
                return
            self.ended = True
        self.on_end(self, outcome)
        with self.lock:
            if self.asking:
                self.left_to_watcher = response
                return
        self.sender.send(response, flags=FINAL)

    def outputs(self, delta: Delta):
        """Return the tensors of one response, ``[1, n]`` each; those that do not change are made once."""
        fresh = {
            "text_output": lambda: text_tensor("text_output", "".join(self.text)),
            "output_ids": lambda: number_tensor("output_ids", [self.token_ids], np.int32),
            "completion_tokens": lambda: number_tensor(
                "completion_tokens", [[delta.completion_tokens]], np.int32
            ),
        }
        lasting = {
            "prompt_tokens": lambda: number_tensor("prompt_tokens", [[delta.prompt_tokens]], np.int32),
            "seed": lambda: number_tensor("seed", [[self.seed]], np.uint64),
        }
        # These are empty, and as such stay the same, in most responses.
        log_probs = fresh if self.log_probs else lasting
        log_probs["log_probs"] = lambda: number_tensor("log_probs", [self.log_probs], np.float32)
        finish = fresh if delta.finish_reason else lasting
        finish["finish_reason"] = lambda: text_tensor("finish_reason", delta.finish_reason)
        for name in self.wanted:
            if name in lasting and name not in self.lasting:
                self.lasting[name] = lasting[name]()
        return [fresh[name]() if name in fresh else self.lasting[name] for name in self.wanted]


def text_tensor(name, text):
    """Return a STRING tensor ``[1, 1]``."""
    return pb_utils.Tensor(name, np.array([[text.encode()]], dtype=np.object_))


def number_tensor(name, values, dtype):
    """Return a tensor ``[1, n]``."""
    return pb_utils.Tensor(name, np.array(values, dtype=dtype))
