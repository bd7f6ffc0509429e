"""KServe-v2 unary ``infer`` in front of a decoupled ``llm``: one request, one response.

Each request waits on a thread of its own for the one response of ``llm`` (``stream`` is false
there), so requests overlap and the engine batches them.
"""

import json
from concurrent.futures import ThreadPoolExecutor

import triton_python_backend_utils as pb_utils

OVERLAPPING = 256
"""Requests in flight at once; more wait in Triton's queue."""

FINAL = pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL


class TritonPythonModel:
    """One instance of the model ``NAME_infer``."""

    def initialize(self, args):
        """Read which model to ask."""
        config = json.loads(args["model_config"])
        self.target = config["parameters"]["TARGET_MODEL"]["string_value"]
        self.pool = ThreadPoolExecutor(OVERLAPPING, thread_name_prefix="infer")

    def execute(self, requests):
        """Pass ``requests`` on and return; the answers leave through their response senders."""
        for request in requests:
            self.pool.submit(
                self.answer, request.inputs(), request.requested_output_names(), request.get_response_sender()
            )

    def finalize(self):
        """Finish what is in flight."""
        self.pool.shutdown(wait=True)

    def answer(self, inputs, outputs, sender):
        """Ask ``llm`` and send what it answers."""
        try:
            response = self.ask(inputs, outputs)
        except Exception as error:
            response = pb_utils.InferenceResponse([], error=pb_utils.TritonError(str(error)))
        sender.send(response, flags=FINAL)

    def ask(self, inputs, outputs):
        """Return the first response of ``llm``; what follows it is the empty end of the stream."""
        request = pb_utils.InferenceRequest(
            model_name=self.target, requested_output_names=list(outputs), inputs=list(inputs)
        )
        responses = list(request.exec(decoupled=True))
        answered = [one for one in responses if one.has_error() or one.output_tensors()]
        if not answered:
            return pb_utils.InferenceResponse(
                [], error=pb_utils.TritonError(f"{self.target} sent no answer", pb_utils.TritonError.INTERNAL)
            )
        if answered[0].has_error():
            return pb_utils.InferenceResponse([], error=answered[0].error())
        return pb_utils.InferenceResponse(answered[0].output_tensors())
