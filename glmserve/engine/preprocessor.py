"""Prepares requests: a place in the wait queue at once, then grammar, images and prompt, each without a wait."""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

import numpy as np

from glmserve import contract
from glmserve.contract import Finish
from glmserve.engine import metrics
from glmserve.engine.answer_group import AnswerGroup
from glmserve.engine.engine import Engine
from glmserve.engine.grammars.compiler import AnswerGrammar, GrammarCompiler
from glmserve.engine.grammars.fair_queue import FairQueue
from glmserve.engine.grammars.trial import NICENESS
from glmserve.engine.request import Done, Event, Failed, Prompt, Request, Timings
from glmserve.engine.scheduler.preparation import Departures, Preparation
from glmserve.engine.scheduler.wait_queue import Tickets
from glmserve.engine.triton.tensors import Asked, Tensors, answers_in, length_and_deadline, read_request
from glmserve.engine.vision.encode_queue import EncodeQueue, image_key
from glmserve.errors import BackendDown, GlmServeError, Overloaded
from glmserve.model.config import Checkpoint
from glmserve.model.image_processor import Grid
from glmserve.model.mrope import mrope_positions
from glmserve.model.position_embedding import vision_arrays
from glmserve.system.started_pool import started_pool

_log = logging.getLogger(__name__)
_KEY_BITS = 62
_SEEDS = 1 << 64


class Preprocessor:
    """Accepts requests on any thread; the engine's wait queue bounds how many are being prepared.

    No thread waits for an image: the encode queue calls back. Requests without images have a thread of their own.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        engine: Engine,
        images: EncodeQueue,
        grammars: GrammarCompiler,
        readers: int = 1,
        share_caches: bool = False,
    ) -> None:
        """`readers` requests with images are read at a time; closes `images` when it is closed."""
        self._checkpoint = checkpoint
        self._engine = engine
        self._images = images
        self._grammars = grammars
        self._share_caches = share_caches
        self._closing = threading.Event()
        self._departures = Departures(self._show_waiting)
        self._with_images = started_pool(readers, "image-reader")
        self._text = started_pool(1, "preprocessor")
        self._compiling = FairQueue("grammar-compiler", NICENESS)

    def accept(
        self,
        tensors: Tensors,
        emit: Callable[[Event], None],
        is_cancelled: Callable[[], bool],
        when_cancelled: Callable[[Callable[[], None]], None] = lambda _: None,
    ) -> None:
        """Starts a request named by `contract.DECODER_INPUTS`; whatever goes wrong becomes its `Failed` event.

        One that only asks for places ends at once, where there are any.
        `when_cancelled` is handed a callback that ends the request at once, if it has no slot yet.
        """
        most, left_s = length_and_deadline(tensors)
        try:
            wanted = answers_in(tensors)
            tickets = self._engine.enter_all(abs(wanted), len(tensors[contract.INPUT_IDS.name]), most, left_s)
        except GlmServeError as error:
            if not isinstance(error, Overloaded):  # counted apart
                self._engine.meter.add(metrics.FAILED)
            emit(Failed(error))
            return
        if wanted < 0:
            tickets.leave()
            emit(Done(Finish.STOP, Timings()))
            return
        asking = Preparation(emit, is_cancelled, time.monotonic() + left_s, tickets, self._engine.meter)
        asking.at_end(lambda: self._images.forget(asking))
        when_cancelled(asking.cancel)
        self._departures.watch(asking)
        try:
            self._pool(bool(len(tensors.get(contract.GRIDS.name, ())))).submit(self._prepare, tensors, asking)
        except RuntimeError:  # the pool is shut down
            asking.fail(_stopping())

    def close(self) -> None:
        """Every request that is still being prepared fails."""
        self._images.stop()  # first, so that no further image is begun
        self._closing.set()
        self._departures.close(_stopping())
        self._images.close()
        self._compiling.close()
        for pool in (self._with_images, self._text):
            pool.shutdown(wait=True, cancel_futures=False)  # each request still gets its last event

    def _pool(self, has_images: bool) -> ThreadPoolExecutor:
        """Text never waits while the digest of somebody's images is computed."""
        return self._with_images if has_images else self._text

    def _prepare(self, tensors: Tensors, asking: Preparation) -> None:
        with self._refusing(asking):
            asked = read_request(tensors, self._checkpoint)
            grammar = self._grammars.kept(asked.grammar, asked.scope) if asked.grammar else None
            if asked.grammar and grammar is None:  # elsewhere: this thread is everybody's
                self._compiling.add(asked.scope, lambda: self._compile(asked, asking))
            else:
                self._encode(asked, asking, grammar)

    def _compile(self, asked: Asked, asking: Preparation) -> None:
        with self._refusing(asking):
            self._check(asking)
            assert asked.grammar is not None
            grammar = self._grammars.compile(asked.grammar, asked.scope)
            self._pool(bool(asked.images)).submit(self._encode, asked, asking, grammar)

    def _encode(self, asked: Asked, asking: Preparation, grammar: AnswerGrammar | None) -> None:
        """Asks for the request's images; whoever finds the last of them passes the request on."""
        with self._refusing(asking):
            self._check(asking)
            keys = [image_key(patches, grid, self._scope(asked)) for patches, grid in asked.images]
            side = self._checkpoint.vision.table_side
            gathered = _Gathered(len(keys), lambda found: self._submit(asked, asking, grammar, keys, found))
            for index, (key, image) in enumerate(zip(keys, asked.images, strict=True)):
                self._images.want(key, partial(vision_arrays, *image, side), asking, partial(gathered.put, index))
            gathered.begin()

    def _submit(
        self,
        asked: Asked,
        asking: Preparation,
        grammar: AnswerGrammar | None,
        keys: list[bytes],
        gathered: _Gathered,
    ) -> None:
        with self._refusing(asking):
            grids = [grid for _, grid in asked.images]
            request = Request(
                prompt=prompt_arrays(self._checkpoint, asked.input_ids, grids, gathered.features(), keys),
                sampling=asked.sampling,
                deadline=asking.deadline,
                emit=asking.emit,
                is_cancelled=asking.is_cancelled,
                grammar=grammar,
                scope=self._scope(asked),
                vision_s=time.monotonic() - gathered.began,
                arrived=asking.arrived,
            )
            self._check(asking)
            self._start(request, asked, asking.tickets, grammar)

    def _start(self, request: Request, asked: Asked, tickets: Tickets, grammar: AnswerGrammar | None) -> None:
        """Hands one request for each answer to the engine: the first reads the prompt, the others share its KV."""
        if asked.answers == 1:
            self._engine.submit(request, tickets.one)
            return
        group = AnswerGroup(request.emit, asked.answers)
        for number, ticket in enumerate(tickets):
            answer = replace(
                request,
                sampling=replace(asked.sampling, seed=_seed_after(asked.sampling.seed, number)),
                emit=group.receiver(number),
                is_cancelled=lambda: group.has_failed or request.is_cancelled(),
            )
            try:
                if grammar is not None and number:
                    answer = replace(answer, grammar=grammar.another())
                self._engine.submit(answer, ticket)
            except GlmServeError as error:  # others may run already
                tickets.leave(number)
                self._engine.meter.add(metrics.FAILED)
                answer.emit(Failed(error))
                return

    def _scope(self, asked: Asked) -> int:
        """Who shares cached prompts and images with this request."""
        return salted(0 if self._share_caches else asked.scope, asked.salt)

    @contextmanager
    def _refusing(self, asking: Preparation) -> Generator[None]:
        """The outermost frame of a request on one of our threads: what goes wrong in it is the request's last event."""
        try:
            yield
        except GlmServeError as error:
            asking.fail(error)
        except Exception:  # the client gets our text, never a library's
            _log.exception("a request could not be prepared")
            asking.fail(GlmServeError())

    def _show_waiting(self) -> None:
        """The engine shows it too, but a step may take seconds."""
        self._engine.meter.set(metrics.WAITING, self._engine.wait_queue.requests)

    def _check(self, asking: Preparation) -> None:
        """Raises the reason to stop preparing a request, so that no image is encoded in vain."""
        asking.check()
        if self._closing.is_set():
            raise _stopping()


class _Gathered:
    """The features of a request's images as they come, from any thread; the last one calls `then`."""

    def __init__(self, count: int, then: Callable[[_Gathered], None]) -> None:
        self.began = time.monotonic()
        self._found: list[np.ndarray | GlmServeError | None] = [None] * count
        self._missing = 1 + count  # one more, until all are asked for
        self._then = then
        self._lock = threading.Lock()

    def put(self, index: int, found: np.ndarray | GlmServeError) -> None:
        self._found[index] = found
        self._count()

    def begin(self) -> None:
        """All images have been asked for."""
        self._count()

    def features(self) -> list[np.ndarray]:
        """f32 [image tokens, hidden] of each image; raises the first failure."""
        features = []
        for found in self._found:
            if isinstance(found, GlmServeError):
                raise found
            assert found is not None
            features.append(found)
        return features

    def _count(self) -> None:
        with self._lock:
            self._missing -= 1
            is_last = self._missing == 0
        if is_last:
            self._then(self)


def _stopping() -> BackendDown:
    return BackendDown("The engine is stopping.")


def _seed_after(seed: int, number: int) -> int:
    """The seed of an answer counted from 0: the next one each, and after the last int64 the first."""
    return (seed + number + _SEEDS // 2) % _SEEDS - _SEEDS // 2


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
