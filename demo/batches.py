"""What one training step sees: pictures of one size, and the questions packed behind each of them."""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer

from demo.drawing import DIGIT_STROKES, Mark, draw_marked
from demo.model import PREPROCESSOR, token_id
from demo.questions import Question, random_greeting, random_questions
from demo.scenes import BACKGROUNDS, CELLS, COLOURS, COLUMNS, ROWS, SHAPES, Scene, random_scene
from glmserve.model.image_processor import Grid, ImageRules, patches_of

RULES = ImageRules(
    patch_size=PREPROCESSOR["patch_size"],
    merge_size=PREPROCESSOR["merge_size"],
    temporal_patch_size=PREPROCESSOR["temporal_patch_size"],
    min_pixels=PREPROCESSOR["size"]["shortest_edge"],
    max_pixels=PREPROCESSOR["size"]["longest_edge"],
    mean=tuple(PREPROCESSOR["image_mean"]),
    std=tuple(PREPROCESSOR["image_std"]),
)
MARK_NAMES = ("", *SHAPES, *DIGIT_STROKES)
MARK_COLOURS = ("", *COLOURS)
PLACES = CELLS + 4  # a cell, or the rank of a digit
# Each label a picture token has, and how many values it takes.
LABELS = {"name": len(MARK_NAMES), "colour": len(MARK_COLOURS), "place": PLACES, "background": len(BACKGROUNDS)}
VERDICT_TOKENS = {"relation": 3, "count": 4}  # "Yes.", or the number in its box, with the ending token
VERDICT_WEIGHT = 3.0
SEEN_PART = 0.15  # a token shows a mark when this part of the smaller of the two overlaps


@dataclass(frozen=True)
class Images:
    """Pictures of one grid with the labels of each merged token."""

    scenes: list[Scene]
    grid: Grid
    patches: torch.Tensor  # f32 [pictures, patches, 588], normalised
    labels: dict[str, torch.Tensor]  # i64 [pictures, tokens] by name in LABELS


@dataclass(frozen=True)
class Packed:
    """Rows of a shared prefix and several questions; each question sees the prefix and itself."""

    questions: list[Question]
    ids: torch.Tensor  # i64 [rows, tokens]
    positions: torch.Tensor  # i64 [3, rows, tokens]
    mask: torch.Tensor  # bool [rows, 1, tokens, tokens]
    features_start: int
    # One entry for each token to predict: where it is predicted, what it is, its weight, whose question it is.
    predicted_at: torch.Tensor  # i64 [n] into rows * tokens
    targets: torch.Tensor  # i64 [n]
    weights: torch.Tensor  # f32 [n]
    owners: torch.Tensor  # i64 [n]


class Encoder:
    """Turns text into ids, remembering what it has met."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.image_id = token_id(tokenizer, "<|image|>")
        self.encode = lru_cache(maxsize=100_000)(lambda text: tuple(tokenizer.encode(text).ids))


def draw_images(rng: random.Random, n: int, size_px: tuple[int, int], crowded: bool = False) -> Images:
    scenes = [random_scene(rng, size_px, crowded) for _ in range(n)]
    patches, labels = [], []
    grid = Grid(0, 0)
    for scene in scenes:
        image, marks = draw_marked(scene)
        pixels, grid = patches_of(image, RULES)
        patches.append(pixels)
        labels.append(token_labels(scene, marks, grid))
    stacked = {name: torch.from_numpy(np.stack([label[name] for label in labels])) for name in LABELS}
    return Images(scenes, grid, normalised(np.stack(patches)), stacked)


def normalised(patches: NDArray[np.uint8]) -> torch.Tensor:
    """uint8 patches [..., 588] -> f32 with CLIP's mean and deviation."""
    pixels_a_channel = RULES.patch_size**2
    mean = np.repeat(np.asarray(RULES.mean, np.float32), pixels_a_channel)
    std = np.repeat(np.asarray(RULES.std, np.float32), pixels_a_channel)
    return torch.from_numpy((patches.astype(np.float32) / 255 - mean) / std)


def token_labels(scene: Scene, marks: list[Mark], grid: Grid) -> dict[str, NDArray[np.int64]]:
    """What each merged token shows: the mark that covers most of it, or nothing, and the place it looks at."""
    rows, columns = grid.rows // RULES.merge_size, grid.columns // RULES.merge_size
    height, width = scene.height_px / rows, scene.width_px / columns  # a token, in drawn pixels
    top, left = np.arange(rows)[:, None] * height, np.arange(columns)[None, :] * width
    cell_row = ((top + height / 2) * ROWS / scene.height_px).astype(np.int64)
    cell_column = ((left + width / 2) * COLUMNS / scene.width_px).astype(np.int64)
    names, colours = np.zeros((rows, columns), np.int64), np.zeros((rows, columns), np.int64)
    places = cell_row * COLUMNS + cell_column
    most = np.zeros((rows, columns))
    for mark in marks:
        (x, y), (radius_x, radius_y) = mark.centre, mark.radius
        across = np.clip(np.minimum(left + width, x + radius_x) - np.maximum(left, x - radius_x), 0, None)
        down = np.clip(np.minimum(top + height, y + radius_y) - np.maximum(top, y - radius_y), 0, None)
        shared = across * down / min(width * height, 4 * radius_x * radius_y)
        chosen = (shared > SEEN_PART) & (shared > most)
        names[chosen] = MARK_NAMES.index(mark.name)
        colours[chosen] = MARK_COLOURS.index(mark.colour)
        places[chosen] = mark.place + (CELLS if scene.number else 0)
        most = np.maximum(most, shared)
    background = np.full((rows, columns), BACKGROUNDS.index(scene.background))
    found = {"name": names, "colour": colours, "place": places, "background": background}
    return {name: label.reshape(-1) for name, label in found.items()}


def pack_images(rng: random.Random, encoder: Encoder, images: Images, questions: int) -> Packed:
    """Several questions behind each picture, some rows as one conversation."""
    rows = [random_questions(rng, scene, questions) for scene in images.scenes]
    down, across = images.grid.rows // RULES.merge_size, images.grid.columns // RULES.merge_size
    before = encoder.encode("[gMASK]<sop><|user|>\n<|begin_of_image|>")
    tokens = down * across
    prefix = [*before, *[encoder.image_id] * tokens, *encoder.encode("<|end_of_image|>")]
    start = len(before)
    places = np.arange(len(prefix))[None].repeat(3, axis=0)
    places[:, start : start + tokens] = start
    places[1, start : start + tokens] += np.repeat(np.arange(down), across)
    places[2, start : start + tokens] += np.tile(np.arange(across), down)
    places[:, start + tokens :] = start + max(down, across)
    return _pack(rng, encoder, rows, prefix, places, start)


def pack_greetings(rng: random.Random, encoder: Encoder, rows: int) -> Packed:
    """Greetings without a picture."""
    prefix = list(encoder.encode("[gMASK]<sop><|user|>"))
    places = np.arange(len(prefix))[None].repeat(3, axis=0)
    return _pack(rng, encoder, [[random_greeting(rng)] for _ in range(rows)], prefix, places, 0)


def _pack(
    rng: random.Random,
    encoder: Encoder,
    rows: list[list[Question]],
    prefix: list[int],
    places: NDArray[np.int64],
    features_start: int,
) -> Packed:
    has_image = features_start > 0
    all_ids: list[list[int]] = []
    all_places: list[NDArray[np.int64]] = []
    all_parts: list[list[int]] = []
    chained_rows: list[bool] = []
    predictions: list[tuple[int, int, int, float, int]] = []  # row, index, target, weight, owner
    owner = 0
    for row, questions in enumerate(rows):
        chained = has_image and rng.random() < 0.15
        ids, parts, next_place = list(prefix), [0] * len(prefix), int(places[0, -1]) + 1
        row_places = [places]
        for part, question in enumerate(questions, start=1):
            thinking = not chained and rng.random() < 0.25
            new_line = not has_image or (chained and part > 1) or rng.random() < 0.1
            prompt, completion = turn(question, thinking, new_line)
            prompt_ids, completion_ids = encoder.encode(prompt), encoder.encode(completion)
            first = len(ids) + len(prompt_ids) - 1
            each_weight = token_weights(question.kind, len(completion_ids))
            for i, (target, weight) in enumerate(zip(completion_ids, each_weight, strict=True)):
                predictions.append((row, first + i, target, weight, owner))
            length = len(prompt_ids) + len(completion_ids)
            ids += [*prompt_ids, *completion_ids]
            parts += [part] * length
            row_places.append((next_place + np.arange(length))[None].repeat(3, axis=0))
            next_place += length if chained else 0
            owner += 1
        all_ids.append(ids)
        all_parts.append(parts)
        all_places.append(np.concatenate(row_places, axis=1))
        chained_rows.append(chained)
    length = max(len(ids) for ids in all_ids)
    ids_array = np.zeros((len(rows), length), np.int64)
    parts_array = np.full((len(rows), length), -1, np.int64)
    places_array = np.zeros((3, len(rows), length), np.int64)
    for row, ids in enumerate(all_ids):
        ids_array[row, : len(ids)] = ids
        parts_array[row, : len(ids)] = all_parts[row]
        places_array[:, row, : len(ids)] = all_places[row]
    where, index, targets, weights, owners = zip(*predictions, strict=True)
    return Packed(
        questions=[question for questions in rows for question in questions],
        ids=torch.from_numpy(ids_array),
        positions=torch.from_numpy(places_array),
        mask=block_mask(torch.from_numpy(parts_array), torch.tensor(chained_rows)),
        features_start=features_start,
        predicted_at=torch.tensor(where) * length + torch.tensor(index),
        targets=torch.tensor(targets),
        weights=torch.tensor(weights),
        owners=torch.tensor(owners),
    )


def turn(question: Question, thinking: bool, new_line: bool) -> tuple[str, str]:
    """What the template writes after the shared prefix, and what the model has to write."""
    prompt = ("\n" if new_line else "") + question.text
    if thinking:
        completion = f"<think>{question.reasoning}</think>\n{question.answer}<|user|>"
        return prompt + "<|assistant|>\n", completion
    return prompt + "/nothink<|assistant|>\n<think></think>\n", question.answer + "<|user|>"


def token_weights(kind: str, length: int) -> list[float]:
    """Long answers weigh a little more than short ones; a verdict outweighs the places that lead to it."""
    weight = 1 / length**0.5
    verdict = min(length, VERDICT_TOKENS.get(kind, 0))
    return [weight] * (length - verdict) + [VERDICT_WEIGHT * weight] * verdict


def block_mask(parts: torch.Tensor, chained: torch.Tensor) -> torch.Tensor:
    """Who may see whom: bool [rows, 1, tokens, tokens] from parts i64 [rows, tokens] (0 the prefix, -1 padding)."""
    length = parts.shape[1]
    earlier = torch.ones(length, length, dtype=torch.bool).tril()
    same = parts[:, :, None] == parts[:, None, :]
    shared = (parts == 0)[:, None, :] | chained[:, None, None]
    return (earlier & (same | shared))[:, None]
