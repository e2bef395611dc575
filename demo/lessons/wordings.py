"""The words of each language: its names and how its answers read."""

from __future__ import annotations

import random
from dataclasses import dataclass
from types import ModuleType

from demo.lessons import chinese, english
from demo.pictures.colours import COLOURS
from demo.pictures.scenes import SHAPES, Thing

# What a thing is to another that comes after it along an axis, and what it is to one that comes before.
AXES = {"column": ("left", "right"), "row": ("above", "below")}


@dataclass(frozen=True)
class Wording:
    """One language: its names, its phrasings and its sentence patterns."""

    language: str
    shapes: dict[str, str]
    plurals: dict[str, str]
    colours: dict[str, str]
    cells: tuple[str, ...]
    relations: dict[str, str]
    there: str
    not_there: str
    nothing: str
    look: str
    stop: str
    comma: str
    colour_answer: str
    number_is: str
    number_scene: str
    no_such: str
    cannot_tell: str
    ways: ModuleType  # the module of this language's phrasings
    regions: dict[str, tuple[str, ...]]  # how else a side, a corner or the middle is called

    def begin_upper(self, text: str) -> str:
        return text[:1].upper() + text[1:]

    def looks(self, thing: Thing) -> str:
        space = " " if self.language == "en" else ""
        return self.colours[thing.colour] + space + self.shapes[thing.shape]

    def a_thing(self, thing: Thing) -> str:
        return _with_article(self.looks(thing)) if self.language == "en" else self.looks(thing)

    def the_thing(self, thing: Thing) -> str:
        return "the " + self.looks(thing) if self.language == "en" else self.looks(thing)

    def any_shape(self, shape: str) -> str:
        return _with_article(self.shapes[shape]) if self.language == "en" else self.shapes[shape]

    def the_shape(self, shape: str) -> str:
        return "the " + self.shapes[shape] if self.language == "en" else self.shapes[shape]

    def at_region(self, rng: random.Random, region: str) -> str:
        """One of the names of a region, with its article."""
        name = rng.choice(self.regions[region])
        return "the " + name if self.language == "en" else name

    def shape_answer(self, shape: str) -> str:
        return self.any_shape(shape) + self.stop

    def where_answer(self, cell: int) -> str:
        return self.cells[cell] + self.stop

    def at_answer(self, thing: Thing | None) -> str:
        return (self.a_thing(thing) if thing else self.nothing) + self.stop

    def placed(self, thing: Thing, full: bool = True) -> str:
        """A thing and its cell: "red star top left." / "左上角红色星形。"."""
        if self.language == "en":
            text = f"{self.looks(thing)} {self.cells[thing.cell]}"
        else:
            text = self.cells[thing.cell] + self.looks(thing)
        return text + self.stop if full else text

    def joined(self, parts: list[str]) -> str:
        return self.comma.join(parts) + self.stop

    def sentences(self, *parts: str) -> str:
        return (" " if self.language == "en" else "").join(parts)

    def cells_of(self, things: tuple[Thing, ...]) -> str:
        """Where each thing is, in reading order."""
        return self.joined([self.cells[thing.cell] for thing in things] or [self.nothing])

    def listed(self, things: tuple[Thing, ...]) -> str:
        """Things in reading order, each with its cell."""
        if not things:
            return self.nothing + self.stop
        return self.joined([self.placed(thing, full=False) for thing in things])


def _with_article(name: str) -> str:
    return ("an " if name[0] in "aeiou" else "a ") + name


ENGLISH = Wording(
    language="en",
    shapes={shape: shape for shape in SHAPES},
    plurals={shape: shape + ("es" if shape == "cross" else "s") for shape in SHAPES},
    colours={colour: colour for colour in COLOURS},
    cells=(
        "top left",
        "top centre",
        "top right",
        "centre left",
        "centre",
        "centre right",
        "bottom left",
        "bottom centre",
        "bottom right",
    ),
    relations={"left": "left", "right": "right", "above": "above", "below": "below"},
    there="Yes.",
    not_there="No.",
    nothing="nothing",
    look="Look at the picture.",
    stop=".",
    comma=", ",
    colour_answer="{}.",
    number_is="The number is {}.",
    number_scene="The number {} in {}.",
    no_such="I see no {}.",
    cannot_tell="I can't tell from the picture.",
    ways=english,
    regions={
        "0": ("top left", "top left", "upper left", "top left corner", "upper left corner", "top-left"),
        "1": ("top centre", "top centre", "top center", "top middle"),
        "2": ("top right", "top right", "upper right", "top right corner", "upper right corner", "top-right"),
        "3": ("centre left", "centre left", "middle left", "center left"),
        "4": ("centre", "centre", "center", "middle", "middle"),
        "5": ("centre right", "centre right", "middle right", "center right"),
        "6": ("bottom left", "bottom left", "lower left", "bottom left corner", "lower left corner", "bottom-left"),
        "7": ("bottom centre", "bottom centre", "bottom center", "bottom middle"),
        "8": ("bottom right", "bottom right", "lower right", "bottom right corner", "lower right corner"),
        "left": ("left", "left side", "left-hand side"),
        "right": ("right", "right side", "right-hand side"),
        "top": ("top", "upper part", "top part"),
        "bottom": ("bottom", "lower part", "bottom part"),
    },
)

CHINESE = Wording(
    language="zh",
    shapes={"circle": "圆形", "square": "正方形", "triangle": "三角形", "star": "星形", "cross": "十字"},
    plurals={"circle": "圆形", "square": "正方形", "triangle": "三角形", "star": "星形", "cross": "十字"},
    colours={
        "red": "红色",
        "green": "绿色",
        "blue": "蓝色",
        "yellow": "黄色",
        "purple": "紫色",
        "orange": "橙色",
        "pink": "粉色",
        "brown": "棕色",
        "black": "黑色",
        "white": "白色",
        "grey": "灰色",
        "cyan": "青色",
    },
    cells=("左上角", "上方", "右上角", "左边", "中间", "右边", "左下角", "下方", "右下角"),
    relations={"left": "左侧", "right": "右侧", "above": "上面", "below": "下面"},
    there="有。",
    not_there="没有。",
    nothing="没有",
    look="看图。",
    stop="。",
    comma="，",
    colour_answer="{}。",
    number_is="数字是{}。",
    number_scene="{1}数字{0}。",
    no_such="没有看到{}。",
    cannot_tell="从图片中看不出来。",
    ways=chinese,
    regions={
        "0": ("左上角", "左上角", "左上方", "左上"),
        "1": ("上方", "上方", "正上方", "上方中间"),
        "2": ("右上角", "右上角", "右上方", "右上"),
        "3": ("左边", "左边中间", "正左边"),
        "4": ("中间", "中间", "正中间", "中央", "中心"),
        "5": ("右边", "右边中间", "正右边"),
        "6": ("左下角", "左下角", "左下方", "左下"),
        "7": ("下方", "下方", "正下方", "下方中间"),
        "8": ("右下角", "右下角", "右下方", "右下"),
        "left": ("左边", "左侧", "左面"),
        "right": ("右边", "右侧", "右面"),
        "top": ("上面", "上边", "顶部"),
        "bottom": ("下面", "下边", "底部"),
    },
)

WORDINGS = {"en": ENGLISH, "zh": CHINESE}
LANGUAGES = tuple(WORDINGS)
