"""Every chat route takes videos by the names that its clients have for them, and sends the engine the same."""

from __future__ import annotations

import base64
import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_backend import FakeBackend
from flask.testing import FlaskClient
from PIL import Image
from samples import OPENAI_URL, URL, assert_problem, base64_of
from video_files import animated_webp, decoded, scene, video

import gateway.chat.service
from gateway.app import create_app
from gateway.chat.sent_files import file_hash
from gateway.resources import AUDIT
from gateway.settings import GatewaySettings
from glmserve.build.manifest import CHECKPOINT_FOLDER
from glmserve.model.bicubic import resized
from glmserve.model.config import Checkpoint
from glmserve.model.tokenizer import Tokenizer
from glmserve.model.video_frames import moment_patches, video_size
from glmserve.model.video_sampling import VideoFacts, sampled_frames

pytestmark = pytest.mark.process
FILE = video(frames=20)
PACKED = base64.b64encode(FILE).decode()
DATA_URL = f"data:video/mp4;base64,{PACKED}"
FRAMES = [base64_of(Image.fromarray(scene(number))) for number in range(5)]


def _expected(build: Any, frames: list[np.ndarray]) -> np.ndarray:
    rules = Checkpoint.read(build / CHECKPOINT_FOLDER).videos
    size = video_size(len(frames), *frames[0].shape[:2], rules)
    patches, _ = moment_patches([resized(frame.transpose(2, 0, 1), *size) for frame in frames], rules)
    return np.concatenate(patches)


def _of_file(build: Any) -> np.ndarray:
    frames = decoded(FILE)
    return _expected(build, [frames[number] for number in sampled_frames(VideoFacts(20, 10.0))])


def _chat(client: FlaskClient, *parts: Any, **options: Any) -> Any:
    messages = [{"role": "user", "content": [*parts, {"type": "text", "text": "What happens?"}]}]
    return client.post(OPENAI_URL, json={"messages": messages, **options})


PARTS = {
    "an object": {"type": "video_url", "video_url": {"url": DATA_URL}},
    "a string": {"type": "video_url", "video_url": DATA_URL},
    "base64": {"type": "video_url", "video_url": {"url": PACKED}},
    "without a type": {"video_url": {"url": DATA_URL}},
    "of the Responses API": {"type": "input_video", "video_url": DATA_URL},
    "as templates name it": {"type": "video", "video": DATA_URL},
}


@pytest.mark.parametrize("name", PARTS)
def test_a_part_is_a_video(client: FlaskClient, backend: FakeBackend, build: Any, name: str) -> None:
    response = _chat(client, PARTS[name])
    assert response.status_code == 200, response.text
    (request,) = backend.requests
    np.testing.assert_array_equal(request.patches, _of_file(build))
    told = response.get_json()["videos"][0]
    assert len(told["seconds"]) == 12 and told["seconds"][:3] == [0, 0.2, 0.4]
    assert told["image_tokens"] == response.get_json()["usage"]["prompt_tokens_details"]["image_tokens"]


def test_a_stream_begins_with_the_frames_that_are_seen(client: FlaskClient) -> None:
    lines = _chat(client, PARTS["an object"], stream=True).text.splitlines()
    first = json.loads(lines[0].removeprefix("data: "))
    assert len(first["videos"][0]["seconds"]) == 12


def _json(client: FlaskClient) -> Any:
    return client.post(URL, json={"video": PACKED, "prompt": "What happens?"})


def _form(client: FlaskClient) -> Any:
    return client.post(URL, data={"video": (io.BytesIO(FILE), "film.mp4"), "prompt": "What happens?"})


def _text_of_form(client: FlaskClient) -> Any:
    return client.post(URL, data={"video": DATA_URL, "prompt": "What happens?"})


def _blocks(client: FlaskClient) -> Any:
    source = {"type": "base64", "media_type": "video/mp4", "data": PACKED}
    content = [{"type": "video", "source": source}, {"type": "text", "text": "What happens?"}]
    return client.post("/v1/messages", json={"max_tokens": 9, "messages": [{"role": "user", "content": content}]})


def _items(client: FlaskClient) -> Any:
    content = [{"type": "input_video", "video_url": DATA_URL}, {"type": "input_text", "text": "What happens?"}]
    return client.post("/v1/responses", json={"input": [{"role": "user", "content": content}]})


@pytest.mark.parametrize("ask", [_json, _form, _text_of_form, _blocks, _items])
def test_every_route_sends_the_same(client: FlaskClient, backend: FakeBackend, build: Any, ask: Any) -> None:
    response = ask(client)
    assert response.status_code == 200, response.text
    np.testing.assert_array_equal(backend.requests[0].patches, _of_file(build))


def test_the_vision_route_keeps_its_answer(client: FlaskClient) -> None:
    body = _json(client).get_json()
    assert body["result"] == "A red circle." and body["success"] is True and body["model"]
    assert body["usage"]["image_tokens"] == body["videos"][0]["image_tokens"] > 0


def test_the_prompt_holds_an_image_and_a_time_for_each_two_frames(
    client: FlaskClient, backend: FakeBackend, build: Any
) -> None:
    _chat(client, PARTS["an object"])
    text = Tokenizer.read(build / CHECKPOINT_FOLDER).decode(backend.requests[0].input_ids.tolist())
    for second in ("0.0", "0.4", "1.7"):
        assert f"<|end_of_image|>{second} seconds" in text
    assert text.count("<|begin_of_image|>") == 6 and text.count("<|begin_of_video|>") == 1


LISTS = {
    "frames with times": {"type": "video", "frames": FRAMES, "timestamps": [0, 0.5, 1, 2, 3.5]},
    "as other processors take them": {"type": "video", "video": FRAMES, "fps": 2},
    "objects": {"type": "video_url", "video_url": {"frames": [{"url": frame} for frame in FRAMES]}},
    "without a type": {"frames": FRAMES},
    "JPEGs in a row": {
        "type": "video_url",
        "video_url": {"url": "data:video/jpeg;base64," + ",".join(FRAMES)},
    },
}


@pytest.mark.parametrize("name", LISTS)
def test_a_list_of_frames_is_seen_whole(client: FlaskClient, backend: FakeBackend, build: Any, name: str) -> None:
    response = _chat(client, LISTS[name])
    assert response.status_code == 200, response.text
    np.testing.assert_array_equal(backend.requests[0].patches, _expected(build, [scene(n) for n in range(5)]))
    seconds = {"frames with times": [0, 0.5, 1, 2, 3.5], "as other processors take them": [0, 0.5, 1, 1.5, 2]}
    told = response.get_json()["videos"][0]["seconds"]
    assert told == seconds.get(name, [round(n / 24, 3) for n in range(5)])


def test_one_frame_is_a_video_too(client: FlaskClient, backend: FakeBackend) -> None:
    assert _chat(client, {"type": "video", "frames": FRAMES[:1]}).status_code == 200
    (grid,) = backend.requests[0].grids
    assert grid.frames == 1 and len(backend.requests[0].patches) == grid.patches  # two equal frames are sent once


@pytest.mark.parametrize(
    "asked",
    [
        {"type": "video_url", "video_url": {"url": DATA_URL, "num_frames": 4}},
        {"type": "video_url", "video_url": DATA_URL, "fps": 2},
        {"type": "video_url", "video_url": DATA_URL, "num_frames": 4},
    ],
)
def test_a_part_says_how_many_frames_are_seen(client: FlaskClient, asked: Any) -> None:
    assert len(_chat(client, asked).get_json()["videos"][0]["seconds"]) == 4


@pytest.mark.parametrize(
    "options",
    [
        {"mm_processor_kwargs": {"fps": 2}},
        {"media_io_kwargs": {"video": {"num_frames": 4}}},
        {"mm_processor_kwargs": {"num_frames": 4}},
    ],
)
def test_a_request_says_so_for_all_its_videos(client: FlaskClient, options: Any) -> None:
    told = _chat(client, PARTS["an object"], PARTS["a string"], **options).get_json()["videos"]
    assert [len(each["seconds"]) for each in told] == [4, 4]


def test_pictures_and_videos_keep_their_order(client: FlaskClient, backend: FakeBackend) -> None:
    picture = {"type": "image_url", "image_url": base64_of(Image.new("RGB", (64, 64), "red"))}
    body = _chat(client, picture, LISTS["frames with times"], picture).get_json()
    frames = [grid.frames for grid in backend.requests[0].grids]
    assert frames == [1, 2, 2, 1, 1] and len(body["videos"]) == 1


def test_an_animated_picture_is_a_video_where_one_is_asked_for(client: FlaskClient) -> None:
    packed = base64.b64encode(animated_webp(12)).decode()
    assert len(_chat(client, {"type": "video", "video": packed}).get_json()["videos"][0]["seconds"]) == 8


def test_its_tokens_are_counted_before_it_is_asked(client: FlaskClient) -> None:
    content = [PARTS["an object"], {"type": "text", "text": "What happens?"}]
    counted = client.post("/v1/tokenize", json={"messages": [{"role": "user", "content": content}]}).get_json()
    answered = _chat(client, PARTS["an object"]).get_json()
    assert counted["count"] == answered["usage"]["prompt_tokens"]


MISTAKES = {
    "no video": ({"type": "video_url"}, "video_url"),
    "no base64": ({"type": "video_url", "video_url": "data:video/mp4;base64,%%%"}, "base64"),
    "a picture": ({"type": "video_url", "video_url": FRAMES[0]}, "sent as one"),
    "a host": ({"type": "video_url", "video_url": "https://example.com/a.mp4"}, "fetches no videos"),
    "times of a file": ({"type": "video_url", "video_url": {"url": DATA_URL, "timestamps": [0, 1]}}, "timestamps"),
    "too few times": ({"type": "video", "frames": FRAMES, "timestamps": [0, 1]}, "5 frames and 2 timestamps"),
    "times that go back": ({"type": "video", "frames": FRAMES[:2], "timestamps": [1, 0]}, "ascend"),
    "no frames": ({"type": "video", "frames": []}, "frames"),
    "frames of two sizes": (
        {"type": "video", "frames": [FRAMES[0], base64_of(Image.new("RGB", (30, 30)))]},
        "one size",
    ),
    "a rate and a number": ({"type": "video", "video": DATA_URL, "fps": 1, "num_frames": 2}, "fps and num_frames"),
    "a rate near nothing": ({"type": "video", "frames": FRAMES, "fps": 1e-308}, "at least 0.001"),
    "a time beyond all films": ({"type": "video", "frames": FRAMES[:1], "timestamps": [1e300]}, "at most 1000000000"),
    "a film as an image": ({"type": "image_url", "image_url": {"url": DATA_URL}}, "sent as a video"),
    "a rate of nothing": ({"type": "video", "video": DATA_URL, "fps": 0}, "fps"),
    "two videos in one part": ({"type": "video", "video": DATA_URL, "video_url": DATA_URL}, "one of them"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_named(client: FlaskClient, name: str) -> None:
    part, words = MISTAKES[name]
    response = _chat(client, part)
    assert_problem(response, 400, words)
    assert response.get_json()["error"]["param"].startswith("messages[0].content[0]")


def test_a_video_that_the_template_leaves_out_is_told_where_to_go(
    build: Path, backend: FakeBackend, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(build, tmp_path / "build"))
    template = folder / CHECKPOINT_FOLDER / "chat_template.jinja"
    template.write_text(template.read_text("utf-8").replace("{{- film -}}", ""), "utf-8")
    client = create_app(GatewaySettings(build=folder), backend).test_client()
    call = {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    messages = [
        {"role": "user", "content": "?"},
        {"role": "assistant", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "a", "content": [PARTS["an object"]]},
    ]
    assert_problem(client.post(OPENAI_URL, json={"messages": messages}), 400, "send them as user")


def test_too_many_videos_are_refused(client: FlaskClient) -> None:
    assert_problem(_chat(client, *[{"type": "video", "frames": FRAMES[:1]}] * 5), 400, "at most 4 videos")


def test_frames_that_do_not_fit_are_made_smaller(client: FlaskClient, backend: FakeBackend) -> None:
    large = base64.b64encode(video(width=320, height=240, frames=60)).decode()
    response = client.post(URL, json={"video": large, "prompt": "?", "max_tokens": 100})
    assert response.status_code == 200, response.text
    told = response.get_json()["videos"][0]
    assert told["width"] < 320 and len(told["seconds"]) == 36
    assert len(backend.requests[0].input_ids) + 100 <= 4096


@pytest.mark.parametrize(("width", "height"), [(320, 180), (180, 320), (322, 28)])
def test_no_frame_has_a_longer_side_than_an_image_may_have(
    settings: GatewaySettings, backend: FakeBackend, width: int, height: int
) -> None:
    app = create_app(settings.model_copy(update={"max_image_side": 200}), backend).test_client()
    wide = base64.b64encode(video(width=width, height=height, frames=4)).decode()
    response = app.post(URL, json={"video": wide, "prompt": "?"})
    assert response.status_code == 200, response.text
    told = response.get_json()["videos"][0]
    longer, shorter = max(told["width"], told["height"]), min(told["width"], told["height"])
    assert 200 - 28 < longer <= 200, told
    assert shorter <= max(28, 200 / max(width, height) * min(width, height))


def test_a_frame_with_a_longer_side_may_be_refused_instead(settings: GatewaySettings, backend: FakeBackend) -> None:
    strict = {"max_image_side": 200, "large_videos": "refuse"}
    app = create_app(settings.model_copy(update=strict), backend).test_client()
    response = app.post(URL, json={"video": base64.b64encode(video(width=320, height=180)).decode(), "prompt": "?"})
    assert_problem(response, 400, "longer side may have at most 200")


@pytest.mark.parametrize("has_audit_log", [True, False])
def test_a_video_is_hashed_once(
    settings: GatewaySettings,
    backend: FakeBackend,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    has_audit_log: bool,
) -> None:
    """For the audit log and for the cache of frames: a large file takes a tenth of a second."""
    hashed: list[bytes] = []
    monkeypatch.setattr(gateway.chat.service, "file_hash", lambda data: (hashed.append(data), file_hash(data))[1])
    changed = {"audit_file": tmp_path / "audit"} if has_audit_log else {}
    app = create_app(settings.model_copy(update=changed), backend)
    response = app.test_client().post(URL, json={"video": DATA_URL, "prompt": "?"})
    assert response.status_code == 200 and hashed == [FILE]
    if has_audit_log:
        app.extensions[AUDIT].close()
        assert file_hash(FILE) in (tmp_path / "audit").read_text("utf-8")
