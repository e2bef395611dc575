"""Questions that no training has asked, about pictures of both drawing programs, and what is right."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from PIL import Image

from demo.lessons.chats import Chat, Shared, Turn, without_box
from demo.lessons.pairs import random_pair_question
from demo.lessons.picture_chats import three_turns
from demo.lessons.questions import ASKERS, Question, View, random_greeting, random_question
from demo.lessons.structured import ask_json
from demo.lessons.tools import random_lesson
from demo.lessons.watching import random_film_question, times_of
from demo.lessons.wordings import LANGUAGES, WORDINGS
from demo.pictures.drawing import Mark, draw_marked
from demo.pictures.films import Film, draw_film, random_film
from demo.pictures.scenes import Scene, random_scene
from demo.pictures.second import draw_second, second_scene

UNSEEN_SEED = 7_000_000_000  # seeds from here on belong to no training
SECOND_SEED = 1_000_000  # seeds from here on are drawn by the second program
FILM_SIZE_PX = (112, 112)
# Of one picture and one turn; what needs more; what needs none.
PICTURE_KINDS = (*ASKERS, "json")
CHAT_KINDS = ("turns", "pair", "video", "tool", "result")
KINDS = (*PICTURE_KINDS, *CHAT_KINDS, "greeting")
MOST_TOKENS = 200  # of an answer, its thinking included
LEAST_OVERLAP = 0.7  # of a box with the right one, intersection over union


@dataclass(frozen=True)
class Asked:
    """One question with all that is shown for it; its seed draws the same again."""

    seed: int
    kind: str
    chat: Chat
    shared: Shared
    pictures: tuple[Image.Image, ...] = ()  # or the frames of a video, two to each stamp

    @property
    def question(self) -> Question:
        """The last one, whose answer counts."""
        return self.chat.turns[-1].asked

    @property
    def expected(self) -> str:
        return self.chat.turns[-1].call or self.question.answer

    @property
    def thinking(self) -> bool:
        return self.chat.thinking

    @property
    def image(self) -> Image.Image | None:
        """The one picture of a question about one."""
        return self.pictures[0] if len(self.pictures) == 1 else None

    @cached_property
    def messages(self) -> list[dict[str, Any]]:
        """As a client sends it: pictures first, then the words; earlier answers are the right ones."""
        messages: list[dict[str, Any]] = []
        for i, turn in enumerate(self.chat.turns):
            asked = turn.asked
            if turn.is_tool_result:
                messages.append({"role": "tool", "content": asked.text})
            else:
                shown = [{"type": "video"}] if self.shared.times else [{"type": "image"}] * len(self.pictures)
                words = {"type": "text", "text": asked.text}
                content: Any = [*shown, words] if shown and i == 0 else asked.text
                messages.append({"role": "user", "content": content})
            if i < len(self.chat.turns) - 1:
                messages.append(_answered(turn))
        return messages

    def is_right(self, answer: str) -> bool:
        """Whether an answer (with its think and box tokens) says what is expected."""
        return is_right(self.kind, answer, self.expected)


def _answered(turn: Turn) -> dict[str, Any]:
    if not turn.call:
        return {"role": "assistant", "content": without_box(turn.asked.answer)}
    name, arguments = read_call(turn.call)
    return {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": name, "arguments": arguments}}]}


def read_call(text: str) -> tuple[str, dict[str, Any]]:
    """The name and the arguments of a call in GLM's writing."""
    name = text.removeprefix("<tool_call>").split("\n")[0]
    found = re.findall(r"<arg_key>(.*?)</arg_key>\s*<arg_value>(.*?)</arg_value>", text, re.DOTALL)
    return name, {key: int(value) if value.isdigit() else value for key, value in found}


def plain(answer: str) -> str:
    """An answer without its thinking and its box."""
    spoken = answer.split("</think>")[-1]
    return without_box(spoken).strip()


def is_right(kind: str, answer: str, expected: str) -> bool:
    """To the letter; boxes by their overlap, JSON by its values."""
    said, wanted = plain(answer), plain(expected)
    if kind == "box" and wanted.startswith("[["):
        return overlap(_corners(said), _corners(wanted)) >= LEAST_OVERLAP
    if kind == "json":
        try:
            return bool(json.loads(said) == json.loads(wanted))
        except ValueError:
            return False
    return said == wanted


def _corners(text: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", text)]


def overlap(one: list[int], other: list[int]) -> float:
    """Intersection over union of two boxes x1, y1, x2, y2; 0 for what is no box."""
    if len(one) != 4 or len(other) != 4:
        return 0.0
    width = max(0, min(one[2], other[2]) - max(one[0], other[0]))
    height = max(0, min(one[3], other[3]) - max(one[1], other[1]))
    areas = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (one, other))
    union = areas - width * height
    return width * height / union if union > 0 else 0.0


def unseen_scene(seed: int) -> Scene:
    rng = random.Random(UNSEEN_SEED + seed)
    return second_scene(rng) if seed >= SECOND_SEED else random_scene(rng)


def unseen_picture(seed: int) -> tuple[Scene, Image.Image, list[Mark]]:
    scene = unseen_scene(seed)
    image, marks = draw_second(scene) if seed >= SECOND_SEED else draw_marked(scene)
    return scene, image, marks


def drawn_image(seed: int) -> Image.Image:
    """The picture of an unseen seed, pixel for pixel the same each time."""
    return unseen_picture(seed)[1]


def unseen_film(seed: int) -> tuple[Film, tuple[str, ...]]:
    """A film and the stamps of its frame pairs."""
    rng = random.Random(UNSEEN_SEED + seed)
    pairs = rng.randint(2, 6)
    return random_film(rng, FILM_SIZE_PX, pairs), times_of(rng, pairs)


def ask(seed: int, kind: str, thinking: float = 0.3) -> Asked | None:
    """The question of this kind that belongs to a seed, put as training never puts it; None where it makes no sense."""
    rng = random.Random(f"question {UNSEEN_SEED + seed}")
    thinks = rng.random() < thinking
    if kind == "greeting":
        return Asked(seed, kind, Chat((Turn(random_greeting(rng, held_out=True)),), thinks), Shared())
    if kind in ("tool", "result"):
        shared, chats = random_lesson(rng, 1, held_out=True)
        chat = Chat(chats[0].turns, thinks)
        last = chat.turns[-1].asked.kind
        return Asked(seed, kind, chat, shared) if last == kind else None
    if kind == "video":
        film, times = unseen_film(seed)
        asked = random_film_question(rng, film, times, held_out=True)
        return Asked(
            seed,
            kind,
            Chat((Turn(asked),), thinks),
            Shared(pictures=len(times), times=times),
            tuple(draw_film(film)[0]),
        )
    if kind == "pair":
        scenes, images = zip(*(unseen_picture(seed + i * 400_000)[:2] for i in range(2)), strict=True)
        asked = random_pair_question(rng, scenes, held_out=True)
        return Asked(seed, kind, Chat((Turn(asked),), thinks), Shared(pictures=2), images)
    scene, image, marks = unseen_picture(seed)
    if kind == "turns":
        turns = three_turns(rng, scene, marks, held_out=True)
        return Asked(seed, kind, Chat(tuple(Turn(asked) for asked in turns), thinks), Shared(pictures=1), (image,))
    words = WORDINGS[rng.choice(LANGUAGES)]
    if kind == "json":
        found: Question | None = ask_json(View(rng, scene, marks, words, held_out=True))
        if found is not None and found.unweighed:  # its names would be a grammar's
            return None
    else:
        found = random_question(rng, scene, marks, kind, held_out=True)
    return Asked(seed, kind, Chat((Turn(found),), thinks), Shared(pictures=1), (image,)) if found else None


def unseen(n: int, kinds: tuple[str, ...] = KINDS, thinking: float = 0.3, first_seed: int = 0) -> Iterator[Asked]:
    """n unseen questions, the kinds in turn so that each is asked equally often."""
    seed, asked = first_seed, 0
    while asked < n:
        found = ask(seed, kinds[asked % len(kinds)], thinking)
        if found is not None:
            yield found
            asked += 1
        seed += 1
