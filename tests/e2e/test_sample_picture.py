"""The image that the page offers is the demo's own, and what it offers to ask about it is answered rightly."""

from __future__ import annotations

import io
import re
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from serving import Service

from demo.exam import is_right
from demo.lessons.questions import box_of
from demo.pictures.drawing import draw, draw_marked
from demo.pictures.scenes import Scene, Thing

PAGE = Path(__file__).resolve().parents[2] / "gateway" / "page"
THINGS = (
    Thing("circle", "red", 0),
    Thing("star", "yellow", 2),
    Thing("square", "blue", 4),
    Thing("triangle", "green", 7),
)
SCENE = Scene(224, 224, "white", THINGS, number="", number_colour="", drawing_seed=1)
STAR = f"[{list(box_of(draw_marked(SCENE)[1][1], SCENE))}]"  # of which a box has to hold most
RIGHT = {
    "How many shapes are there?": "Top left, top right, centre, bottom centre. 4",
    "What do you see?": "Red circle top left, yellow star top right, blue square centre, green triangle bottom centre.",
    "Where is the star? Return a bounding box.": STAR,
    "图中有几个物体？": "左上角，右上角，中间，下方。4",
    "你看到什么？": "左上角红色圆形，右上角黄色星形，中间蓝色正方形，下方绿色三角形。",
    "星形的边界框是什么？": STAR,
}


def test_the_sample_image_is_what_the_demo_draws() -> None:
    assert np.array_equal(np.asarray(Image.open(PAGE / "sample.png")), np.asarray(draw(SCENE)))


def test_the_page_offers_these_questions() -> None:
    lists = re.findall(r"samples: \[(.*?)\]", (PAGE / "words.js").read_text("utf-8"))
    assert [question for each in lists for question in re.findall(r'"(.*?)"', each)] == list(RIGHT)


@pytest.mark.triton
def test_they_are_answered_rightly(service: Service) -> None:
    with urllib.request.urlopen(f"{service.gateway.url}/page/sample.png", timeout=10) as reply:
        image = Image.open(io.BytesIO(reply.read()))
    for question, right in RIGHT.items():
        said = service.ask(image, question, temperature=0)["result"]
        assert is_right("box" if right == STAR else "", said, right), (question, said)
    assert service.get("/v1/models")[1]["data"][0]["demo"] is True
