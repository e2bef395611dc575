"""Pictures are read on other threads while CUDA graphs are captured: `python -m tests.cuda.beside BUILD`, in JSON."""

from __future__ import annotations

import itertools
import json
import queue
import sys
import threading
import time
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np

from glmserve.build.manifest import CHECKPOINT_FOLDER, decoder_in, vision_in
from glmserve.engine.engine import Engine
from glmserve.engine.metrics import Meter
from glmserve.engine.preprocessor import prompt_arrays
from glmserve.engine.request import Event, Request
from glmserve.engine.runtime.device import open_device
from glmserve.engine.runtime.ort_decoder import OrtDecoder, OrtVision
from glmserve.engine.vision.encode_queue import EncodeQueue, FeatureCache
from glmserve.engine.vision.sessions import in_batches
from glmserve.model.config import Checkpoint
from glmserve.model.image_processor import Grid
from glmserve.model.position_embedding import vision_arrays
from glmserve.sampling_parameters import Sampling
from tests.cuda.rehearsal import Runtime, ending

_CONTEXT = 256
_ROWS = 4
_IMAGES = 24
_WAIT_S = 60.0


class _Patient:
    """Waits for its picture to the end."""

    deadline = float("inf")

    def has_left(self) -> bool:
        return False


def run(folder: Path) -> dict[str, Any]:
    """How many pictures and graphs there were, how the requests ended, and what the runtime has against it."""
    device, runtime = open_device("cuda"), Runtime()
    checkpoint = Checkpoint.read(folder / CHECKPOINT_FOLDER)
    decoder = OrtDecoder(decoder_in(folder), checkpoint, _ROWS, _CONTEXT, 1, device, buckets=(1, 2, 4))
    vision = in_batches(OrtVision(vision_in(folder), 1, device))
    encoder = EncodeQueue(vision, FeatureCache(0, Meter()), Meter(), most=8, most_patches=4096)
    keys = itertools.count()
    reads = [0, 0]
    stop = threading.Event()

    def read(number: int) -> None:
        """Pictures of ever another size, for each of which the device allocates anew."""
        size = 2
        while not stop.is_set() or reads[number] < _IMAGES:
            size = 2 + (size + 2 * number) % 40
            grid = Grid(size, 2 + 2 * (reads[number] % 20))
            patches = np.zeros((grid.patches, checkpoint.images.patch_bytes), np.uint8)
            arrays, found = vision_arrays(patches, grid, checkpoint.vision.table_side), Future[Any]()
            encoder.want(str(next(keys)).encode(), lambda arrays=arrays: arrays, _Patient(), found.set_result)
            assert isinstance(found.result(_WAIT_S), np.ndarray)
            reads[number] += 1

    threads = [threading.Thread(target=read, args=(number,)) for number in range(len(reads))]
    for thread in threads:
        thread.start()
    engine = Engine(decoder, checkpoint.eos_token_ids, _ROWS)
    engine.start()
    heard = []
    for number in range(4 * _ROWS):
        events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        heard.append(events)
        prompt = prompt_arrays(checkpoint, np.arange(300, 310 + 8 * number), [], [], [])
        sampling = Sampling(
            max_tokens=6 + number,
            repetition_penalty=1.0 + 0.1 * (number % 3),
            logprobs=True,
            top_logprobs=number % 4,
        )
        deadline = time.monotonic() + _WAIT_S
        engine.submit(Request(prompt, sampling, deadline, events.put))
    endings = [ending(events) for events in heard]
    engine.stop()
    stop.set()
    for thread in threads:
        thread.join(_WAIT_S)
    encoder.close()
    return {
        "pictures": sum(reads),
        "graphs": runtime.counts().graphs,
        "endings": endings,
        "faults": runtime.faults(),
    }


if __name__ == "__main__":
    print(json.dumps(run(Path(sys.argv[1]))))
