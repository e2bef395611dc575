"""For plain HTTP, which takes one response a request: asks the glm4v model for its answer as a whole."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import triton_python_backend_utils as pb_utils

from glmserve.contract import CANCEL, DECODER_MODEL, DECODER_OUTPUTS, WHOLE
from glmserve.engine.settings import EngineSettings
from glmserve.engine.triton.ended_streams import EndedStreams
from glmserve.engine.triton.lane import Lane
from glmserve.engine.triton.tensors import kept
from glmserve.engine.triton.whole_response import Tensors, joined
from glmserve.errors import Overloaded, to_wire
from glmserve.limits import WHOLE_PLACES


class TritonPythonModel:
    def initialize(self, args: dict[str, str]) -> None:
        settings = EngineSettings.read()
        places = min(settings.slots + settings.max_waiting, WHOLE_PLACES)  # the engine's, as far as Triton has threads
        self._answers = Lane("whole", places, places)
        self._cancels = Lane("cancels", places, 2)  # they come when all places are taken, and end at once
        self._ended = EndedStreams()

    def execute(self, requests: list) -> None:
        """Returns at once: an answer takes seconds, and the next request must not wait for it."""
        for request in requests:
            sender = request.get_response_sender()
            lane = self._cancels if any(t.name() == CANCEL.name for t in request.inputs()) else self._answers
            if not lane.enter():
                _send(sender, _failed(to_wire(Overloaded())))
                continue
            inputs = [pb_utils.Tensor(tensor.name(), kept(tensor.as_numpy())) for tensor in request.inputs()]
            inputs.append(pb_utils.Tensor(WHOLE.name, np.ones(WHOLE.shape, WHOLE.dtype)))
            lane.run(partial(self._answer, inputs, sender))

    def finalize(self) -> None:
        self._answers.close()
        self._cancels.close()

    def _answer(self, inputs: list, sender: pb_utils.InferenceResponseSender, leave: Callable[[], None]) -> None:
        try:
            response = self._ask(inputs)
        except Exception:  # a request without an answer would hang for ever
            response = _failed(to_wire(RuntimeError()))
        finally:
            leave()
        _send(sender, response)

    def _ask(self, inputs: list) -> pb_utils.InferenceResponse:
        names = [tensor.name for tensor in DECODER_OUTPUTS]
        asked = pb_utils.InferenceRequest(model_name=DECODER_MODEL, requested_output_names=names, inputs=inputs)
        messages: list[Tensors] = []
        failure = None
        responses = asked.exec(decoupled=True)
        try:
            for response in responses:
                if response.has_error():
                    failure = _failed(response.error().message())
                else:
                    messages.append(
                        {tensor.name(): np.array(tensor.as_numpy()) for tensor in response.output_tensors()}
                    )
        finally:
            self._ended.keep(responses)
        return failure or pb_utils.InferenceResponse(
            [pb_utils.Tensor(name, array) for name, array in joined(messages).items()]
        )


def _failed(text: str) -> pb_utils.InferenceResponse:
    return pb_utils.InferenceResponse([], pb_utils.TritonError(text, pb_utils.TritonError.UNAVAILABLE))


def _send(sender: pb_utils.InferenceResponseSender, response: pb_utils.InferenceResponse) -> None:
    sender.send(response, pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
