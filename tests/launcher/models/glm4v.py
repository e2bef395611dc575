"""A stand-in for the decoder: MAX_TOKENS tokens at a steady pace, streamed or whole; it counts cancelled answers.

A SEED of 1 asks how many that were; a SEED of 2 makes it fail.
"""

import threading
import time

import numpy as np
import triton_python_backend_utils as pb_utils

from glmserve.contract import CACHED_TOKENS, FINISH, SAMPLING_INPUTS, TIMINGS_MS, TOKENS, WHOLE, Finish
from glmserve.errors import Overloaded, to_wire

PACE_S = 0.005


class TritonPythonModel:
    def initialize(self, args):
        self.cancelled = 0

    def execute(self, requests):
        for request in requests:
            threading.Thread(target=self.stream, args=(request, request.get_response_sender())).start()

    def stream(self, request, sender):
        final = pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL
        seed = number(request, SAMPLING_INPUTS["seed"])
        if seed == 1:
            sender.send(response([self.cancelled], Finish.STOP), flags=final)
            return
        if seed == 2:
            error = pb_utils.TritonError(to_wire(Overloaded("Every place is taken.")))
            sender.send(pb_utils.InferenceResponse(error=error), flags=final)
            return
        said = []
        is_whole = pb_utils.get_input_tensor_by_name(request, WHOLE.name) is not None
        for i in range(number(request, SAMPLING_INPUTS["max_tokens"])):
            if request.is_cancelled():
                self.cancelled += 1
                sender.send(flags=final)
                return
            said.append(300 + i % 90)
            if not is_whole:
                sender.send(response([said.pop()], Finish.RUNNING))
            time.sleep(PACE_S)
        sender.send(response(said, Finish.STOP), flags=final)


def number(request, tensor):
    return int(pb_utils.get_input_tensor_by_name(request, tensor.name).as_numpy()[0])


def response(tokens, finish):
    values = {TOKENS: tokens}
    if finish != Finish.RUNNING:
        values |= {FINISH: [finish], TIMINGS_MS: [0, 0, 0, 0], CACHED_TOKENS: [0]}
    return pb_utils.InferenceResponse([pb_utils.Tensor(t.name, np.array(v, t.dtype)) for t, v in values.items()])
