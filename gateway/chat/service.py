"""Turns a conversation into token ids and patches, sends them to Triton, and returns the answer."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Generator
from contextlib import closing, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from gateway.chat.generation import Answer, AnswerStream, Event, StartedAnswer, started, whole
from gateway.chat.image_decoder import ImageSizeLimits, OpenedImage, bytes_of_base64, file_of
from gateway.chat.image_fetcher import ImageFetcher, is_url
from gateway.chat.last_heard import LastHeard
from gateway.chat.prompts import Prompt, Prompts
from gateway.chat.retry import RetryBudget, with_one_retry
from gateway.chat.sampling_ids import with_token_ids
from gateway.chat.side_by_side import side_by_side
from gateway.deadline import Deadline
from gateway.images.decoder_pool import DecoderPool
from gateway.limits.admission import Admission
from gateway.limits.turns import Turns
from gateway.reading.dear import is_dear_text
from gateway.reading.dear_reader import DearReader
from gateway.schemas.conversation import Conversation, PixelBounds, SentImage
from gateway.settings import GatewaySettings
from gateway.triton.backend import BackendPool, Cancellation, GenerateRequest
from gateway.triton.stream_buffer import StreamBuffer
from glmserve.build.manifest import CHECKPOINT_FOLDER
from glmserve.errors import BadImage, InvalidInput, TooLarge
from glmserve.limits import MAX_IMAGES
from glmserve.model.chat_template import PromptBuilder
from glmserve.model.config import Checkpoint
from glmserve.model.image_processor import Grid, ImageRules, grid_of, merge_planes, smart_resize
from glmserve.model.tokenizer import Tokenizer

T = TypeVar("T")
_LOW_DETAIL_PIXELS = 512 * 512
"""Of an image in low detail, as OpenAI makes it."""
_LONG_PROMPT = 4000
"""Characters: no more take a millisecond or two, for which nobody waits."""


@dataclass(frozen=True)
class Prepared:
    """A conversation ready for the backend; `max_tokens` already fits into the context.

    Where a request has several prompts, this is the first of them, and `others` are the next.
    """

    conversation: Conversation
    prompt: Prompt
    patches: NDArray[np.uint8] | None  # u8 [patches, patch_bytes]
    max_tokens: int
    others: tuple[Prepared, ...] = ()

    @property
    def prompt_tokens(self) -> int:
        """Those of all prompts together."""
        return sum(len(each.prompt.input_ids) for each in (self, *self.others))


@dataclass(frozen=True)
class RequestContext:
    """What an answer needs to know of its request besides the prompt."""

    request_id: str
    deadline: Deadline
    cancellation: Cancellation
    cache_scope: int = 0
    traceparent: str = ""
    is_probe: bool = False


class ChatService:
    """Answers conversations by one build's rules; shared between threads."""

    def __init__(self, settings: GatewaySettings, pool: BackendPool, dear: DearReader | None = None) -> None:
        """Reads the build's tokenizer, chat template and image rules; raises BadArtifact when one is missing."""
        folder = settings.build / CHECKPOINT_FOLDER
        checkpoint = Checkpoint.read(folder)
        self.tokenizer = Tokenizer.read(folder)
        self._settings = settings
        self._pool = pool
        self.heard = LastHeard(settings.metrics_folder)
        self._retries = RetryBudget()
        self.is_demo = checkpoint.is_demo
        self._rules = checkpoint.images
        self._vocabulary = checkpoint.text.vocabulary
        builder = PromptBuilder.read(folder, self.tokenizer, checkpoint.image_token_id, checkpoint.images.merge_size)
        self.takes_tools, self.thinks = builder.takes_tools, builder.thinks
        self.context_tokens = min(settings.context_tokens, checkpoint.text.max_positions)
        self._prompts = Prompts(
            builder,
            self.tokenizer,
            checkpoint.image_token_id,
            checkpoint.images.merge_size,
            settings.max_prompt_chars,
            self.context_tokens,
        )
        # Here an image counts as one token.
        self._image_decoders = Admission(settings.image_decoders, settings.threads, settings.threads)
        self.decoders = DecoderPool()
        self._turns = Turns()
        self._dear = dear or DearReader(settings.deadline_s)
        self._urls = ImageFetcher(
            settings.image_hosts,
            settings.max_image_bytes,
            settings.image_fetch_timeout_s,
            private_hosts=settings.image_private_hosts,
            model=settings.model_name,
        )
        self._sizes = ImageSizeLimits(
            settings.max_image_bytes,
            settings.max_image_pixels,
            settings.max_image_side,
            settings.large_images == "downscale",
            settings.image_memory_bytes,
            settings.image_cpu_s,
        )

    @property
    def heard_at_s(self) -> float:
        """When Triton last sent a part of any answer but a probe's, by time.monotonic."""
        return self.heard.at_s

    def prepare(
        self,
        conversation: Conversation,
        deadline: Deadline,
        cancellation: Cancellation,
        admit: Callable[[Prompt, int], None] = lambda *_: None,
        caller: str = "",
    ) -> Prepared:
        """Tokenises the prompt and decodes the images; raises InvalidInput for mistakes of the user.

        Calls `admit` with the prompt and its `max_tokens` before it decodes an image. What is large waits until it is
        the caller's turn.
        """
        files = self._files(conversation, deadline, caller)
        opened = [OpenedImage(data, self._sizes, sent.field) for sent, data in files]
        rules = [self._rules_for(sent, conversation.pixels) for sent, _ in files]
        conversation = with_token_ids(conversation, self.tokenizer, self._vocabulary)
        prompt = self._tokenised(conversation, opened, rules, deadline, caller)
        if self._settings.audit_file is not None:
            prompt = replace(prompt, image_hashes=tuple(hashlib.sha256(data).hexdigest() for _, data in files))
        room = self._prompts.room_after(prompt, conversation.prompt_field)
        max_tokens = min(conversation.sampling.max_tokens, room)
        admit(prompt, max_tokens)
        patches = self._patches(opened, rules, deadline, cancellation)
        return Prepared(_without_images(conversation), prompt, patches, max_tokens)

    def count(self, conversation: Conversation, deadline: Deadline, caller: str = "") -> Prompt:
        """The prompt as it would be sent, however long; decodes no image."""
        files = self._files(conversation, deadline, caller)
        rules = [self._rules_for(sent, conversation.pixels) for sent, _ in files]
        opened = [OpenedImage(data, self._sizes, sent.field) for sent, data in files]
        return self._tokenised(conversation, opened, rules, deadline, caller, is_bounded=False)

    def answer(self, prepared: Prepared, context: RequestContext) -> Answer:
        """The whole answer; begun again once if its Triton goes down."""
        return self._begun(lambda: whole(self._events(prepared, context)), context)

    def stream(
        self, prepared: Prepared, context: RequestContext, stream_buffer: StreamBuffer | None = None
    ) -> StartedAnswer:
        """The answer's pieces, then the answer. Returns with the first; until then it is begun again once if needed.

        With a `stream_buffer`, and a backend that fills it, each piece the buffer holds comes without waiting.
        """
        return self._begun(lambda: started(self._events(prepared, context, stream_buffer)), context)

    def _begun(self, begin: Callable[[], T], context: RequestContext) -> T:
        return with_one_retry(begin, context.request_id, self._retries, self._pool.has_another)

    def _events(
        self, prepared: Prepared, context: RequestContext, stream_buffer: StreamBuffer | None = None
    ) -> Generator[Event]:
        if prepared.others:
            return self._side_by_side(prepared, context)
        request = self._request(prepared, context, stream_buffer)
        stream = AnswerStream(self.tokenizer, prepared.conversation, prepared.prompt.image_sizes)
        events = stream.events(self._pool, request)
        return events if context.is_probe else self._noting(events)

    def _side_by_side(self, prepared: Prepared, context: RequestContext) -> Generator[Event]:
        """The answers to several prompts; a cancellation of their own lets them be begun again."""
        together = Cancellation()
        context.cancellation.add_callback(together.cancel)
        each_context = replace(context, cancellation=together)
        prompts = (replace(prepared, others=()), *prepared.others)
        begin = [partial(self._events, each, each_context) for each in prompts]
        return side_by_side(begin, prepared.conversation.answers, together)

    def _noting(self, events: Generator[Event]) -> Generator[Event]:
        with closing(events):
            for event in events:
                self.heard.note()
                yield event

    def _request(
        self, prepared: Prepared, context: RequestContext, stream_buffer: StreamBuffer | None
    ) -> GenerateRequest:
        conversation = prepared.conversation
        return GenerateRequest(
            request_id=context.request_id,
            input_ids=prepared.prompt.input_ids,
            patches=prepared.patches,
            grids=prepared.prompt.grids,
            sampling=replace(
                conversation.sampling,
                max_tokens=prepared.max_tokens,
                min_tokens=min(conversation.sampling.min_tokens, prepared.max_tokens),
            ),
            deadline_s=context.deadline.left_s(),
            grammar=conversation.grammar,
            cache_scope=context.cache_scope,
            cache_salt=_salt(conversation.cache_salt),
            answers=conversation.answers,
            traceparent=context.traceparent,
            cancellation=context.cancellation,
            stream_buffer=stream_buffer,
        )

    def _files(self, conversation: Conversation, deadline: Deadline, caller: str) -> list[tuple[SentImage, bytes]]:
        images = conversation.images()
        if len(images) > MAX_IMAGES:
            raise InvalidInput(f"A request may hold at most {MAX_IMAGES} images.", images[MAX_IMAGES].field)
        return [(sent, self._file(sent, deadline, caller)) for sent in images]

    def _file(self, sent: SentImage, deadline: Deadline, caller: str) -> bytes:
        if isinstance(sent.data, str):
            if is_url(sent.data):
                return self._urls.read(sent.data.strip(), sent.field, deadline.left_s())
            most = self._sizes.max_bytes
            if is_dear_text(sent.data):
                return self._dear.read(caller, file_of, sent.data, most, sent.field)
            return bytes_of_base64(sent.data, most, sent.field)
        if len(sent.data) > self._sizes.max_bytes:
            raise TooLarge(f"The image holds more than {self._sizes.max_bytes} bytes.", sent.field)
        return sent.data

    def _rules_for(self, sent: SentImage, pixels: PixelBounds) -> ImageRules:
        """The checkpoint's rules for an image, within the bounds that the request sets."""
        rules = self._rules
        most = min(pixels.most or rules.max_pixels, rules.max_pixels)
        if sent.detail == "low":
            most = min(most, rules.temporal_patch_size * _LOW_DETAIL_PIXELS)
        fewest = rules.min_pixels if pixels.fewest is None else pixels.fewest
        return replace(rules, min_pixels=min(fewest, most), max_pixels=most)

    def _tokenised(
        self,
        conversation: Conversation,
        opened: list[OpenedImage],
        rules: list[ImageRules],
        deadline: Deadline,
        caller: str,
        is_bounded: bool = True,
    ) -> Prompt:
        """Raises PromptTooLong; unless `is_bounded`, only for more characters than are accepted."""
        chars = self._prompts.checked_chars(conversation)
        grids = [self._grid(image, each) for image, each in zip(opened, rules, strict=True)]
        with self._turns.take(caller, deadline) if chars > _LONG_PROMPT else nullcontext():
            return self._prompts.prompt(conversation, grids, tuple(image.size for image in opened), is_bounded)

    def _grid(self, image: OpenedImage, rules: ImageRules) -> Grid:
        width, height = image.size
        try:
            grid = grid_of(height, width, rules)
        except BadImage as error:
            raise BadImage(error.message, image.field) from error
        if rules.temporal_patch_size * grid.patches * rules.patch_size**2 > self._rules.max_pixels:
            raise BadImage("The fewest pixels asked for are more than this image's shape can have.", image.field)
        return grid

    def _patches(
        self, opened: list[OpenedImage], rules: list[ImageRules], deadline: Deadline, cancellation: Cancellation
    ) -> NDArray[np.uint8] | None:
        """Takes each image out of `opened`: its file may weigh 15 MB.

        Between two images of a request, other requests get their turn, in the order in which they came.
        """
        decoded: list[NDArray[np.uint8]] = []
        while opened:
            with self._image_decoders.admit(1, deadline, cancellation):
                decoded.append(self._decode(opened.pop(0), rules[len(decoded)], deadline, cancellation))
        if not decoded:
            return None
        return decoded[0] if len(decoded) == 1 else np.concatenate(decoded)

    def _decode(
        self, image: OpenedImage, rules: ImageRules, deadline: Deadline, cancellation: Cancellation
    ) -> NDArray[np.uint8]:
        width, height = image.size
        height, width = smart_resize(height, width, rules)
        return merge_planes(image.planes(self.decoders, (width, height), deadline, cancellation), rules)


def _salt(text: str) -> int:
    """The salt as the engine takes it; 0 where there is none."""
    if not text:
        return 0
    return int.from_bytes(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:8], "little", signed=True)


def _without_images(conversation: Conversation) -> Conversation:
    """Without the images, which take up to 20 MB each and are not needed while the answer is generated."""
    return replace(conversation, turns=())
