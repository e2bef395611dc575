"""A conversation becomes the token ids of its prompt, within the context, before any image is decoded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gateway.chat.videos.shown import ShownImage, ShownVideo
from gateway.schemas.conversation import Conversation, Turn
from glmserve.errors import InvalidInput, PromptTooLong
from glmserve.model.chat_template import ImagePart, Message, PromptBuilder, VideoPart
from glmserve.model.image_processor import Grid
from glmserve.model.tokenizer import Tokenizer


@dataclass(frozen=True)
class Prompt:
    """A conversation's tokens, known before any image is decoded."""

    input_ids: NDArray[np.int64]  # i64 [tokens]
    grids: tuple[Grid, ...]  # of each image and each two frames of a video
    image_sizes: tuple[tuple[int, int], ...]  # width, height of each image, upright
    image_tokens: int
    image_hashes: tuple[str, ...] = ()  # SHA-256 of each file, where an audit log wants it
    videos: tuple[dict[str, Any], ...] = ()  # which frames of each video are seen, and in what size


@dataclass(frozen=True)
class Prompts:
    """Prompts of one build; shared between threads."""

    builder: PromptBuilder
    tokenizer: Tokenizer
    image_token_id: int
    merge_size: int
    max_chars: int
    context_tokens: int

    def checked_chars(self, conversation: Conversation) -> int:
        """The characters of a prompt; raises PromptTooLong for more than are accepted."""
        chars = conversation.chars()
        if chars > self.max_chars:
            raise PromptTooLong(
                f"The prompt has {chars} characters; at most {self.max_chars} are accepted.", conversation.prompt_field
            )
        return chars

    def prompt(self, conversation: Conversation, shown: Sequence[ShownImage | ShownVideo], is_bounded: bool) -> Prompt:
        """The prompt; `shown` are its images and videos in order. Raises InvalidInput.

        Where it `is_bounded`, raises PromptTooLong for a text of far more tokens than the context has, after little
        more work than one that fits takes. Others are counted to their end.
        """
        most = self.context_tokens if is_bounded and conversation.truncated_to is None else None
        try:
            if conversation.raw is not None:
                ids = self._raw_ids(conversation.raw, conversation.prompt_field, most)
                return Prompt(self._truncated(ids, conversation), (), (), 0)
            return self._rendered(conversation, shown, most)
        except PromptTooLong:
            raise self._too_long(f"more than {most}", conversation.prompt_field) from None

    def room_after(self, prompt: Prompt, field: str) -> int:
        """The tokens that are left for an answer; raises PromptTooLong where there are none."""
        room = self.context_tokens - len(prompt.input_ids)
        if room < 1:
            raise self._too_long(str(len(prompt.input_ids)), field)
        return room

    def _rendered(
        self, conversation: Conversation, shown: Sequence[ShownImage | ShownVideo], most: int | None
    ) -> Prompt:
        parts = iter(each.part for each in shown)
        messages = [_message(turn, parts) for turn in conversation.turns]
        grids = [grid for each in shown for grid in each.grids]
        try:
            input_ids = self.builder.build(
                messages,
                grids,
                conversation.thinking,
                conversation.tools,
                conversation.asks,
                conversation.continues,
                most,
            )
        except PromptTooLong:
            raise
        except InvalidInput as error:
            raise InvalidInput(error.message, error.field or conversation.prompt_field) from error
        image_tokens = sum(grid.tokens(self.merge_size) for grid in grids)
        return Prompt(
            self._truncated(input_ids, conversation),
            tuple(grids),
            tuple(each.opened.size for each in shown if isinstance(each, ShownImage)),
            image_tokens,
            tuple(one for each in shown for one in each.hashes),
            tuple(each.told(self.merge_size) for each in shown if isinstance(each, ShownVideo)),
        )

    def _truncated(self, input_ids: NDArray[np.int64], conversation: Conversation) -> NDArray[np.int64]:
        """The prompt's last or first tokens, where the request asks for no more; raises InvalidInput if that cut
        images."""
        most = conversation.truncated_to
        if most is None:
            return input_ids
        if most < 0:
            most = self.context_tokens - min(conversation.sampling.max_tokens, self.context_tokens // 2)
        if most < len(input_ids) and self.image_token_id in input_ids:
            raise InvalidInput(
                f"The prompt has {len(input_ids)} tokens with its images, and a prompt with images cannot be "
                f"truncated to {most}; send fewer messages or smaller images.",
                "truncate_prompt_tokens",
            )
        return input_ids[:most] if conversation.keeps_beginning else input_ids[-most:]

    def _raw_ids(self, raw: str | tuple[int, ...], field: str, most: int | None) -> NDArray[np.int64]:
        """Those of a prompt without template and images; raises InvalidInput for tokens that have no meaning there, and
        PromptTooLong for a text of far more than `most`."""
        if most is not None and isinstance(raw, str) and self.tokenizer.is_far_longer(raw, most):
            raise PromptTooLong(f"The prompt needs more than {most} tokens.", field)
        ids = self.tokenizer.encode(raw) if isinstance(raw, str) else list(raw)
        largest = self.tokenizer.largest_id
        wrong = next((each for each in ids if not 0 <= each <= largest), None)
        if wrong is not None:
            raise InvalidInput(f"The field {field} holds the token id {wrong}; ids go from 0 to {largest}.", field)
        if self.image_token_id in ids:
            raise InvalidInput(
                f"The field {field} holds the token of an image, and no image can come with it; "
                "send images to /v1/chat/completions.",
                field,
            )
        if not ids:
            raise InvalidInput(f"The field {field} holds no token.", field)
        return np.asarray(ids, np.int64)

    def _too_long(self, tokens: str, field: str) -> PromptTooLong:
        return PromptTooLong(
            f"The prompt and its images need {tokens} tokens; "
            f"with at least one for the answer they must fit in {self.context_tokens}.",
            field,
        )


def _message(turn: Turn, shown: Iterator[ImagePart | VideoPart]) -> Message:
    """`shown` gives what stands for the next image or video."""
    parts = tuple(part if isinstance(part, str) else next(shown) for part in turn.parts)
    return Message(turn.role, parts, turn.thoughts, turn.tool_calls, turn.is_list)
