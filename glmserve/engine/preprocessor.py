"""Prepares requests: a place in the wait queue at once, then images, prompt and grammar on a few threads."""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np

from glmserve import contract
from glmserve.engine import metrics
from glmserve.engine.answer_group import AnswerGroup
from glmserve.engine.engine import Engine
from glmserve.engine.fair_queue import FairQueue
from glmserve.engine.grammar import AnswerGrammar, GrammarCompiler
from glmserve.engine.grammar_trial import NICENESS
from glmserve.engine.request import Event, Failed, Prompt, Request
from glmserve.engine.scheduler.wait_queue import Tickets
from glmserve.engine.triton.tensors import Asked, Tensors, answers_in, length_and_deadline, read_request
from glmserve.engine.vision.feature_cache import FeatureCache, image_key
from glmserve.errors import BackendDown, Cancelled, DeadlineExceeded, GlmServeError, Overloaded
from glmserve.model.config import Checkpoint
from glmserve.model.image_processor import Grid
from glmserve.model.mrope import mrope_positions
from glmserve.model.position_embedding import VisionArrays, vision_arrays

_log = logging.getLogger(__name__)
_KEY_BITS = 62
_SEEDS = 1 << 63

EncodeImage = Callable[[VisionArrays], np.ndarray]
"""One image's arrays -> features f32 [image tokens, hidden]."""


class Preprocessor:
    """Accepts requests on any thread; the engine's wait queue bounds how many are being prepared."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        engine: Engine,
        encode: EncodeImage,
        images: FeatureCache,
        grammars: GrammarCompiler,
        readers: int,
        share_caches: bool = False,
    ) -> None:
        self._checkpoint = checkpoint
        self._engine = engine
        self._encode = encode
        self._images = images
        self._grammars = grammars
        self._share_caches = share_caches
        self._closing = threading.Event()
        self._pool = ThreadPoolExecutor(readers, thread_name_prefix="preprocessor")
        self._compiling = FairQueue("grammar-compiler", NICENESS)

    def accept(
        self,
        tensors: Tensors,
        emit: Callable[[Event], None],
        is_cancelled: Callable[[], bool],
        when_cancelled: Callable[[Callable[[], None]], None] = lambda _: None,
    ) -> None:
        """Starts a request named by `contract.DECODER_INPUTS`; whatever goes wrong becomes its `Failed` event.

        `when_cancelled` is handed a callback that gives the request's place in the wait queue back at once.
        """
        asking = _Asking(emit, is_cancelled, time.monotonic())
        tickets = Tickets()
        try:
            for number in range(answers_in(tensors)):
                tokens = 1 if number else len(tensors[contract.INPUT_IDS.name])  # the others share its KV
                tickets.add(self._engine.enter(tokens, *length_and_deadline(tensors)))
        except GlmServeError as error:
            tickets.leave()
            self._refuse(asking, error)
            return
        when_cancelled(tickets.leave_queue)
        try:
            self._pool.submit(self._prepare, tensors, asking, tickets)
        except RuntimeError:  # the pool is shut down
            tickets.leave()
            self._refuse(asking, BackendDown("The engine is stopping."))

    def close(self) -> None:
        """Requests still in preparation fail before their next image."""
        self._closing.set()
        self._compiling.close()
        self._pool.shutdown(wait=True, cancel_futures=False)  # each request still gets its last event

    def _prepare(self, tensors: Tensors, asking: _Asking, tickets: Tickets) -> None:
        with self._refusing(asking, tickets):
            asked = read_request(tensors, self._checkpoint)
            grammar = self._grammars.kept(asked.grammar, asked.scope) if asked.grammar else None
            if asked.grammar and grammar is None:  # elsewhere: these threads are everybody's
                self._compiling.add(asked.scope, lambda: self._compile(asked, asking, tickets))
            else:
                self._start(self._request(asked, asking, grammar), asked, tickets)

    def _compile(self, asked: Asked, asking: _Asking, tickets: Tickets) -> None:
        with self._refusing(asking, tickets):
            self._check(asking, asking.arrived + asked.deadline_s)
            assert asked.grammar is not None
            grammar = self._grammars.compile(asked.grammar, asked.scope)
            self._pool.submit(self._submit, asked, asking, tickets, grammar)

    def _submit(self, asked: Asked, asking: _Asking, tickets: Tickets, grammar: AnswerGrammar) -> None:
        with self._refusing(asking, tickets):
            self._start(self._request(asked, asking, grammar), asked, tickets)

    def _start(self, request: Request, asked: Asked, tickets: Tickets) -> None:
        """Hands one request for each answer to the engine: the first reads the prompt, the others share its KV."""
        if asked.answers == 1:
            self._engine.submit(request, tickets.one)
            return
        group = AnswerGroup(request.emit, asked.answers)
        for number, ticket in enumerate(tickets):
            answer = replace(
                request,
                sampling=replace(asked.sampling, seed=(asked.sampling.seed + number) % _SEEDS),
                emit=group.receiver(number),
                is_cancelled=lambda: group.has_failed or request.is_cancelled(),
            )
            try:
                if asked.grammar and number:  # kept, and begun anew
                    answer = replace(answer, grammar=self._grammars.compile(asked.grammar, asked.scope))
                self._engine.submit(answer, ticket)
            except GlmServeError as error:  # others may run already
                tickets.leave(number)
                self._engine.meter.add(metrics.FAILED)
                answer.emit(Failed(error))
                return

    @contextmanager
    def _refusing(self, asking: _Asking, tickets: Tickets) -> Generator[None]:
        """The outermost frame of a request on one of our threads: what goes wrong in it is the request's last event."""
        try:
            yield
        except GlmServeError as error:
            tickets.leave()
            self._refuse(asking, error)
        except Exception:  # the client gets our text, never a library's
            _log.exception("a request could not be prepared")
            tickets.leave()
            self._refuse(asking, GlmServeError())

    def _refuse(self, asking: _Asking, error: GlmServeError) -> None:
        if not isinstance(error, Overloaded):  # counted apart
            self._engine.meter.add(metrics.FAILED)
        asking.emit(Failed(error))

    def _request(self, asked: Asked, asking: _Asking, grammar: AnswerGrammar | None) -> Request:
        deadline = asking.arrived + asked.deadline_s
        self._check(asking, deadline)
        began = time.monotonic()
        scope = salted(0 if self._share_caches else asked.scope, asked.salt)
        grids = [grid for _, grid in asked.images]
        keys = [image_key(patches, grid, scope) for patches, grid in asked.images]
        features = []
        for key, (patches, grid) in zip(keys, asked.images, strict=True):
            self._check(asking, deadline)
            features.append(self._features(key, patches, grid))
        vision_s = time.monotonic() - began
        return Request(
            prompt=prompt_arrays(self._checkpoint, asked.input_ids, grids, features, keys),
            sampling=asked.sampling,
            deadline=deadline,
            emit=asking.emit,
            is_cancelled=asking.is_cancelled,
            grammar=grammar,
            scope=scope,
            vision_s=vision_s,
            arrived=asking.arrived,
        )

    def _features(self, key: bytes, patches: np.ndarray, grid: Grid) -> np.ndarray:
        side = self._checkpoint.vision.table_side
        return self._images.features(key, lambda: self._encode(vision_arrays(patches, grid, side)))

    def _check(self, asking: _Asking, deadline: float) -> None:
        """Raises the reason to stop preparing a request, so that no image is encoded in vain."""
        if asking.is_cancelled():
            raise Cancelled("The client went away.")
        if time.monotonic() >= deadline:
            raise DeadlineExceeded("The request's time ran out before it was prepared.")
        if self._closing.is_set():
            raise BackendDown("The engine is stopping.")


@dataclass(frozen=True)
class _Asking:
    """Who asked, and when: a `time.monotonic()` instant."""

    emit: Callable[[Event], None]
    is_cancelled: Callable[[], bool]
    arrived: float


def salted(scope: int, salt: int) -> int:
    """The scope of those who send this salt; without one, the scope itself."""
    if not salt:
        return scope
    digest = hashlib.sha256(scope.to_bytes(8, "little", signed=True) + salt.to_bytes(8, "little", signed=True))
    return int.from_bytes(digest.digest()[:8], "little", signed=True)


def prompt_arrays(
    checkpoint: Checkpoint,
    input_ids: np.ndarray,
    grids: list[Grid],
    features: list[np.ndarray],
    image_keys: list[bytes],
) -> Prompt:
    """A prompt i64 [tokens] and its images' features f32 [image tokens, hidden] as the decoder takes them."""
    positions, delta = mrope_positions(input_ids, checkpoint.image_token_id, grids, checkpoint.vision.merge_size)
    is_image = input_ids == checkpoint.image_token_id
    keys = input_ids.copy()
    keys[is_image] = _image_token_keys(image_keys, [len(part) for part in features])
    return Prompt(
        input_ids=input_ids,
        positions=positions,
        delta=delta,
        features=features,
        image_slot=np.where(is_image, np.cumsum(is_image), 0),
        keys=keys,
    )


def _image_token_keys(image_keys: list[bytes], counts: list[int]) -> np.ndarray:
    """Keys below 0, where no token id lies, made from the image's digest and the token's place in it."""
    parts = [np.empty(0, np.int64)]
    for key, count in zip(image_keys, counts, strict=True):
        first = int.from_bytes(key[:8], "little") >> (64 - _KEY_BITS)
        parts.append(-1 - (first + np.arange(count)) % (1 << _KEY_BITS))
    return np.concatenate(parts)
