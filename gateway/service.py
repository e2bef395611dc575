"""A question becomes prompt ids and patches, goes to the backend, and comes back as an answer."""

from __future__ import annotations

import threading
import time
from contextlib import closing
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from gateway.backend import Backend, GenerateRequest
from gateway.pictures import bytes_of_base64, picture_of
from gateway.schemas import Question
from gateway.settings import GatewaySettings
from glmserve.answer import AnswerReader
from glmserve.checkpoint import Checkpoint
from glmserve.contract import Finish
from glmserve.errors import BackendDown, DeadlineExceeded, Overloaded, PromptTooLong
from glmserve.images import Grid, grid_of, patches_of
from glmserve.manifest import CHECKPOINT_FOLDER
from glmserve.prompt import Message, Picture, PromptBuilder
from glmserve.tokenizer import Tokenizer


@dataclass(frozen=True)
class Deadline:
    """The moment (of the monotonic clock) at which an answer is given up."""

    at_s: float

    @staticmethod
    def after(seconds: float) -> Deadline:
        return Deadline(time.monotonic() + seconds)

    def left_s(self) -> float:
        """Seconds left; raises DeadlineExceeded when there are none."""
        left = self.at_s - time.monotonic()
        if left <= 0:
            raise DeadlineExceeded
        return left


@dataclass(frozen=True)
class Prepared:
    """A question in the backend's terms; `max_tokens` is already cut to what the context has room for."""

    question: Question
    input_ids: NDArray[np.int64]  # i64 [tokens]
    patches: NDArray[np.uint8]  # u8 [patches, patch_bytes]
    grid: Grid
    image_size: tuple[int, int]  # width, height as decoded
    image_tokens: int
    max_tokens: int


@dataclass(frozen=True)
class Answer:
    """A finished answer; `finish_reason` is stop or length."""

    content: str
    thinking: str
    finish_reason: str
    completion_tokens: int


class ChatService:
    """Answers questions about pictures with one build's rules; shared between threads."""

    def __init__(self, settings: GatewaySettings, backend: Backend) -> None:
        """Reads the build's tokenizer, template and picture rules; raises BadArtifact when they are not there."""
        folder = settings.build / CHECKPOINT_FOLDER
        checkpoint = Checkpoint.read(folder)
        self._settings = settings
        self._backend = backend
        self._rules = checkpoint.images
        self._tokenizer = Tokenizer.read(folder)
        self._prompts = PromptBuilder.read(
            folder, self._tokenizer, checkpoint.image_token_id, checkpoint.images.merge_size
        )
        self._context_tokens = min(settings.context_tokens, checkpoint.text.max_positions)
        self._decode_slots = threading.BoundedSemaphore(settings.decode_slots)

    def prepare(self, question: Question, deadline: Deadline) -> Prepared:
        """Decodes the picture and tokenises the prompt; raises InvalidInput for what the user can mend."""
        chars, most = len(question.prompt), self._settings.max_prompt_chars
        if chars > most:
            raise PromptTooLong(f"The prompt has {chars} characters; at most {most} are accepted.", "prompt")
        data = bytes_of_base64(question.image, self._settings.max_image_bytes)
        if not self._decode_slots.acquire(timeout=deadline.left_s()):
            raise Overloaded
        try:
            image = picture_of(data, self._settings.max_image_pixels)
            grid = grid_of(image.height, image.width, self._rules)
            input_ids = self._prompts.build(
                [Message("user", (Picture(), question.prompt))], [grid], thinking=question.thinking
            )
            room = self._room_after(len(input_ids))
            patches, grid = patches_of(image, self._rules)
        finally:
            self._decode_slots.release()
        return Prepared(
            question=replace(question, image=""),  # a picture may weigh 20 MB: do not keep it for the whole answer
            input_ids=input_ids,
            patches=patches,
            grid=grid,
            image_size=image.size,
            image_tokens=grid.tokens(self._rules.merge_size),
            max_tokens=min(question.sampling.max_tokens, room),
        )

    def answer(self, prepared: Prepared, request_id: str, deadline: Deadline) -> Answer:
        """Generates to the end, or to the first stop string, which cancels the rest."""
        sampling = prepared.question.sampling
        request = GenerateRequest(
            request_id=request_id,
            input_ids=prepared.input_ids,
            patches=prepared.patches,
            grids=(prepared.grid,),
            max_tokens=prepared.max_tokens,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            top_k=sampling.top_k,
            seed=sampling.seed,
            deadline_s=deadline.left_s(),
        )
        reader = AnswerReader(self._tokenizer, prepared.question.stop)
        finish, tokens = Finish.RUNNING, 0
        with closing(self._backend.generate(request)) as chunks:
            for chunk in chunks:
                reader.push(list(chunk.tokens))
                finish, tokens = chunk.finish, tokens + len(chunk.tokens)
                if reader.stopped:
                    break
        reader.finish()
        if finish == Finish.RUNNING and not reader.stopped:
            raise BackendDown
        is_cut = finish == Finish.LENGTH and not reader.stopped
        return Answer(reader.content.strip(), reader.thinking.strip(), "length" if is_cut else "stop", tokens)

    def _room_after(self, prompt_tokens: int) -> int:
        room = self._context_tokens - prompt_tokens
        if room < 1:
            raise PromptTooLong(
                f"The prompt and its image need {prompt_tokens} tokens; "
                f"with at least one for the answer they must fit in {self._context_tokens}.",
                "prompt",
            )
        return room
