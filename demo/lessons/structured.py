"""Answers as JSON: the fields' names vary, and the request says (or leaves to the grammar) what each holds."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass, replace
from typing import Any

from demo.lessons.phrases import as_typed, is_held_out, phrasing
from demo.lessons.questions import Question, View
from demo.lessons.wordings import Wording
from demo.pictures.scenes import Thing

NAMES: dict[str, tuple[str, ...]] = {
    "count": ("count", "total", "how_many", "number_of_objects", "num_shapes", "amount", "quantity", "object_count"),
    "background": ("background", "background_color", "background_colour", "bg", "backdrop", "bg_color"),
    "shape": ("shape", "kind", "form", "figure", "type", "shape_name", "object"),
    "colour": ("color", "colour", "shade", "paint", "tint", "color_name", "hue"),
    "place": ("position", "place", "location", "where", "region", "area"),
    "number": ("number", "value", "digits", "text", "reading", "figure_shown"),
    "things": ("objects", "things", "items", "shapes", "elements", "contents"),
}
MEANINGS: dict[str, dict[str, tuple[str, ...]]] = {
    "en": {
        "count": ("how many objects there are", "number of objects", "count of shapes"),
        "background": ("colour of the background", "background color"),
        "shape": ("the shape", "name of the shape", "what shape it is"),
        "colour": ("the colour", "its color", "what colour it has"),
        "place": ("where it is", "the position", "place in the picture"),
        "number": ("the number shown", "digits in the picture", "the number"),
        "things": ("all objects", "list of shapes", "each object"),
    },
    "zh": {
        "count": ("物体的数量", "有几个物体"),
        "background": ("背景颜色", "背景的颜色"),
        "shape": ("形状", "是什么形状"),
        "colour": ("颜色", "是什么颜色"),
        "place": ("位置", "在哪里"),
        "number": ("图中的数字", "数字"),
        "things": ("所有物体", "物体列表"),
    },
}
SYLLABLES = [
    "ba",
    "ce",
    "di",
    "fo",
    "gu",
    "ka",
    "le",
    "mi",
    "no",
    "pu",
    "ra",
    "se",
    "ti",
    "vo",
    "xu",
    "zan",
    "ker",
    "lim",
    "pos",
    "tar",
    "qua",
    "bel",
    "dro",
    "fen",
    "gri",
]
BEFORE_NAME = ("main_", "the_", "my_", "img_", "object_", "first_", "shown_", "pic_", "obj", "final_")
REQUESTS: dict[str, tuple[str, ...]] = {
    "en": (
        "[Answer|Reply|Respond|Answer me] [in|as|with] JSON with the [fields|keys|properties] {0}.",
        "[Return|Give|Output|Write] [JSON|a JSON object] with [the fields|the keys|] {0}.",
        "[Describe|Summarise] the [picture|image] as JSON with [fields|keys] {0}.",
        "JSON with {0}, please.",
        "What do you see? [Answer|Reply] [in|as] JSON with {0}.",
        "[Give me|I want|I need|Make] [JSON|a JSON object] with {0}[.| please.|, thanks.|, thank you.|, nothing else.]",
        "[I need|Tell me|Show] {0} [as|in] JSON[.|, please.| only.]",
        "[Write|Put|Fill] {0} [into|in] [JSON|a JSON object][.|, please.|, no other words.]",
        "{0}[: give them as| as| in] JSON[.|, please!]",
        "JSON: {0}[.|, please!|; nothing else.]",
    ),
    "zh": (
        "[请|]用JSON[回答|描述图片|输出]，[字段|键][为|是|：]{0}。",
        "[请|][返回|输出]JSON，[包含|字段为]{0}。",
        "[描述|说明]图片，[输出|返回]JSON，字段：{0}。",
        "[请|]把{0}[写成|输出为|放进]JSON[。|，谢谢。|，不要别的。]",
        "[我要|告诉我]{0}，用JSON[。|，谢谢！]",
        "[JSON：|只返回JSON：]{0}[。|，不要其他文字。]",
    ),
}
BY_SCHEMA: dict[str, tuple[str, ...]] = {
    "en": (
        "[Answer|Reply|Respond] [in|as] JSON [by|with|following|that matches] this schema: {0}",
        "[Describe the picture|Describe the image|What is in the picture?] [JSON schema|Schema|Use the schema]: {0}",
        "[Return|Output] JSON for the schema {0}",
        "[Schema|JSON schema]: {0} [Answer|Reply|Respond] [in JSON|by it|with JSON only][.|, please.]",
    ),
    "zh": ("[请|]按[照|]这个[JSON模式|模式|schema]回答：{0}", "[请|]描述图片，[输出|返回]符合[schema|模式]的JSON：{0}"),
}
BY_EXAMPLE: dict[str, tuple[str, ...]] = {
    "en": (
        "[Answer|Reply|Respond] [in|as] JSON like {0}",
        "[Describe the picture|What do you see?] Format: {0}",
        "Fill in: {0}",
        "[Format|Like this]: {0} [What do you see?|Nothing else, please.|JSON only.]",
    ),
    "zh": ("[请|]按[此|这个]格式回答：{0}", "[请|]填写：{0}"),
}
FREELY: dict[str, tuple[str, ...]] = {
    "en": (
        "[Describe|Summarise] [the|this] [picture|image] [as|in] JSON.",
        "[Answer|Reply|Respond] [in|as|with] JSON[: what is in the picture?|.]",
        "[Return|Give me|Output] JSON.",
        "What is in the [picture|image]? [JSON only|Answer as JSON|Use JSON].",
    ),
    "zh": ("[请|]用JSON描述[图片|这张图]。", "图中有什么？[请|]用JSON回答。", "[请|][输出|返回]JSON。"),
}


@dataclass(frozen=True)
class Field:
    """One field of an answer: what it means, how it is called, and for a list the fields of each entry."""

    meaning: str
    name: str
    inner: tuple[Field, ...] = ()
    is_integer: bool = False


def ask_json(view: View) -> Question:
    """The picture as an object of the fields that are asked for."""
    rng, words = view.rng, view.words
    fields = random_fields(view)
    style = rng.choices(("named", "meant", "schema", "example", "foreseen", "free"), (22, 22, 20, 10, 14, 12))[0]
    if style not in ("schema", "foreseen"):  # only a schema says that a number is no string
        fields = tuple(replace(field, is_integer=False) for field in fields)
    if style in ("foreseen", "free"):
        return _without_names(view, fields, style == "free")
    names = [field.name for field in fields]
    if style == "named" and all(field.name in NAMES[field.meaning] for field in fields):
        and_word = rng.choice((", ", " and ")) if words.language == "en" else "，"
        text = phrasing(rng, REQUESTS[words.language], view.held_out).format(and_word.join(names))
    elif style in ("named", "meant"):
        said = [f"{field.name} ({meaning(rng, words, field)})" for field in fields]
        text = phrasing(rng, REQUESTS[words.language], view.held_out).format(", ".join(said))
    elif style == "schema":
        text = phrasing(rng, BY_SCHEMA[words.language], view.held_out).format(
            json.dumps(schema(rng, words, fields), ensure_ascii=False)
        )
    else:
        shape = {field.name: _example(rng, words, field) for field in fields}
        text = phrasing(rng, BY_EXAMPLE[words.language], view.held_out).format(json.dumps(shape, ensure_ascii=False))
    answer = json.dumps(filled(view, fields), ensure_ascii=False)
    return Question("json", words.language, as_typed(rng, words.language, text), answer, words.look)


def random_fields(view: View) -> tuple[Field, ...]:
    rng, scene = view.rng, view.scene
    if scene.number:
        meanings = rng.sample(("number", "colour", "background"), rng.randint(1, 3))
    elif len(scene.things) == 1 and rng.random() < 0.7:
        meanings = rng.sample(("shape", "colour", "place", "background", "count"), rng.randint(1, 4))
    else:
        meanings = rng.sample(("count", "background", "things"), rng.randint(1, 3))
    taken: set[str] = set()
    return tuple(_named_field(rng, meaning, taken, view.held_out) for meaning in meanings)


def _named_field(rng: random.Random, meaning: str, taken: set[str], held_out: bool) -> Field:
    name = random_name(rng, meaning, held_out)
    while name in taken:
        name = random_name(rng, meaning, held_out)
    taken.add(name)
    if meaning != "things":
        return Field(meaning, name, is_integer=meaning == "number" and rng.random() < 0.5)
    inside: set[str] = set()
    parts = rng.sample(("shape", "colour", "place"), rng.choice((2, 2, 3)))
    return Field(meaning, name, tuple(_named_field(rng, part, inside, held_out) for part in parts))


def random_name(rng: random.Random, meaning: str, held_out: bool = False) -> str:
    """A common name, one made of it, or a made-up one; the made ones of evaluations are never trained on."""
    while True:
        lot = rng.random()
        if lot < 0.45 and not held_out:
            return rng.choice(NAMES[meaning])
        if lot < 0.72:
            name = rng.choice(BEFORE_NAME) + rng.choice(NAMES[meaning])
        else:
            name = "".join(rng.choice(SYLLABLES) for _ in range(rng.randint(2, 3)))
            name += rng.choice(("", "", "_" + str(rng.randint(1, 9)), "_x"))
        if is_held_out(name) == held_out and not any(name in names for names in NAMES.values()):
            return name


def meaning(rng: random.Random, words: Wording, field: Field) -> str:
    said = rng.choice(MEANINGS[words.language][field.meaning])
    if field.inner:
        inner = ", ".join(f"{part.name}: {meaning(rng, words, part)}" for part in field.inner)
        said += f" with {inner}" if words.language == "en" else f"，每个有{inner}"
    return said


def schema(rng: random.Random, words: Wording, fields: tuple[Field, ...]) -> dict[str, Any]:
    """A JSON schema; fields of common names need no description."""
    properties: dict[str, Any] = {}
    for field in fields:
        if field.inner:
            rule: dict[str, Any] = {"type": "array", "items": schema(rng, words, field.inner)}
        else:
            rule = {"type": "integer" if field.meaning == "count" or field.is_integer else "string"}
        if field.name not in NAMES[field.meaning] or rng.random() < 0.2:
            rule["description"] = rng.choice(MEANINGS[words.language][field.meaning])
        properties[field.name] = rule
    whole: dict[str, Any] = {"type": "object", "properties": properties}
    if rng.random() < 0.5:
        whole["required"] = [field.name for field in fields]
    return whole


def _example(rng: random.Random, words: Wording, field: Field) -> Any:
    if field.inner:
        return [{part.name: _example(rng, words, part) for part in field.inner}]
    return rng.choice(MEANINGS[words.language][field.meaning])


def filled(view: View, fields: tuple[Field, ...]) -> dict[str, Any]:
    """What the picture shows, by these fields."""
    scene, words = view.scene, view.words
    found: dict[str, Any] = {}
    for field in fields:
        match field.meaning:
            case "count":
                found[field.name] = len(scene.things)
            case "background":
                found[field.name] = words.colours[scene.background]
            case "number":
                found[field.name] = int(scene.number) if field.is_integer else scene.number
            case "colour" if scene.number:
                found[field.name] = words.colours[scene.number_colour]
            case "things":
                found[field.name] = [
                    {part.name: _of(words, thing, part) for part in field.inner} for thing in scene.things
                ]
            case _:
                found[field.name] = _of(words, scene.things[0], field)
    return found


def _of(words: Wording, thing: Thing, field: Field) -> str:
    named = {
        "shape": words.shapes[thing.shape],
        "colour": words.colours[thing.colour],
        "place": words.cells[thing.cell],
    }
    return named[field.meaning]


def _without_names(view: View, fields: tuple[Field, ...], free: bool) -> Question:
    """No name is given: the demo's own names, or names that only a grammar knows and nothing is learnt from."""
    words, rng = view.words, view.rng
    if free:
        if view.scene.number:
            fields = (Field("number", "number"), Field("colour", "color"), Field("background", "background"))
        else:
            inner = (Field("shape", "shape"), Field("colour", "color"), Field("place", "position"))
            fields = (Field("things", "objects", inner), Field("background", "background"))
    else:
        fields = tuple(_with_common_name(rng, field) for field in fields)
    patterns = FREELY[words.language] if free or rng.random() < 0.5 else words.ways.DESCRIBE
    text = as_typed(rng, words.language, phrasing(rng, patterns, view.held_out))
    answer = json.dumps(filled(view, fields), ensure_ascii=False)
    spans = () if free else _all_but_values(answer)
    return Question("json", words.language, text, answer, words.look, spans)


def _with_common_name(rng: random.Random, field: Field) -> Field:
    name, inner = rng.choice(NAMES[field.meaning]), tuple(_with_common_name(rng, part) for part in field.inner)
    return replace(field, name=name, inner=inner)


def _all_but_values(answer: str) -> tuple[tuple[int, int], ...]:
    """Spans of the keys and of what surrounds them: all but what stands between a key's colon and the next mark."""
    spans, start = [], 0
    position = answer.find('": ')
    while position >= 0:
        value_at = position + 3
        if answer[value_at] in "[{":
            position = answer.find('": ', value_at)
            continue
        spans.append((start, value_at))
        end = value_at
        if answer[value_at] == '"':
            end = answer.index('"', value_at + 1) + 1
        else:
            while answer[end] not in ",}]":
                end += 1
        start = end
        position = answer.find('": ', end)
    return (*spans, (start, len(answer)))
