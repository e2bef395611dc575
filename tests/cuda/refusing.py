"""A GPU lets no step be captured: `python -m tests.cuda.refusing BUILD` prints what became of requests, as JSON."""

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

_CONTEXT = 1024


def run(folder: Path) -> dict[str, Any]:
    """How requests ended, whether the decoder says that it captures, and what became of graphs meanwhile."""
    checkpoint = Checkpoint.read(folder / CHECKPOINT_FOLDER)
    decoder = OrtDecoder(decoder_in(folder), checkpoint, 4, _CONTEXT, 1, open_device("cuda"), buckets=(1, 2, 4))
    runtime = Runtime()
    runtime.refuse_captures()
    watched = WatchedDecoder(decoder, runtime)
    endings = answer(watched, checkpoint, None, [Sampling(), Sampling(repetition_penalty=1.1)])
    return {"endings": endings, "captures_graphs": decoder.captures_graphs, "graphs": runtime.counts().graphs}


if __name__ == "__main__":
    print(json.dumps(run(Path(sys.argv[1]))))
