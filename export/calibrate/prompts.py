"""What a build is calibrated on: questions with pictures and texts, drawn and written here, or an operator's own."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

from export.calibrate.texts import TEXTS
from glmserve.errors import BadArtifact

PROMPTS = "prompts.jsonl"
_KEYS = {"prompt": str, "image": str, "answer": str, "thinking": bool}
_PICTURES = 64
_SIDES = (112, 168, 224, 336)
_COLOURS = {
    "red": "红色",
    "green": "绿色",
    "blue": "蓝色",
    "yellow": "黄色",
    "purple": "紫色",
    "orange": "橙色",
    "black": "黑色",
    "gray": "灰色",
}
_SHAPES = {"circle": "圆形", "square": "正方形", "triangle": "三角形"}
_BOX = "<|begin_of_box|>{}<|end_of_box|>"


@dataclass(frozen=True)
class CalibrationPrompt:
    """A question, with a picture or without, and what may follow it: the beginning of an answer, or nothing."""

    prompt: str
    image: Image.Image | None = None
    answer: str = ""
    thinking: bool = False


@dataclass(frozen=True)
class CalibrationSet:
    """Prompts, and a digest of where they come from: empty for those that come with the project."""

    prompts: tuple[CalibrationPrompt, ...]
    digest: str = ""

    @staticmethod
    def drawn() -> CalibrationSet:
        """Pictures drawn here, each with a question and its answer, and texts; always the same."""
        texts = (CalibrationPrompt(question, answer=answer) for question, answer in TEXTS)
        return CalibrationSet((*_pictures(), *texts))

    @staticmethod
    def read(folder: Path) -> CalibrationSet:
        """Those that an operator has put into a folder: `prompts.jsonl`, an object a line with `prompt` and, if
        wanted, `image` (a file beside it), `answer` and `thinking`. Raises BadArtifact, naming line and key."""
        path, digest = folder / PROMPTS, hashlib.sha256()
        try:
            lines = path.read_text("utf-8").splitlines()
        except FileNotFoundError:
            raise BadArtifact(f"{folder} holds no {PROMPTS} to calibrate with: an object a line with prompt.") from None
        except (OSError, UnicodeDecodeError):
            raise BadArtifact(f"{path} cannot be read as UTF-8 text.") from None
        prompts = []
        for number, line in enumerate(lines, 1):
            if line.strip():
                digest.update(line.encode())
                prompts.append(_read(folder, f"{path}, line {number}", line, digest))
        if not prompts:
            raise BadArtifact(f"{path} holds no prompt.")
        return CalibrationSet(tuple(prompts), digest.hexdigest())


def _read(folder: Path, where: str, line: str, digest: hashlib._Hash) -> CalibrationPrompt:
    try:
        values: Any = json.loads(line)
    except ValueError:
        values = None
    if not isinstance(values, dict) or not isinstance(values.get("prompt"), str) or not values["prompt"].strip():
        raise BadArtifact(f"{where}: must be a JSON object with a text in prompt.")
    for key, value in values.items():
        if key not in _KEYS:
            raise BadArtifact(f"{where}: {key} is not known; {', '.join(_KEYS)} are.")
        if not isinstance(value, _KEYS[key]):
            raise BadArtifact(f"{where}: {key} must be a {'text' if _KEYS[key] is str else 'true or false'}.")
    image = None
    if "image" in values:
        name = values["image"]
        try:
            if Path(name).name != name:
                raise OSError
            content = (folder / name).read_bytes()
            with Image.open(folder / name) as file:
                image = file.convert("RGB")
        except (OSError, ValueError, Image.DecompressionBombError):
            raise BadArtifact(f"{where}: image {name} is no picture beside {PROMPTS} that can be read.") from None
        digest.update(content)
    return CalibrationPrompt(values["prompt"], image, values.get("answer", ""), values.get("thinking", False))


def _pictures() -> Iterator[CalibrationPrompt]:
    """Simple pictures with questions that have one answer, in both languages, some with thoughts."""
    chance = random.Random("pictures to calibrate with")
    for number in range(_PICTURES):
        image, things = _drawn(chance)
        is_chinese, thinking = number % 3 == 2, number % 4 == 3
        question, answer = _asked(chance, things, is_chinese)
        thoughts = "我看看图片。" if is_chinese else "I look at the picture: " + ", ".join(map(" ".join, things)) + "."
        yield CalibrationPrompt(
            question, image, f"<think>{thoughts}</think>\n{answer}" if thinking else answer, thinking
        )


def _drawn(chance: random.Random) -> tuple[Image.Image, list[tuple[str, str]]]:
    """A picture of one to four things on a plain or shaded ground, and their colours and shapes."""
    width, height = chance.choice(_SIDES), chance.choice(_SIDES)
    if chance.random() < 0.3:
        image = Image.linear_gradient("L").resize((width, height)).convert("RGB")
    else:
        image = Image.new("RGB", (width, height), chance.choice(["white", "lightblue", "beige", "lightgray"]))
    draw, things = ImageDraw.Draw(image), []
    cells = chance.sample([(x, y) for x in range(2) for y in range(2)], chance.randint(1, 4))
    for x, y in cells:
        colour, shape = chance.choice(list(_COLOURS)), chance.choice(list(_SHAPES))
        size = min(width, height) // 2 * chance.uniform(0.5, 0.85)
        left = (x + 0.5) * width / 2 - size / 2
        top = (y + 0.5) * height / 2 - size / 2
        box = (left, top, left + size, top + size)
        if shape == "circle":
            draw.ellipse(box, fill=colour)
        elif shape == "square":
            draw.rectangle(box, fill=colour)
        else:
            draw.polygon([(left, top + size), (left + size / 2, top), (left + size, top + size)], fill=colour)
        things.append((colour, shape))
    if chance.random() < 0.3:
        draw.text((4, 4), str(chance.randint(0, 9999)), fill="black", font_size=max(12, height // 8))
    return image, things


def _asked(chance: random.Random, things: list[tuple[str, str]], is_chinese: bool) -> tuple[str, str]:
    """A question about things in a picture, and its answer."""
    colour, shape = things[0]
    count = len(things)
    kind = chance.randrange(4)
    if is_chinese:
        named = [f"{_COLOURS[colour]}的{_SHAPES[shape]}" for colour, shape in things]
        return [
            ("图中有几个图形？", f"图中有{count}个图形。"),
            ("请描述这张图片。", f"图中有{'、'.join(named)}。"),
            (f"{_SHAPES[shape]}是什么颜色的？", _BOX.format(_COLOURS[colour])),
            (f"图中有{_SHAPES[shape]}吗？", "有。"),
        ][kind]
    listed = " and ".join(f"a {colour} {shape}" for colour, shape in things)
    return [
        ("How many shapes are there?", f"There {'is' if count == 1 else 'are'} {_BOX.format(count)}."),
        ("Describe the picture.", f"There is {listed}."),
        (f"What colour is the {shape}?", f"The {shape} is {colour}."),
        (f"Is there a {shape}?", f"Yes, there is a {colour} {shape}."),
    ][kind]
