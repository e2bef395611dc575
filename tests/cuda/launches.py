"""Names the kernels of builds' steps on the device without a GPU: `python -m tests.cuda.launches BUILD...`, in JSON.

One step for each of `DECODED`, in which all tokens are decoded, and one in which most are a prompt's.
"""

from __future__ import annotations

import ctypes
import json
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np

from glmserve.build.manifest import CHECKPOINT_FOLDER, decoder_in
from glmserve.engine.runtime.constant_arrays import numbered, zeros
from glmserve.engine.runtime.decoder import Step
from glmserve.engine.runtime.device import Device, open_device
from glmserve.engine.runtime.ort_decoder import OrtDecoder
from glmserve.engine.runtime.sampling import GREEDY, sampler_inputs
from glmserve.model.config import Checkpoint

DECODED = (1, 8, 32, 128)
"""Rows of the steps that only decode."""
MIXED = "8 + 120"
"""The step that decodes 8 rows and reads 120 tokens of a prompt."""
_FILLED = 500
_CONTEXT = 1024

Kernels = dict[str, int]
"""How often each kernel is launched, by the name that its library registers."""


def kernels_of(build: Path, device: Device) -> dict[str, Kernels]:
    """What a step of each number of tokens launches."""
    checkpoint = Checkpoint.read(build / CHECKPOINT_FOLDER)
    decoder = OrtDecoder(decoder_in(build), checkpoint, 1 + max(DECODED), _CONTEXT, 1, device)
    steps = {str(rows): _step(decoder, rows, 0) for rows in DECODED} | {MIXED: _step(decoder, 8, 120)}
    return {tokens: _launched(decoder, step) for tokens, step in steps.items()}


def _launched(decoder: OrtDecoder, step: Step) -> Kernels:
    runtime = ctypes.CDLL("libcudart.so.13")
    runtime.fake_traced.restype = ctypes.c_char_p
    decoder.run(step)  # what is worked out once does not count
    runtime.fake_trace(1)
    decoder.run(step)
    runtime.fake_trace(0)
    return Counter(runtime.fake_traced().decode("ascii").split())


def _step(decoder: OrtDecoder, rows: int, chunk: int) -> Step:
    """One token of each of so many rows, and a chunk of a prompt in the row after them."""
    tokens, drawn = rows + chunk, rows + bool(chunk)
    sampler = sampler_inputs([GREEDY] * drawn, decoder.candidates, decoder.vocabulary)
    step = Step.drawing(zeros(tokens), np.zeros((3, tokens), np.int64), numbered(drawn), sampler)
    step = replace(step, lengths=np.full(rows, _FILLED, np.int32), first_row=rows)
    if not chunk:
        return step
    return replace(step, chunk_lengths=np.array([_FILLED], np.int32), chunk_new=np.array([chunk]))


if __name__ == "__main__":
    cuda = open_device("cuda")
    print(json.dumps([kernels_of(Path(build), cuda) for build in sys.argv[1:]]))
