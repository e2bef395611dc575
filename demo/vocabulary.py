"""The demo's tokenizer: byte-level BPE learned from the questions, then GLM's special tokens in GLM's order.

The checkpoint's own was learned when there were fewer phrasings, and stays: its ids belong to the weights.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from demo.lessons.chats import Chat, Piece, Said, Shared, Turn, chat_pieces
from demo.lessons.pairs import random_pair_question
from demo.lessons.picture_chats import picture_chat
from demo.lessons.questions import random_greeting
from demo.lessons.tools import random_lesson
from demo.lessons.watching import random_film_question, times_of
from demo.lessons.wordings import CHINESE, WORDINGS
from demo.pictures.drawing import Mark
from demo.pictures.films import random_film
from demo.pictures.scenes import random_scene

LEARNED_TOKENS = 988
# A side of a box as GLM writes it, `[[120,40,560,730]]`, is one token: a multiple of ten that brackets or commas touch
# on both sides. Digit by digit the second one is hard to learn: along the picture it goes up and down.
COORDINATE = r"(?<=[\[,])(?:[1-9]?[0-9]0|1000)(?=[,\]])"
COORDINATES = tuple(str(number) for number in range(10, 1001, 10))
END_OF_TEXT = "<|endoftext|>"
# In GLM's order; True marks what a decoder skips as special.
SPECIAL_TOKENS = (
    (END_OF_TEXT, True),
    ("[MASK]", True),
    ("[gMASK]", True),
    ("[sMASK]", True),
    ("<sop>", True),
    ("<eop>", True),
    ("<|system|>", True),
    ("<|user|>", True),
    ("<|assistant|>", True),
    ("<|observation|>", True),
    ("<|begin_of_image|>", True),
    ("<|end_of_image|>", True),
    ("<|begin_of_video|>", True),
    ("<|end_of_video|>", True),
    ("<|begin_of_audio|>", True),
    ("<|end_of_audio|>", True),
    ("<|begin_of_transcription|>", True),
    ("<|end_of_transcription|>", True),
    ("<|code_prefix|>", True),
    ("<|code_middle|>", True),
    ("<|code_suffix|>", True),
    ("<think>", False),
    ("</think>", False),
    ("<tool_call>", False),
    ("</tool_call>", False),
    ("<tool_response>", False),
    ("</tool_response>", False),
    ("<arg_key>", False),
    ("</arg_key>", False),
    ("<arg_value>", False),
    ("</arg_value>", False),
    ("/nothink", True),
    ("<|begin_of_box|>", False),
    ("<|end_of_box|>", False),
    ("<|image|>", True),
    ("<|video|>", True),
)
VOCABULARY_SIZE = LEARNED_TOKENS + len(COORDINATES) + len(SPECIAL_TOKENS)

CONTROL = re.compile("|".join(re.escape(text) for text, _ in SPECIAL_TOKENS))


def build_tokenizer(sentences: int = 20_000) -> Tokenizer:
    """Learn the merges from drawn questions and answers; the same code always gives the same tokenizer."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=False))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.Split(Regex("|".join(_chinese_names())), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=LEARNED_TOKENS,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_sentences(sentences), trainer)
    tokenizer = with_coordinates(tokenizer)
    tokenizer.add_tokens([AddedToken(text, special=special, normalized=False) for text, special in SPECIAL_TOKENS])
    if tokenizer.get_vocab_size() != VOCABULARY_SIZE:
        raise ValueError(f"the vocabulary has {tokenizer.get_vocab_size()} tokens, not {VOCABULARY_SIZE}")
    return tokenizer


def with_coordinates(tokenizer: Tokenizer) -> Tokenizer:
    """A tokenizer, its special tokens not yet added, that takes sides of boxes whole and other numbers by the digit."""
    whole = json.loads(tokenizer.to_str())
    digits = whole["pre_tokenizer"]["pretokenizers"]
    digits[0] = {
        "type": "Split", "pattern": {"Regex": COORDINATE + r"|\p{N}"}, "behavior": "Isolated", "invert": False
    }  # fmt: skip
    vocabulary, merges = whole["model"]["vocab"], whole["model"]["merges"]
    for text in COORDINATES:
        vocabulary[text] = len(vocabulary)
        # The last two digits are taken together first, or, where both are 0, the first two.
        merges.append([text[:-1], "0"] if len(text) == 2 or text.endswith("00") else [text[0], text[1:]])
    return Tokenizer.from_str(json.dumps(whole))


def _chinese_names() -> list[str]:
    """Names that are words of their own (Chinese writes no spaces), longest first."""
    names = {*CHINESE.shapes.values(), *CHINESE.colours.values(), *CHINESE.cells, *CHINESE.relations.values()}
    names |= {"数字", "背景", "颜色", "形状", "物体", "图片", "第一张", "第二张"}
    return sorted(names, key=lambda name: (-len(name), name))


def _sentences(n: int) -> Iterator[str]:
    for words in WORDINGS.values():  # rare names too become one token each
        named = (words.shapes, words.colours, words.relations)
        for name in [*(name for names in named for name in names.values()), *words.cells]:
            yield from [name if words is CHINESE else " " + name] * 300
            yield from [name] * 300
    rng = random.Random(0)
    for _ in range(n):
        for piece in _lesson(rng):
            if text := piece.text if isinstance(piece, Said) else piece if isinstance(piece, str) else "":
                yield CONTROL.sub("\n", text)


def _lesson(rng: random.Random) -> list[Piece]:
    """One lesson of any kind, its picture undrawn."""
    kind = rng.choices(("picture", "pair", "film", "greeting", "tools"), (60, 10, 10, 14, 6))[0]
    if kind == "tools":
        shared, chats = random_lesson(rng, 2)
        return [*shared.pieces(), *(piece for chat in chats for piece in chat_pieces(chat))]
    if kind == "greeting":
        return chat_pieces(Chat((Turn(random_greeting(rng)),), thinking=True))
    if kind == "pair":
        return chat_pieces(Chat((Turn(random_pair_question(rng, [random_scene(rng), random_scene(rng)])),), True))
    if kind == "film":
        times = times_of(rng, 4)
        asked = random_film_question(rng, random_film(rng, (112, 112), 4), times)
        return [*Shared(pictures=4, times=times).pieces(), *chat_pieces(Chat((Turn(asked),), True))]
    scene = random_scene(rng)
    marks = [
        Mark(thing.shape, thing.colour, thing.cell, (thing.x * 100, thing.y * 100), (9, 9)) for thing in scene.things
    ]
    return chat_pieces(picture_chat(rng, scene, marks))
