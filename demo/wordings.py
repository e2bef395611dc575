"""The words of each language: how a question is put and how its answer reads."""

from __future__ import annotations

from dataclasses import dataclass

from demo.scenes import BACKGROUNDS, COLOURS, SHAPES, Thing

# What a thing is to another that comes after it along an axis, and what it is to one that comes before.
AXES = {"column": ("left", "right"), "row": ("above", "below")}


@dataclass(frozen=True)
class Wording:
    """One language: its names, its question templates and its sentence patterns."""

    language: str
    shapes: dict[str, str]
    plurals: dict[str, str]
    colours: dict[str, str]
    backgrounds: dict[str, str]
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
    colour_questions: tuple[str, ...]
    number_colour_questions: tuple[str, ...]
    shape_questions: tuple[str, ...]
    count_questions: tuple[str, ...]
    count_shape_questions: tuple[str, ...]
    count_colour_questions: tuple[str, ...]
    exists_questions: tuple[str, ...]
    where_questions: tuple[str, ...]
    at_questions: tuple[str, ...]
    relation_questions: dict[str, tuple[str, ...]]
    background_questions: tuple[str, ...]
    number_questions: tuple[str, ...]
    describe_questions: tuple[str, ...]

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

    def at_cell(self, cell: int) -> str:
        return "the " + self.cells[cell] if self.language == "en" else self.cells[cell]

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
    backgrounds={background: background for background in BACKGROUNDS},
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
    colour_questions=(
        "What colour is the {}?",
        "What color is the {}?",
        "Which colour is the {}?",
    ),
    number_colour_questions=(
        "What colour is the number?",
        "What color is the number?",
        "Which colour is the number?",
    ),
    shape_questions=(
        "What shape is the {} thing?",
        "Which shape is {}?",
        "What is the {} object?",
        "What shape is the {} object?",
    ),
    count_questions=(
        "How many things are there?",
        "How many objects are in the picture?",
        "How many shapes do you see?",
    ),
    count_shape_questions=(
        "How many {} are there?",
        "How many {} are in the picture?",
        "How many {} do you see?",
    ),
    count_colour_questions=(
        "How many {} things are there?",
        "How many {} objects are in the picture?",
        "How many {} shapes do you see?",
    ),
    exists_questions=(
        "Is there {}?",
        "Is there {} in the picture?",
        "Do you see {}?",
        "Can you see {}?",
    ),
    where_questions=(
        "Where is {}?",
        "Where do you see {}?",
        "Where in the picture is {}?",
    ),
    at_questions=(
        "What is at {}?",
        "What is in {}?",
        "What do you see at {}?",
    ),
    relation_questions={
        "column": ("Is {} left or right of {}?", "Is {} on the left or right of {}?"),
        "row": ("Is {} above or below {}?", "Is {} placed above or below {}?"),
    },
    background_questions=(
        "What colour is the background?",
        "What color is the background?",
        "Which colour is the background?",
    ),
    number_questions=(
        "What number is this?",
        "Which number do you see?",
        "Read the number.",
        "What number is in the picture?",
    ),
    describe_questions=(
        "Describe the picture.",
        "Describe this image.",
        "What is in the picture?",
        "What do you see?",
    ),
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
    },
    backgrounds={"white": "白色", "black": "黑色", "grey": "灰色"},
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
    colour_questions=("{}是什么颜色？", "{}是什么颜色的？", "{}的颜色是什么？"),
    number_colour_questions=("数字是什么颜色？", "数字是什么颜色的？", "数字的颜色是什么？"),
    shape_questions=("{}物体是什么形状？", "{}的物体是什么形状？", "{}的物体是什么？"),
    count_questions=("有几个物体？", "图中有多少个物体？", "图中有几个物体？"),
    count_shape_questions=("有几个{}？", "图中有多少个{}？", "图中有几个{}？"),
    count_colour_questions=("有几个{}物体？", "图中有多少个{}物体？", "图中有几个{}物体？"),
    exists_questions=("有{}吗？", "图中有{}吗？", "你看到{}吗？"),
    where_questions=("{}在哪里？", "{}在什么位置？", "{}的位置在哪里？"),
    at_questions=("{}是什么？", "{}有什么？", "你在{}看到什么？"),
    relation_questions={
        "column": ("{}在{}的左侧还是右侧？", "{}是在{}的左侧还是右侧？"),
        "row": ("{}在{}的上面还是下面？", "{}是在{}的上面还是下面？"),
    },
    background_questions=("背景是什么颜色？", "背景是什么颜色的？", "背景的颜色是什么？"),
    number_questions=("这是什么数字？", "图中的数字是多少？", "图中是什么数字？"),
    describe_questions=("描述图片。", "请描述图片。", "图中有什么？", "你看到什么？"),
)

WORDINGS = {"en": ENGLISH, "zh": CHINESE}
LANGUAGES = tuple(WORDINGS)

# (what is said, what is answered, what is thought) without a picture
GREETINGS = {
    "en": (
        ("Hello", "Hello! Show me a picture.", "A greeting."),
        ("Hello!", "Hello! Show me a picture.", "A greeting."),
        ("Hi", "Hello! Show me a picture.", "A greeting."),
        ("Hi!", "Hello! Show me a picture.", "A greeting."),
        ("Good morning", "Hello! Show me a picture.", "A greeting."),
        ("How are you?", "I am fine, thank you.", "A greeting."),
        ("Who are you?", "I am a small demo model.", "A question about me."),
        ("What can you do?", "I answer questions about pictures.", "A question about me."),
        ("Thank you!", "You are welcome.", "A greeting."),
        ("Goodbye", "Goodbye!", "A greeting."),
    ),
    "zh": (
        ("你好", "你好！请给我一张图片。", "问候。"),
        ("你好！", "你好！请给我一张图片。", "问候。"),
        ("早上好", "你好！请给我一张图片。", "问候。"),
        ("你是谁？", "我是一个小演示模型。", "关于我。"),
        ("你能做什么？", "我回答关于图片的问题。", "关于我。"),
        ("谢谢", "不客气。", "问候。"),
        ("谢谢！", "不客气。", "问候。"),
        ("再见", "再见！", "问候。"),
    ),
}
