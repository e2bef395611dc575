"""A GPU breaks while the engine decodes: `python -m tests.cuda.breaking BUILD` prints what became of whom, as JSON."""

from __future__ import annotations

import ctypes
import json
import queue
import sys
import time
from pathlib import Path

import numpy as np

from glmserve.checkpoint import Checkpoint
from glmserve.contract import DECODER_MODEL
from glmserve.engine.device import open_device
from glmserve.engine.engine import Engine
from glmserve.engine.intake import prompt_arrays
from glmserve.engine.ort import OrtDecoder
from glmserve.engine.request import Event, Failed, Request, Sampling
from glmserve.errors import GlmServeError
from glmserve.manifest import CHECKPOINT_FOLDER, DECODER_GRAPH, REPOSITORY_FOLDER

_CONTEXT = 4096
_WAIT_S = 30.0


class Asked:
    """A request that is under way."""

    def __init__(self, engine: Engine, checkpoint: Checkpoint, max_tokens: int) -> None:
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        prompt = prompt_arrays(checkpoint, np.arange(300, 320), [], [], [])
        deadline = time.monotonic() + _WAIT_S
        engine.submit(Request(prompt, Sampling(), max_tokens, deadline, self._events.put))

    def wait_for_word(self) -> Event:
        return self._events.get(timeout=_WAIT_S)

    def ending(self) -> str:
        while not (event := self.wait_for_word()).is_last:
            pass
        return f"failed: {event.error.code}" if isinstance(event, Failed) else "done"


def run(folder: Path) -> dict[str, str | bool]:
    checkpoint = Checkpoint.read(folder / CHECKPOINT_FOLDER)
    graph = folder / REPOSITORY_FOLDER / DECODER_MODEL / "1" / DECODER_GRAPH
    decoder = OrtDecoder(graph, checkpoint, 2, _CONTEXT, 1, open_device("cuda"), buckets=(1, 2))
    engine = Engine(decoder, checkpoint.eos_token_ids)
    engine.start()
    before = Asked(engine, checkpoint, max_tokens=4).ending()
    running = Asked(engine, checkpoint, max_tokens=_CONTEXT)
    running.wait_for_word()
    ctypes.CDLL("libcudart.so.13").fake_break()
    found: dict[str, str | bool] = {"before": before, "running": running.ending()}
    try:
        for _ in range(3):  # what is asked in between fails as well
            found["later"] = Asked(engine, checkpoint, max_tokens=4).ending()
    except GlmServeError as error:
        found["later"] = f"refused: {error.code}"
    engine.stop()
    return found | {"is_healthy": engine.is_healthy}


if __name__ == "__main__":
    print(json.dumps(run(Path(sys.argv[1]))))
