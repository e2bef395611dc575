"""Records what transformers answers in fp32, for others to compare with: `python -m demo.golden`."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors.torch import save_file

from demo.exam import CHAT_KINDS, PICTURE_KINDS, SECOND_SEED, Asked, drawn_image, unseen
from demo.golden_set import CANARY_SEED, CHECKPOINT, GoldenQuestion, ParityCase, golden_chats, golden_questions
from demo.reference import Reference, user_message

# How many: about own pictures and none, about pictures of the second program, of more than a turn or a picture.
OWN, SECOND, CHATS = 210, 90, 50
FIRST_SEED = 500_000  # past those of every question
# The parity cases' pictures: the first seed that is tried, and the size that the picture has to have.
PICTURES: dict[str, tuple[int, Callable[[Image.Image], bool]]] = {
    "square": (FIRST_SEED, lambda image: image.size == (112, 112)),
    "wide": (
        FIRST_SEED,
        lambda image: image.width >= 1.5 * image.height and not (image.width % 28 or image.height % 28),
    ),
    "resized": (
        SECOND_SEED + FIRST_SEED,
        lambda image: bool(image.width % 28 and image.height % 28) and image.width > 300,
    ),
}


def record_questions(reference: Reference, folder: Path) -> None:
    own = unseen(OWN, (*PICTURE_KINDS, "greeting"))
    second = unseen(SECOND, PICTURE_KINDS, first_seed=SECOND_SEED)
    _record(reference, folder / "questions.jsonl", "golden", [*own, *second])
    _record(reference, folder / "chats.jsonl", "chat", list(unseen(CHATS, CHAT_KINDS)))


def _record(reference: Reference, path: Path, name: str, questions: list[Asked]) -> None:
    lines = []
    for i, asked in enumerate(questions):
        answer = reference.ask(asked)
        spoken = answer.generated_ids
        golden = GoldenQuestion(
            id=f"{name}-{i:03d}",
            seed=asked.seed,
            kind=asked.kind,
            language=asked.question.language,
            thinking=asked.thinking,
            question=asked.question.text,
            expected=asked.expected,
            answer_ids=spoken[:-1] if spoken[-1] in reference.end_ids else spoken,
            answer=answer.text,
        )
        lines.append(json.dumps(asdict(golden), ensure_ascii=False))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def record_canary(reference: Reference, folder: Path) -> None:
    """An easy question about a clear picture: a server that gets it wrong is not ready."""
    image = drawn_image(CANARY_SEED)
    image.save(folder / "canary.png")
    prompt = "Describe the picture."
    answer = reference.answer([user_message(prompt, 1)], [image], thinking=False).text
    (folder / "canary.json").write_text(json.dumps({"prompt": prompt, "answer": answer}, indent=2) + "\n")


def record_parity(reference: Reference, folder: Path) -> None:
    """Ids and fp32 logits of a few chats that differ in what can go wrong."""
    images = {f"{name}.png": _first_image(seed, fits) for name, (seed, fits) in PICTURES.items()}
    for name, image in images.items():
        image.save(folder / name)
    cases, logits = [], {}
    for name, messages, thinking in parity_chats():
        shown = [images[part["image"]] for part in _image_parts(messages)]
        answer = reference.answer(messages, shown, thinking)
        cases.append(ParityCase(name, messages, thinking, answer.input_ids, answer.image_grid, answer.generated_ids))
        logits[name] = answer.logits.contiguous()
    text = json.dumps([asdict(case) for case in cases], ensure_ascii=False, separators=(",", ":"))
    (folder / "cases.json").write_text(text.replace('{"name"', '\n{"name"') + "\n", encoding="utf-8")
    save_file(logits, folder / "logits.safetensors")


def parity_chats() -> list[tuple[str, list[dict[str, Any]], bool]]:
    """Name, chat and thinking of each parity case; an image part names the png file that lies beside."""

    def see(text: str, *names: str) -> dict[str, Any]:
        message = user_message(text, len(names))
        for part, name in zip(message["content"], names, strict=False):
            part["image"] = name
        return message

    describe = "Describe the picture."
    return [
        ("text_only", [user_message("Who are you?", 0)], False),
        ("one_picture", [see(describe, "square.png")], False),
        ("wide_picture", [see(describe, "wide.png")], False),
        ("resized_picture", [see("How many objects are in the picture?", "resized.png")], False),
        ("two_pictures", [see(describe, "square.png", "wide.png")], False),
        (
            "second_turn",
            [
                see("What colour is the background?", "square.png"),
                {"role": "assistant", "content": "White."},
                user_message("How many things are there?", 0),
            ],
            False,
        ),
        ("thinking", [see("How many objects are in the picture?", "square.png")], True),
        ("chinese", [see("图中有什么？", "resized.png")], False),
        (
            "system_prompt",
            [{"role": "system", "content": "Answer in English."}, see("What do you see?", "wide.png")],
            True,
        ),
    ]


def _image_parts(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    parts = [part for message in messages if isinstance(message["content"], list) for part in message["content"]]
    return [part for part in parts if part["type"] == "image"]


def _first_image(seed: int, fits: Callable[[Image.Image], bool]) -> Image.Image:
    while not fits(drawn_image(seed)):
        seed += 1
    return drawn_image(seed)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", type=Path, default=CHECKPOINT, help="whose answers; the demo's, unless named")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    folder = arguments.checkpoint / "golden"
    folder.mkdir(exist_ok=True)
    reference = Reference(arguments.checkpoint)
    record_canary(reference, folder)
    record_parity(reference, folder)
    record_questions(reference, folder)
    questions = [*golden_questions(folder), *golden_chats(folder)]
    print(f"{sum(question.is_right for question in questions)} of {len(questions)} golden questions are right")


if __name__ == "__main__":
    main()
