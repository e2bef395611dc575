"""Rows of two sizes on a GPU: `python -m tests.cuda.two_sizes BUILD` prints how the device was used, as JSON."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from glmserve.build.manifest import CHECKPOINT_FOLDER, decoder_in
from glmserve.engine.runtime.device import open_device
from glmserve.engine.runtime.ort_decoder import OrtDecoder
from glmserve.model.config import Checkpoint
from glmserve.sampling_parameters import Sampling
from tests.cuda.rehearsal import Runtime, WatchedDecoder, answer

_SHORT_TOKENS = 40
"""Fewer than two of the four requests have in the end, and more than their prompts."""


def run(folder: Path) -> dict[str, Any]:
    """How four requests ended in four short rows and a long one, and every step's use of the device."""
    checkpoint, device, runtime = Checkpoint.read(folder / CHECKPOINT_FOLDER), open_device("cuda"), Runtime()
    sizes = {"short_rows": 4, "short_tokens": _SHORT_TOKENS}
    decoder = OrtDecoder(decoder_in(folder), checkpoint, 5, 256, 1, device, buckets=(1, 2, 4), **sizes)
    watched = WatchedDecoder(decoder, runtime)
    decoder.poison()
    endings = answer(watched, checkpoint, None, [Sampling()])
    return {"endings": endings, "warm_ups": watched.warm_ups, "steps": watched.steps, "faults": runtime.faults()}


if __name__ == "__main__":
    print(json.dumps(run(Path(sys.argv[1]))))
