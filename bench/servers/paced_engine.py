"""The real engine on a decoder that only lets time pass, so that replicas do not compete for a machine's processors.

The adapter of a stub build (`bench.servers.stub_build`) opens it inside Triton.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from bench.simulation.step_times import StepTimes
from glmserve.build.manifest import CHECKPOINT_FOLDER
from glmserve.engine.metrics import Metric
from glmserve.engine.runtime.decoder import Sampled, Step
from glmserve.engine.server import EngineServer
from glmserve.engine.settings import EngineSettings
from glmserve.engine.vision.sessions import EncodeImage
from glmserve.limits import MAX_LOGPROBS, SAMPLER_CANDIDATES
from glmserve.model.config import Checkpoint
from glmserve.model.position_embedding import VisionArrays
from glmserve.model.tokenizer import Tokenizer

PACE_FILE = "pace.json"


@dataclass(frozen=True)
class Pace:
    """What a stub build is told: how long its steps take, and the one letter that all its answers consist of."""

    times: StepTimes
    letter: str

    def write(self, folder: Path) -> None:
        (folder / PACE_FILE).write_text(json.dumps(asdict(self)) + "\n", "utf-8")

    @staticmethod
    def read(folder: Path) -> Pace:
        values = json.loads((folder / PACE_FILE).read_text("utf-8"))
        return Pace(StepTimes(**values["times"]), values["letter"])


class PacedSession:
    """A `DecoderSession` that sleeps for as long as a step takes, and always draws the same token."""

    def __init__(self, settings: EngineSettings, context: int, vocabulary: int, times: StepTimes, token: int) -> None:
        self.rows, self.context, self.vocabulary = settings.rows, context, vocabulary
        self.short_rows, self.short_tokens = settings.short_rows, settings.short_tokens
        self.candidates = min(SAMPLER_CANDIDATES, vocabulary)
        self._times = times
        self._token = token

    def warm_up(self) -> None:
        pass

    def run(self, step: Step) -> Sampled:
        time.sleep(self._times.step(step.decoded, int(step.chunk_new.sum())))
        shape = (len(step.sampler.logprob_rows), 1 + MAX_LOGPROBS)
        return Sampled(
            np.full(len(step.drawn), self._token, np.int64),
            np.full(shape, self._token, np.int64),
            np.zeros(shape, np.float32),
        )

    def move(self, source: int, target: int, length: int) -> None:
        """There is no KV to copy."""


def open_paced_engine(folder: Path, _ask_triton: EncodeImage, publish: Callable[[Metric, float], None]) -> EngineServer:
    """As `EngineServer.open`, for a stub build; every image feature is 0."""
    files, settings, pace = folder.parents[2] / CHECKPOINT_FOLDER, EngineSettings(draft_tokens=0), Pace.read(folder)
    checkpoint = Checkpoint.read(files)
    (token,) = Tokenizer.read(files).encode_plain(pace.letter)
    vocabulary, context = checkpoint.text.vocabulary, min(settings.context_tokens, checkpoint.text.max_positions)
    session = PacedSession(settings, context, vocabulary, pace.times, token)

    def encode(arrays: VisionArrays) -> np.ndarray:
        return np.zeros((len(arrays[0]) // checkpoint.images.merge_size**2, checkpoint.text.hidden), np.float32)

    return EngineServer.around(session, checkpoint, settings, files, encode, publish)
