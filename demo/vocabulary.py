"""The demo's tokenizer: byte-level BPE learned from the questions, then GLM's special tokens in GLM's order.

The checkpoint's own was learned when there were fewer phrasings, and stays: its ids belong to the weights.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from demo.questions import random_greeting, random_question
from demo.scenes import random_scene
from demo.wordings import CHINESE, WORDINGS

VOCABULARY_SIZE = 640
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
        vocab_size=VOCABULARY_SIZE - len(SPECIAL_TOKENS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_sentences(sentences), trainer)
    tokenizer.add_tokens([AddedToken(text, special=special, normalized=False) for text, special in SPECIAL_TOKENS])
    if tokenizer.get_vocab_size() != VOCABULARY_SIZE:
        raise ValueError(f"the vocabulary has {tokenizer.get_vocab_size()} tokens, not {VOCABULARY_SIZE}")
    return tokenizer


def _chinese_names() -> list[str]:
    """Names that are words of their own (Chinese writes no spaces), longest first."""
    names = {*CHINESE.shapes.values(), *CHINESE.colours.values(), *CHINESE.backgrounds.values()}
    names |= {*CHINESE.cells, *CHINESE.relations.values(), "数字", "背景", "颜色", "形状", "物体"}
    return sorted(names, key=lambda name: (-len(name), name))


def _sentences(n: int) -> Iterator[str]:
    for words in WORDINGS.values():  # rare names too become one token each
        named = (words.shapes, words.colours, words.backgrounds, words.relations)
        for name in [*(name for names in named for name in names.values()), *words.cells]:
            yield from [name if words is CHINESE else " " + name] * 200
    rng = random.Random(0)
    for i in range(n):
        if i % 40 == 0:
            question = random_greeting(rng)
        else:
            drawn = random_question(rng, random_scene(rng))
            if drawn is None:
                continue
            question = drawn
        for text in (question.text, question.answer, question.reasoning):
            yield text.replace("<|begin_of_box|>", "").replace("<|end_of_box|>", "")
