"""Places in an answer: read from its box tokens only, inside the image, and never a reason to fail."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glmserve.model.boxes import BOX_CLOSE, BOX_OPEN, MOST_BOXES, Box, BoxReader, boxes_in
from glmserve.model.output_parser import AnswerReader
from glmserve.model.tokenizer import Tokenizer

TOKENIZER = Tokenizer.read(Path(__file__).resolve().parents[2] / "demo" / "checkpoint")
CORNERS = (120.0, 40.0, 300.0, 500.0)


def read(answer: str, **options: object) -> AnswerReader:
    reader = AnswerReader(TOKENIZER, **options)  # type: ignore[arg-type]
    for token in TOKENIZER.encode(answer):
        reader.push([token])
    reader.finish()
    return reader


def boxed(text: str) -> str:
    return BOX_OPEN + text + BOX_CLOSE


def test_the_text_keeps_the_numbers_and_the_box_stands_beside_it() -> None:
    reader = read("The red car is at " + boxed("[[120,40,300,500]]") + ".")
    assert reader.content == "The red car is at [[120,40,300,500]]."
    assert reader.boxes == [Box(CORNERS, "The red car")]


def test_several_places_in_one_box_and_several_boxes() -> None:
    reader = read("Dogs: " + boxed("[[1,2,30,40],[500, 2, 530, 40]]") + ", cat: " + boxed("[120,40,300,500]"))
    assert [box.label for box in reader.boxes] == ["Dogs", "Dogs", "cat"]
    assert [box.corners[0] for box in reader.boxes] == [1, 500, 120]


@pytest.mark.parametrize(
    "written",
    [
        '[{"bbox_2d": [120, 40, 300, 500], "label": "car"}]',
        '{"label": "car", "bbox": [[120, 40, 300, 500]]}',
        '[{"box": [120, 40, 300, 500], "name": "car"}]',
    ],
)
def test_json_objects_bring_their_own_labels(written: str) -> None:
    assert boxes_in(written, "Here: ") == [Box(CORNERS, "car")]


@pytest.mark.parametrize(
    "written", ["4", "17", "[[1,2,3]]", "[[300,40,120,500]]", "[[0,0,1001,10]]", "[[5,5,5,9]]", "[[a,b,c,d]]", ""]
)
def test_what_is_no_place_is_none(written: str) -> None:
    """Numbers that were read or counted stand between box tokens too."""
    assert boxes_in(written) == []


def test_places_in_thoughts_are_not_the_answers() -> None:
    reader = read("<think>maybe " + boxed("[[1,2,3,4]]") + "</think>At " + boxed("[[120,40,300,500]]"))
    assert [box.corners for box in reader.boxes] == [CORNERS]


def test_numbers_without_box_tokens_and_unfinished_boxes_name_no_place() -> None:
    assert read("[[120,40,300,500]]").boxes == [] and read(BOX_OPEN + "[[120,40,300,500]]").boxes == []


def test_nothing_after_a_stop_string_counts() -> None:
    assert read("End. " + boxed("[[120,40,300,500]]"), stop=("End",)).boxes == []


@pytest.mark.parametrize(
    ("before", "image"), [("In image 2 the car ", 2), ("图2中的汽车", 2), ("第3张图里，汽车在", 3), ("The car ", None)]
)
def test_the_image_that_the_answer_names(before: str, image: int | None) -> None:
    assert boxes_in("[[120,40,300,500]]", before)[0].image == image


def test_pixels_are_those_of_an_image_of_any_size() -> None:
    assert Box(CORNERS).pixels(1000, 1000) == (120, 40, 300, 500)
    assert Box((0, 0, 1000, 1000)).pixels(4032, 3024) == (0, 0, 4032, 3024)
    assert Box((250, 500, 500, 1000)).pixels(640, 480) == (160, 240, 320, 480)


def test_an_answer_has_no_more_boxes_than_anybody_reads() -> None:
    reader = BoxReader()
    for _ in range(3):
        reader.steer(BOX_OPEN)
        reader.push(json.dumps([[1, 2, 3, 4]] * 200))
        reader.steer(BOX_CLOSE)
    assert len(reader.boxes) == MOST_BOXES
    reader = BoxReader()
    reader.steer(BOX_OPEN)
    reader.push("[" * 1_000_000)
    reader.steer(BOX_CLOSE)
    assert reader.boxes == []


@pytest.mark.slow
@given(st.text(max_size=200), st.text(max_size=200))
def test_any_text_is_read_without_harm(before: str, written: str) -> None:
    for box in boxes_in(written, before):
        x1, y1, x2, y2 = box.corners
        assert 0 <= x1 < x2 <= 1000 and 0 <= y1 < y2 <= 1000 and len(box.label) <= 80


@pytest.mark.slow
@given(
    st.recursive(
        st.none() | st.integers() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=5)
            | st.dictionaries(st.sampled_from(["bbox", "label", "box_2d", "x"]), inner, max_size=4)
        ),
        max_leaves=20,
    )
)
def test_any_json_is_read_without_harm(document: object) -> None:
    boxes_in(json.dumps(document))
