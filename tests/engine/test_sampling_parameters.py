"""A new sampling parameter needs one entry in the table: requests, tensors, documents and the engine follow."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from gateway.schemas.common import AnswerFields
from gateway.schemas.openai import CompletionBody
from gateway.schemas.vision import VisionBody
from glmserve import sampling_parameters
from glmserve.contract import DECODER_INPUTS
from glmserve.sampling_parameters import GRAPH_PARAMETERS, LISTS, PARAMETERS, Sampling

ROOT = Path(__file__).resolve().parents[2]
_ENTRY = """\
    warmth: float = parameter(
        1.5,
        meaning="Made up by a test.",
        minimum=0.5,
        maximum=4,
        request_default=2.5,
        vision_aliases=("heat",),
        openai_aliases=("warmness",),
        graph_dtype="float32",
    )
    stop_token_ids: tuple"""
_PROGRAM = """
import importlib.util, json, sys

import numpy as np

spec = importlib.util.spec_from_file_location("glmserve.sampling_parameters", sys.argv[1])
sys.modules[spec.name] = module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)

from pathlib import Path

from gateway.openapi.document import document
from gateway.schemas.openai import parse_completion
from gateway.schemas.vision import parse_vision
from gateway.triton.backend import GenerateRequest
from gateway.triton.tensors import tensors_of
from glmserve.contract import render_config
from glmserve.engine.runtime.sampling import Draw, sampler_inputs
from glmserve.engine.triton.tensors import read_request
from glmserve.errors import InvalidInput
from glmserve.model.config import Checkpoint

vision, chat = {"image": "x", "prompt": "?"}, {"messages": [{"role": "user", "content": "?"}]}
in_vision = lambda **more: parse_vision(json.dumps(vision | more).encode()).conversation.sampling
in_chat = lambda **more: parse_completion(json.dumps(chat | more).encode(), False).conversation.sampling
checkpoint = Checkpoint.read(Path("demo/checkpoint"))


def sent(sampling):
    request = GenerateRequest("x", np.ones(1, np.int64), None, (), sampling, 1.0)
    return {tensor.name: array for tensor, array in tensors_of(request)}


def refusal_of(call):
    try:
        call()
    except InvalidInput as error:
        return [error.message, error.field]


schemas = document("m", False, ())["components"]["schemas"]
asked = in_vision(warmth=3)
print(json.dumps({
    "documented": [schemas[body]["properties"]["warmth"] for body in ("VisionBody", "CompletionBody")],
    "aliases": ["heat" in schemas["VisionBody"]["properties"], "warmness" in schemas["CompletionBody"]["properties"]],
    "asked": [asked.warmth, in_vision(heat=3).warmth, in_chat(warmness=3).warmth],
    "absent": [in_vision().warmth, in_chat(warmth=None).warmth],
    "refused": refusal_of(lambda: in_chat(warmth=5)),
    "config": [line for line in render_config("glm4v").splitlines() if "WARMTH" in line],
    "sent": [sent(asked)["WARMTH"].tolist(), str(sent(asked)["WARMTH"].dtype), "WARMTH" in sent(module.Sampling())],
    "engine": [read_request(sent(s), checkpoint).sampling.warmth for s in (asked, module.Sampling())],
    "engine_refuses": refusal_of(lambda: read_request(sent(module.Sampling(warmth=4.5)), checkpoint)),
    "graph": sampler_inputs([Draw(asked), Draw(module.Sampling(temperature=1))], 8, 100).by_input()["warmth"].tolist(),
}))
"""


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """What a process saw whose table has one entry more."""

    source = Path(sampling_parameters.__file__).read_text("utf-8")
    assert source.count("    stop_token_ids: tuple") == 1
    table = tmp_path_factory.mktemp("table") / "sampling_parameters.py"
    table.write_text(source.replace("    stop_token_ids: tuple", _ENTRY), "utf-8")
    told = subprocess.run(
        [sys.executable, "-c", _PROGRAM, str(table)], cwd=ROOT, check=True, capture_output=True, text=True, timeout=60
    )
    return dict(json.loads(told.stdout))


def test_a_new_parameter_is_a_documented_field_of_both_routes(found: dict[str, object]) -> None:
    described = {
        "anyOf": [{"type": "number", "minimum": 0.5, "maximum": 4}, {"type": "null"}],
        "description": "Made up by a test. It must be a number from 0.5 to 4.",
        "default": 2.5,
    }
    assert found["documented"] == [described, described] and found["aliases"] == [True, True]


def test_a_new_parameter_is_read_from_requests(found: dict[str, object]) -> None:
    assert found["asked"] == [3, 3, 3] and found["absent"] == [2.5, 2.5]
    assert found["refused"] == ["The field warmth must be a number from 0.5 to 4.", "warmth"]


def test_a_new_parameter_travels_as_a_tensor_where_it_differs_from_its_default(found: dict[str, object]) -> None:
    assert found["config"] == ['  { name: "WARMTH" data_type: TYPE_FP32 dims: [ 1 ] optional: true },']
    assert found["sent"] == [[3.0], "float32", False]


def test_a_new_parameter_reaches_the_engine_and_the_graph(found: dict[str, object]) -> None:
    assert found["engine"] == [3.0, 1.5]
    assert found["engine_refuses"] == ["The field warmth must be a number from 0.5 to 4.", "warmth"]
    assert found["graph"] == [[3.0], [1.5]]


def test_every_field_of_sampling_but_the_lists_is_in_the_table() -> None:
    assert [field.name for field in fields(Sampling)] == [*(entry.name for entry in PARAMETERS), *LISTS]


@pytest.mark.parametrize("entry", PARAMETERS, ids=lambda entry: entry.name)
def test_an_entry_is_consistent(entry: sampling_parameters.Parameter) -> None:
    assert entry.minimum <= entry.default <= entry.maximum and entry.meaning.endswith(".")
    assert entry.minimum <= entry.requested(None) <= entry.maximum and entry.requested(entry.maximum) == entry.maximum
    assert entry.tensor_name in {tensor.name for tensor in DECODER_INPUTS}
    assert entry.name in AnswerFields.model_fields
    assert set(entry.vision_aliases) <= set(VisionBody.model_fields)
    assert set(entry.openai_aliases) <= set(CompletionBody.model_fields)


def test_the_graph_takes_four_values_a_row() -> None:
    assert [entry.name for entry in GRAPH_PARAMETERS] == ["temperature", "top_p", "top_k", "min_p"]
