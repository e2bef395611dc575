"""A GPU breaks while the engine decodes: `python -m tests.cuda.breaking BUILD` prints what became of whom, as JSON."""

from __future__ import annotations

import json
import queue
import sys
import time
from pathlib import Path

import numpy as np

from glmserve.build.manifest import CHECKPOINT_FOLDER, decoder_in
from glmserve.engine.engine import Engine
from glmserve.engine.preprocessor import prompt_arrays
from glmserve.engine.request import Event, Request
from glmserve.engine.runtime.device import open_device
from glmserve.engine.runtime.ort_decoder import OrtDecoder
from glmserve.errors import GlmServeError
from glmserve.model.config import Checkpoint
from glmserve.sampling_parameters import Sampling
from tests.cuda.rehearsal import Runtime, ending

_CONTEXT = 4096
_WAIT_S = 30.0


def run(folder: Path) -> dict[str, str | bool]:
    """How requests ended that were asked before, while and after the GPU broke, and whether the engine calls itself
    healthy."""
    checkpoint = Checkpoint.read(folder / CHECKPOINT_FOLDER)
    graph = decoder_in(folder)
    decoder = OrtDecoder(graph, checkpoint, 2, _CONTEXT, 1, open_device("cuda"), buckets=(1, 2))
    engine = Engine(decoder, checkpoint.eos_token_ids)
    engine.start()

    def ask(max_tokens: int) -> queue.SimpleQueue[Event]:
        events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        prompt = prompt_arrays(checkpoint, np.arange(300, 320), [], [], [])
        engine.submit(Request(prompt, Sampling(max_tokens=max_tokens), time.monotonic() + _WAIT_S, events.put))
        return events

    before = ending(ask(max_tokens=4))
    running = ask(max_tokens=_CONTEXT)
    running.get(timeout=_WAIT_S)
    Runtime().break_down()
    found: dict[str, str | bool] = {"before": before, "running": ending(running)}
    try:
        for _ in range(3):  # what is asked in between fails as well
            found["later"] = ending(ask(max_tokens=4))
    except GlmServeError as error:
        found["later"] = f"refused: {error.code}"
    engine.stop()
    return found | {"is_healthy": engine.is_healthy}


if __name__ == "__main__":
    print(json.dumps(run(Path(sys.argv[1]))))
