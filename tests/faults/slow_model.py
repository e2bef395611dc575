"""The `model.py` of a slowed build: the Triton adapter, which lies beside it as `adapter.py`, with a pause a step.

The answers stay the model's own, but take long enough that a fault finds them half said.
"""

from __future__ import annotations

import json
import time
from pathlib import Path

from adapter import TritonPythonModel as Adapter  # type: ignore[import-not-found]

from glmserve.engine.runtime.decoder import Sampled, Step
from glmserve.engine.runtime.ort_decoder import OrtDecoder

STEP_S = float(json.loads(Path(__file__).with_name("step_s.json").read_text("utf-8")))


_run = OrtDecoder.run


def run_slowly(decoder: OrtDecoder, step: Step) -> Sampled:
    time.sleep(STEP_S)
    return _run(decoder, step)


OrtDecoder.run = run_slowly  # type: ignore[method-assign]  # of the class, whoever makes one


class TritonPythonModel(Adapter):  # type: ignore[misc]
    pass
