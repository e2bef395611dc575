"""Turns a conversation into token ids and patches, sends them to Triton, and returns the answer."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Generator
from contextlib import closing, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from gateway.chat.decoding import Decoding
from gateway.chat.generation import Answer, AnswerStream, Event, StartedAnswer, started, whole
from gateway.chat.image_decoder import ImageSizeLimits, OpenedImage
from gateway.chat.last_heard import LastHeard
from gateway.chat.place_check import PlaceCheck
from gateway.chat.prompts import Prompt, Prompts
from gateway.chat.retry import RetryBudget, where_there_is_room, with_one_retry
from gateway.chat.sampling_ids import with_token_ids
from gateway.chat.sent_files import SentFiles, file_hash
from gateway.chat.side_by_side import side_by_side
from gateway.chat.videos.opener import VideoOpener, check_takes_videos, fit_into
from gateway.chat.videos.shown import ShownImage, ShownVideo
from gateway.deadline import Deadline
from gateway.images.decoder_pool import DecoderPool
from gateway.limits.admission import Admission
from gateway.limits.turns import Turns
from gateway.reading.dear_reader import DearReader
from gateway.schemas.conversation import Conversation, PixelBounds, SentImage, SentVideo, Shown
from gateway.settings import GatewaySettings
from gateway.triton.backend import BackendPool, Cancellation, GenerateRequest
from gateway.triton.stream_buffer import StreamBuffer
from glmserve.build.manifest import CHECKPOINT_FOLDER
from glmserve.errors import InvalidInput
from glmserve.limits import MAX_IMAGES, MAX_VIDEOS
from glmserve.model.chat_template import PromptBuilder
from glmserve.model.config import Checkpoint
from glmserve.model.image_processor import Grid, ImageRules, merge_planes, smart_resize
from glmserve.model.tokenizer import Tokenizer

T = TypeVar("T")
_LOW_DETAIL_PIXELS = 512 * 512
"""Of an image in low detail, as OpenAI makes it."""
_LONG_PROMPT = 4000
"""Characters or tokens: no more take a millisecond or two, for which nobody waits."""
_TURN_CHARS = 16
"""What a turn, a part or a call counts as beside its text: the template takes 20 us for each."""
_MOST_TOKENS_A_CHAR = 4  # its bytes in UTF-8


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
        self._places = PlaceCheck(pool)
        self.is_demo = checkpoint.is_demo
        self._rules = checkpoint.images
        self._vocabulary = checkpoint.text.vocabulary
        builder = PromptBuilder.read(folder, self.tokenizer, checkpoint.image_token_id, checkpoint.images.merge_size)
        self.takes_tools, self.thinks, self.takes_videos = builder.takes_tools, builder.thinks, builder.takes_videos
        self.chat_template = builder.source
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
        self._sent = SentFiles(settings, dear or DearReader(settings.deadline_s))
        self._videos = VideoOpener(settings, checkpoint.videos)
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
        when_opened: Callable[[], None] | None = None,
    ) -> Prepared:
        """Tokenises the prompt and decodes the images; raises InvalidInput for mistakes of the user.

        Calls `admit` with the prompt and its `max_tokens` before it decodes an image. What is large waits until it is
        the caller's turn. Decoded frames of a video are shared within a caller's requests.

        With `when_opened`, that is called before anything is tokenised, and what is dear to prepare is then refused
        with Overloaded where the engine has no place for it.
        """
        decoding = Decoding(self.decoders, deadline, cancellation, caller, conversation.cache_salt)
        shown = self._opened(conversation, decoding)
        if when_opened is not None:
            when_opened()
            self._check_place(conversation, shown, decoding)
        conversation = with_token_ids(conversation, self.tokenizer, self._vocabulary)
        prompt = self._tokenised(conversation, shown, decoding)
        room = self._prompts.room_after(prompt, conversation.prompt_field)
        max_tokens = min(conversation.sampling.max_tokens, room)
        admit(prompt, max_tokens)
        videos = [each for each in shown if isinstance(each, ShownVideo)]
        patches, grids = self._pixels(shown, decoding, conversation.shows_frames)
        told = tuple(video.told(self._rules.merge_size) for video in videos)
        return Prepared(_without_images(conversation), replace(prompt, grids=grids, videos=told), patches, max_tokens)

    def check_places(self, first: Conversation, prompts: int, deadline: Deadline, cancellation: Cancellation) -> None:
        """Raises what `PlaceCheck.check_prompts` does for so many prompts like the first; none needs to be read yet."""
        most = min(first.sampling.max_tokens, self.context_tokens)
        self._places.check_prompts(prompts, first.answers, most, deadline, cancellation)

    def count(self, conversation: Conversation, deadline: Deadline, caller: str = "") -> Prompt:
        """The prompt as it would be sent, however long; decodes no image."""
        decoding = Decoding(self.decoders, deadline, Cancellation(), caller)
        return self._tokenised(conversation, self._opened(conversation, decoding), decoding, is_bounded=False)

    def text_of(self, ids: NDArray[np.int64], deadline: Deadline, caller: str = "") -> str:
        """The text of token ids [tokens]; raises DeadlineExceeded when the caller's turn does not come in time."""
        with self._turns.take(caller, deadline) if len(ids) > _LONG_PROMPT else nullcontext():
            return self.tokenizer.decode(ids.tolist())

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
        once = partial(where_there_is_room, begin, self._pool.has_room)
        return with_one_retry(once, context.request_id, self._retries, self._pool.has_another)

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
        begin = [partial(self._where_there_is_room, each, each_context) for each in prompts]
        asked = prepared.conversation
        return side_by_side(begin, asked.answers, together, asked.partial_on_timeout)

    def _where_there_is_room(self, prepared: Prepared, context: RequestContext) -> Generator[Event]:
        """The events of one of several prompts, each of which finds its own Triton."""
        first, rest = where_there_is_room(lambda: started(self._events(prepared, context)), self._pool.has_room)
        with closing(rest):
            yield first
            yield from rest

    def _noting(self, events: Generator[Event]) -> Generator[Event]:
        began_s = time.monotonic()
        with closing(events), self._places.watching():
            for event in events:
                self.heard.note()
                if isinstance(event, Answer) and event.timings:
                    self._places.note_wait(event.timings.get("queue_ms", 0.0), time.monotonic() - began_s)
                yield event

    def _request(
        self, prepared: Prepared, context: RequestContext, stream_buffer: StreamBuffer | None
    ) -> GenerateRequest:
        conversation = prepared.conversation
        sampling, most = conversation.sampling, prepared.max_tokens
        if most != sampling.max_tokens or most < sampling.min_tokens:
            sampling = replace(sampling, max_tokens=most, min_tokens=min(sampling.min_tokens, most))
        return GenerateRequest(
            request_id=context.request_id,
            input_ids=prepared.prompt.input_ids,
            patches=prepared.patches,
            grids=prepared.prompt.grids,
            sampling=sampling,
            deadline_s=context.deadline.left_s(),
            grammar=conversation.grammar,
            cache_scope=context.cache_scope,
            cache_salt=_salt(conversation.cache_salt),
            answers=conversation.answers,
            traceparent=context.traceparent,
            cancellation=context.cancellation,
            stream_buffer=stream_buffer,
        )

    def _opened(self, conversation: Conversation, decoding: Decoding) -> list[ShownImage | ShownVideo]:
        """What the conversation shows, in order; raises InvalidInput where a part of it is not accepted."""
        shown = conversation.shown()
        for kind, most, named in ((SentImage, MAX_IMAGES, "images"), (SentVideo, MAX_VIDEOS, "videos")):
            of_kind = [sent for sent in shown if isinstance(sent, kind)]
            if len(of_kind) > most:
                raise InvalidInput(f"A request may hold at most {most} {named}.", of_kind[most].field)
        check_takes_videos(self.takes_videos, shown)
        files = [(sent, self._sent.read(sent, decoding)) for sent in shown]
        return [self._open(sent, data, conversation, decoding) for sent, data in files]

    def _check_place(
        self, conversation: Conversation, shown: list[ShownImage | ShownVideo], decoding: Decoding
    ) -> None:
        """Raises Overloaded for what the engine would refuse even if it were as little work as it can be: its tokens
        are not counted yet, and videos may be made smaller."""
        chars = self._prompts.checked_chars(conversation)
        if not shown and chars <= _LONG_PROMPT:
            return
        grids = [grid for each in shown for grid in each.grids]
        tokens = sum(grid.tokens(self._rules.merge_size) for grid in grids)
        left = self.context_tokens - tokens - chars * _MOST_TOKENS_A_CHAR
        max_tokens = max(1, min(conversation.sampling.max_tokens, left))
        tokens = max(1, min(tokens, self.context_tokens // 2))
        self._places.check(tokens, max_tokens, conversation.answers, decoding.deadline, decoding.cancellation)

    def _open(
        self, sent: Shown, data: list[bytes], conversation: Conversation, decoding: Decoding
    ) -> ShownImage | ShownVideo:
        hashes = tuple(map(file_hash, data)) if self._settings.audit_file is not None else ()
        if isinstance(sent, SentImage):
            opened = OpenedImage(data[0], self._sizes, sent.field)
            return ShownImage(opened, self._rules_for(sent, conversation.pixels), self._rules.max_pixels, hashes)
        if sent.frames:
            pairs = zip(data, sent.frames, strict=True)
            frames = [OpenedImage(each, self._sizes, frame.field) for each, frame in pairs]
            return self._videos.of_frames(sent, frames, conversation, decoding, hashes)
        digest = hashes[0] if hashes else file_hash(data[0])
        with self._image_decoders.admit(1, decoding.deadline, decoding.cancellation):
            return self._videos.of_file(sent, data[0], digest, conversation, decoding, hashes)

    def _rules_for(self, sent: SentImage, pixels: PixelBounds) -> ImageRules:
        """The checkpoint's rules for an image, within the bounds that the request sets."""
        rules = self._rules
        if sent.detail == "low":
            rules = replace(rules, max_pixels=min(rules.max_pixels, rules.temporal_patch_size * _LOW_DETAIL_PIXELS))
        return pixels.within(rules)

    def _tokenised(
        self,
        conversation: Conversation,
        shown: list[ShownImage | ShownVideo],
        decoding: Decoding,
        is_bounded: bool = True,
    ) -> Prompt:
        """Raises PromptTooLong; unless `is_bounded`, only for more characters than are accepted.

        Makes the frames of videos smaller where the prompt would not fit into the context.
        """
        steps = sum(1 + len(turn.parts) + len(turn.tool_calls) for turn in conversation.turns)
        is_long = self._prompts.checked_chars(conversation) + _TURN_CHARS * steps > _LONG_PROMPT
        with self._turns.take(decoding.caller, decoding.deadline) if is_long else nullcontext():
            prompt = self._prompts.prompt(conversation, shown, is_bounded)
            videos = [each for each in shown if isinstance(each, ShownVideo)]
            room = self.context_tokens - min(conversation.sampling.max_tokens, self.context_tokens // 4)
            too_many = len(prompt.input_ids) - room
            if too_many > 0 and videos and self._settings.large_videos == "downscale":
                fit_into(videos, too_many, self._rules.merge_size)
                prompt = self._prompts.prompt(conversation, shown, is_bounded)
            return prompt

    def _pixels(
        self, shown: list[ShownImage | ShownVideo], decoding: Decoding, keeps_previews: bool
    ) -> tuple[NDArray[np.uint8] | None, tuple[Grid, ...]]:
        """Takes each image and video out of `shown`: its file may weigh 15 MB and more.

        Between two images of a request, other requests get their turn, in the order in which they came.
        """
        decoded, grids = list[NDArray[np.uint8]](), list[Grid]()
        while shown:
            with self._image_decoders.admit(1, decoding.deadline, decoding.cancellation):
                one = shown.pop(0)
                if isinstance(one, ShownImage):
                    decoded.append(self._decode(one, decoding))
                    grids += one.grids
                else:
                    patches, of_video = one.pixels(decoding, keeps_previews)
                    decoded, grids = decoded + patches, grids + of_video
        if not decoded:
            return None, ()
        return decoded[0] if len(decoded) == 1 else np.concatenate(decoded), tuple(grids)

    def _decode(self, image: ShownImage, decoding: Decoding) -> NDArray[np.uint8]:
        width, height = image.opened.size
        height, width = smart_resize(height, width, image.rules)
        planes = image.opened.planes(decoding.decoders, (width, height), decoding.deadline, decoding.cancellation)
        return merge_planes(planes, image.rules)


def _salt(text: str) -> int:
    """The salt as the engine takes it; 0 where there is none."""
    if not text:
        return 0
    return int.from_bytes(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:8], "little", signed=True)


def _without_images(conversation: Conversation) -> Conversation:
    """Without the images, which take up to 20 MB each and are not needed while the answer is generated."""
    return replace(conversation, turns=())
