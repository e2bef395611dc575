"""Requests on their way to an engine on the fake session: an encoder with a gate, and the tensors of a request."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
from engine_rig import Receiver
from fake_decoder import FakeSession

from glmserve import contract
from glmserve.answer_rules import AnswerRules, TextRule
from glmserve.engine.engine import Engine
from glmserve.engine.grammars.compiler import GrammarCompiler
from glmserve.engine.preprocessor import Preprocessor
from glmserve.engine.triton.tensors import Tensors
from glmserve.engine.vision.encode_queue import EncodeImages, EncodeQueue, FeatureCache
from glmserve.engine.vision.sessions import one_by_one
from glmserve.model.config import Checkpoint
from glmserve.model.position_embedding import VisionArrays

DEMO = Path(__file__).resolve().parents[2] / "demo" / "checkpoint"
CHECKPOINT = Checkpoint.read(DEMO)
EOS = CHECKPOINT.eos_token_ids
WAIT_S = 10.0


class Encoder:
    """Encodes a picture when the test lets it, or fails."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.calls = 0
        self.has_begun = threading.Event()
        self.fails = False

    def __call__(self, arrays: VisionArrays) -> np.ndarray:
        self.calls += 1
        self.has_begun.set()
        assert self.gate.wait(WAIT_S)
        if self.fails:
            raise RuntimeError("/some/path")
        return np.zeros((len(arrays[0]) // 4, CHECKPOINT.text.hidden), np.float32)


class Rig:
    """A preprocessor and an engine on fakes; `encode` may stand for the encoder that waits at its gate."""

    def __init__(self, encode: EncodeImages | None = None, session: FakeSession | None = None) -> None:
        self.encoder = Encoder()
        self.session = session or FakeSession(rows=2, context=512, vocabulary=CHECKPOINT.text.vocabulary)
        self.engine = Engine(self.session, EOS)
        self.engine.start()
        self.grammars = GrammarCompiler(DEMO / "tokenizer.json", CHECKPOINT.text.vocabulary, EOS)
        cache = FeatureCache(1 << 20, self.engine.meter)
        images = EncodeQueue(encode or one_by_one(self.encoder), cache, self.engine.meter)
        self.preprocessor = Preprocessor(CHECKPOINT, self.engine, images, self.grammars, readers=4)

    def ask(
        self,
        images: int = 0,
        deadline_s: float = WAIT_S,
        schema: object = None,
        scope: int = 0,
        seed: int = 0,
        answers: int = 1,
    ) -> Receiver:
        receiver = Receiver()
        asked = tensors_of(images, deadline_s, schema, scope, seed)
        asked |= {contract.ANSWERS.name: np.array([answers], np.int32)}
        self.preprocessor.accept(asked, receiver, receiver.cancelled.is_set)
        return receiver

    def ask_for_places(self, answers: int = 1) -> Receiver:
        """Whether there are any for a request that wants so many answers."""
        receiver = Receiver()
        asked = tensors_of(0, WAIT_S) | {contract.ANSWERS.name: np.array([-answers], np.int32)}
        self.preprocessor.accept(asked, receiver, receiver.cancelled.is_set)
        return receiver

    def close(self) -> None:
        self.preprocessor.close()
        self.engine.stop()
        self.grammars.close()


def tensors_of(images: int, deadline_s: float, schema: object = None, scope: int = 0, seed: int = 0) -> Tensors:
    """Pictures of 4 x 4 patches, of which no two are alike, and others with each seed."""
    ids = [300, *([CHECKPOINT.image_token_id] * 4 + [301]) * images]
    patch = np.random.default_rng([images, seed]).integers(
        0, 256, (16 * images, CHECKPOINT.images.patch_bytes), np.uint8
    )
    tensors = {
        contract.INPUT_IDS.name: np.array(ids, np.int64),
        contract.PATCHES.name: patch,
        contract.GRIDS.name: np.full((images, 2), 4, np.int32),
        "MAX_TOKENS": np.array([3], np.int32),
        "TEMPERATURE": np.zeros(1, np.float32),
        "TOP_P": np.ones(1, np.float32),
        "TOP_K": np.zeros(1, np.int32),
        "SEED": np.zeros(1, np.int64),
        contract.CACHE_SCOPE.name: np.array([scope], np.int64),
        contract.DEADLINE_MS.name: np.array([deadline_s * 1000], np.int32),
    }
    if schema is not None:
        packed = AnswerRules(TextRule("json_schema", schema, "response_format")).packed()
        tensors[contract.GRAMMAR.name] = np.frombuffer(packed, np.uint8)
    return tensors
