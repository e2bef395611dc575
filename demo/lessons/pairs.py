"""Two pictures compared."""

from __future__ import annotations

import random
from collections.abc import Sequence

from demo.lessons.phrases import Patterns, as_typed, phrasing
from demo.lessons.questions import Question, question
from demo.lessons.wordings import LANGUAGES, WORDINGS, Wording
from demo.pictures.scenes import SHAPES, Scene

WAYS: dict[str, dict[str, Patterns]] = {
    "en": {
        "which": (
            "[Which|In which|On which] [picture|image|one] [has|shows|contains] {0}?",
            "[Which|In which] [picture|image] is {0}?",
            "Is {0} in the first or [in |]the second [picture|image|one]?",
            "In which of the [two |]pictures [is|do you see] {0}?",
        ),
        "more": (
            "Which [picture|image|one] [has|shows|contains] more [things|objects|shapes|items]?",
            "In which [picture|image] are there more [things|objects|shapes|items]?",
            "[Are there|Do you see] more [things|objects|shapes] in the first or [in |]the second [picture|image]?",
            "Compare the number of [things|objects|shapes].",
            "[Compare|Say] how many [things|objects|shapes] [the two pictures|both pictures|the pictures] show.",
        ),
        "differ": (
            "[Compare|Please compare] [the|these|the two|both] [pictures|images].",
            "[What is|What's|Tell me] the difference between [the|these|the two|both] [pictures|images]?",
            "[What|How] [is different|differs][| between the pictures| in the images]?",
            "How do [the|these|the two] [pictures|images] differ?",
            "Describe [the two|both|these] [pictures|images].",
            "What is in [the|each of the|the two] [pictures|images]?",
            "What do [the|both|these] [pictures|images] show?",
        ),
        "one": (
            "What is in the {0} [picture|image]?",
            "[Describe|Tell me about] the {0} [picture|image|one].",
            "What does the {0} [picture|image] show?",
            "What [do|can] you see in the {0} [picture|image|one]?",
        ),
        "larger": (
            "Which number is [larger|bigger|greater|higher]?",
            "Which [picture|image] [has|shows] the [larger|bigger|greater] number?",
            "[Compare|Please compare] the [two |]numbers.",
            "Is the first or the second number [larger|bigger|greater]?",
        ),
    },
    "zh": {
        "which": (
            "哪[张|幅|一张][图|图片|照片][有|里有|中有|显示了]{0}？",
            "{0}在[第一张还是第二张|哪张|哪一张|哪幅][图|图片][里|中|]？",
            "哪[张|幅]能看到{0}？",
        ),
        "more": (
            "哪[张|幅|一张][图|图片][的|里的|中的][物体|东西|形状]更多？",
            "[比较|请比较][两张图的|两张图片的|]物体[数量|的数量|个数]。",
            "第一张还是第二张[图|图片|][物体|东西|形状]更多？",
        ),
        "differ": (
            "[请|][比较|对比][一下|][这|][两张|两幅][图|图片|照片]。",
            "[这|][两张|两幅][图|图片|照片]有什么[不同|区别|不一样]？",
            "[请|][描述|介绍][一下|][这|][两张|两幅][图|图片]。",
            "[这|][两张|两幅][图|图片|照片][里|中][有什么|是什么|各有什么]？",
        ),
        "one": (
            "第{0}[张|幅][图|图片|照片][里|中|][有什么|是什么]？",
            "[请|]描述[一下|]第{0}[张|幅][图|图片]。",
            "你在第{0}张[图|图片][里|中]看到什么？",
        ),
        "larger": (
            "[哪个|哪张图的|哪张图片的]数字[更大|大|比较大]？",
            "[请|]比较[一下|][两个|这两个|]数字。",
            "第一个还是第二个数字[更大|大]？",
        ),
    },
}
ORDER = {"en": ("first", "second"), "zh": ("一", "二")}
ANSWERS = {
    "en": {"first": "The first.", "second": "The second.", "both": "Both.", "none": "Neither.", "same": "The same."},
    "zh": {"first": "第一张。", "second": "第二张。", "both": "两张都有。", "none": "都没有。", "same": "一样。"},
}
LISTED = {"en": ("First: {}", "Second: {}"), "zh": ("第一张：{}", "第二张：{}")}
KINDS = ("which", "more", "differ", "one", "larger")


def random_pair_question(
    rng: random.Random, scenes: Sequence[Scene], held_out: bool = False, language: str = ""
) -> Question:
    """A question about two pictures; which ones make sense is seen from the scenes."""
    words = WORDINGS[language or rng.choice(LANGUAGES)]
    both_numbers = all(scene.number for scene in scenes)
    both_things = all(scene.things for scene in scenes)
    kinds = (
        ["differ", "one"]
        + (["larger"] * 3 if both_numbers else [])
        + (["more", "more", "which", "which"] if both_things else [])
    )
    kind = rng.choice(kinds)
    ways, answers = WAYS[words.language], ANSWERS[words.language]
    names: tuple[str, ...] = ()
    shown = [scene_line(words, scene) for scene in scenes]
    reasoning = words.look
    if kind == "which":
        shape = rng.choice(
            [thing.shape for scene in scenes for thing in scene.things] if rng.random() < 0.8 else SHAPES
        )
        has = [any(thing.shape == shape for thing in scene.things) for scene in scenes]
        names = (words.any_shape(shape),)
        answer = answers[
            {(True, False): "first", (False, True): "second", (True, True): "both"}.get((has[0], has[1]), "none")
        ]
        reasoning = _both(words, shown)
    elif kind == "more":
        counts = [len(scene.things) for scene in scenes]
        answer = words.sentences(_both(words, [str(count) + words.stop for count in counts]), _larger(answers, counts))
    elif kind == "larger":
        values = [int(scene.number) for scene in scenes]
        answer = words.sentences(_both(words, [str(value) + words.stop for value in values]), _larger(answers, values))
    elif kind == "one":
        i = rng.randrange(2)
        names, answer = (ORDER[words.language][i],), shown[i]
    else:
        answer = _both(words, shown)
    text = phrasing(rng, ways[kind], held_out).format(*names)
    return question("pair", words, as_typed(rng, words.language, text), answer, reasoning)


def scene_line(words: Wording, scene: Scene) -> str:
    if scene.number:
        return words.begin_upper(words.number_scene.format(scene.number, words.colours[scene.number_colour]))
    return words.begin_upper(words.listed(scene.things))


def _both(words: Wording, shown: Sequence[str]) -> str:
    parts = (
        pattern.format(line[:1].lower() + line[1:]) for pattern, line in zip(LISTED[words.language], shown, strict=True)
    )
    return words.sentences(*parts)


def _larger(answers: dict[str, str], values: Sequence[int]) -> str:
    return answers["same"] if values[0] == values[1] else answers["first" if values[0] > values[1] else "second"]
