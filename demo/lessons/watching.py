"""What happens in a film: which way, what, from what to what, and when."""

from __future__ import annotations

import random
from collections.abc import Sequence

from demo.lessons.phrases import Patterns, as_typed, phrasing
from demo.lessons.questions import Question, question
from demo.lessons.wordings import LANGUAGES, WORDINGS, Wording
from demo.pictures.films import EVENTS, FRAMES_A_PAIR, Film

VID = "[the|this] [video|film|clip]"
WAYS: dict[str, dict[str, Patterns]] = {
    "en": {
        "what": (
            f"What happens in {VID}?",
            f"[Describe|Summarise|Explain] {VID}.",
            f"What [do you see|can you see|is shown] in {VID}?",
            "What [happens|is happening|changes|is going on][| here]?",
            f"[Tell me|Say] what happens[| in {VID}].".replace(f"[| in {VID}]", ""),
            f"[Can|Could] you describe {VID}?",
        ),
        "way": (
            "[Which way|In which direction|Where] does {0} [move|go|travel]?",
            "[Which way|Where] is {0} [moving|going]?",
            "[What is|Tell me] the direction of {0}.",
            "How does {0} move?",
            "In [what|which] direction is {0} moving?",
        ),
        "moves": (
            "What [moves|is moving]?",
            "Which [thing|object|shape] [moves|is moving]?",
            "What [thing|object|shape] moves?",
        ),
        "colour": (
            "What changes [colour|color]?",
            "Which [thing|object|shape] changes [its |][colour|color]?",
            "What changed [colour|color]?",
            "What [colour|color] change do you see?",
            "How does the [colour|color] change?",
        ),
        "comes": (
            "What [appears|comes|shows up|comes in|appeared]?",
            "[What|Which] [thing|object|shape] [appears|comes in]?",
            "What is new?",
        ),
        "goes": (
            "What [disappears|goes away|leaves|vanishes|disappeared|left]?",
            "[What|Which] [thing|object|shape] [disappears|vanishes|leaves]?",
        ),
        "when": (
            "When does [it|that|this] happen?",
            "[When|At what time|At which second] does {0} [{1}]?",
            "When?",
            "At [what|which] time does {0} [{1}]?",
        ),
    },
    "zh": {
        "what": (
            "[这个|]视频[里|中]发生了什么？",
            "[请|]描述[一下|]这个视频。",
            "[请|]描述视频[内容|]。",
            "[视频|]发生了什么[变化|]？",
            "视频[里|中]有什么？",
            "这个视频讲了什么？",
        ),
        "way": (
            "{0}[往|向|朝][哪边|哪个方向|哪里][移动|走|动]？",
            "{0}的[移动|运动]方向是什么？",
            "{0}怎么[移动|动]？",
        ),
        "moves": ("什么[在移动|在动|移动了]？", "哪个[物体|东西|形状][在移动|移动了|在动]？"),
        "colour": (
            "什么[变了颜色|改变了颜色|变色了]？",
            "哪个[物体|东西|形状][变了颜色|变色了|改变了颜色]？",
            "颜色[怎么变|有什么变化|怎么变化]？",
        ),
        "comes": ("[什么|什么东西|哪个物体][出现了|来了|进来了]？", "[新出现了|多了]什么？"),
        "goes": ("[什么|什么东西|哪个物体][消失了|不见了|离开了]？", "少了什么？"),
        "when": ("[什么时候|何时|第几秒]发生的？", "{0}[什么时候|何时|在第几秒]{1}？", "[什么时候|何时]？"),
    },
}
VERBS = {
    "en": {"colour": "change its colour", "comes": "appear", "goes": "disappear"},
    "zh": {"colour": "变色", "comes": "出现", "goes": "消失"},
}
WAY = {
    "en": {"left": "to the left", "right": "to the right", "up": "up", "down": "down"},
    "zh": {"left": "向左", "right": "向右", "up": "向上", "down": "向下"},
}
SENTENCES = {
    "en": {
        "move": "The {thing} moves {way}.",
        "colour": "The {thing} turns {new}.",
        "comes": "{A} {thing} appears.",
        "goes": "The {thing} disappears.",
        "when": "At {time} seconds.",
        "way": "{way}.",
        "moves": "The {thing}.",
        "at": " at {time} seconds.",
    },
    "zh": {
        "move": "{thing}{way}移动。",
        "colour": "{thing}变成{new}。",
        "comes": "{thing}出现。",
        "goes": "{thing}消失。",
        "when": "{time}秒。",
        "way": "{way}。",
        "moves": "{thing}。",
        "at": "",
    },
}


def times_of(rng: random.Random, pairs: int) -> tuple[str, ...]:
    """Stamps of frame pairs, in seconds: usually of frames a sixth of a second apart."""
    step = rng.choice((1 / 3, 1 / 3, 1 / 3, 0.5, 0.4, 1.0, 2.0, 0.25))
    return tuple(f"{i * step:.1f}" for i in range(pairs))


def random_film_question(
    rng: random.Random, film: Film, times: Sequence[str], held_out: bool = False, language: str = ""
) -> Question:
    words = WORDINGS[language or rng.choice(LANGUAGES)]
    sentences, ways = SENTENCES[words.language], WAYS[words.language]
    is_move = film.event in EVENTS[:4]
    kind = rng.choice(("what", "way", "way", "moves") if is_move else ("what", film.event, film.event, "when"))
    named = _name(rng, words, film)
    values = {
        "thing": words.looks(film.thing),
        "way": WAY[words.language].get(film.event, ""),
        "new": words.colours[film.new_colour],
        "time": times[film.change // FRAMES_A_PAIR],
        "A": "An" if words.looks(film.thing)[0] in "aeiou" else "A",
    }
    sentence = "move" if is_move else film.event
    if kind in ("way", "moves", "when"):
        sentence = kind
    text = phrasing(rng, ways[kind], held_out).format(named, VERBS[words.language].get(film.event, ""))
    text = text.replace("[", "").replace("]", "")
    answer = sentences[sentence].format(**values)
    whole = sentences["move" if is_move else film.event].format(**values)
    return question("video", words, as_typed(rng, words.language, words.begin_upper(text)), answer, whole)


def _name(rng: random.Random, words: Wording, film: Film) -> str:
    alone = sum(thing.shape == film.thing.shape for thing in film.scene.things) == 1
    return words.the_shape(film.thing.shape) if alone and rng.random() < 0.5 else words.the_thing(film.thing)
