"""What a run of `make real-size` finds in its folders: each fault is a sentence, and nothing of others is lost."""

from __future__ import annotations

import errno
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from scenes import done, planned_in_fp32, scene_in, with_checkpoint, written

from bench import records
from bench.checkpoints.synthetic import size_like, write_configuration
from bench.real_size import export_steps
from bench.real_size.scene import TINY, StepFailed
from bench.real_size.serve_steps import kept_answers
from export.store import build_store
from glmserve.build.manifest import CHECKPOINT_FOLDER
from glmserve.model.config import Checkpoint

ROOT = Path(__file__).resolve().parents[2]


def test_a_folder_serves_one_model(tmp_path: Path) -> None:
    with_checkpoint(scene_in(tmp_path, layers=1))
    scene_in(tmp_path, layers=1).check([])
    scene_in(tmp_path).check(["checkpoint"])
    for steps in ([], ["build"]):
        with pytest.raises(StepFailed, match=r"1 text layers.*ask for 2 text layers.*SCRATCH=.*STEPS=checkpoint"):
            scene_in(tmp_path).check(steps)


def test_a_checkpoint_that_does_not_fit_is_not_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage._replace(free=1_000_000))
    with pytest.raises(StepFailed, match=r"takes 0\.0 GB in .*where 0\.0 GB are free: make room.*LAYERS="):
        scene_in(tmp_path).check([])
    written(scene_in(tmp_path))
    scene_in(tmp_path).check([])


def test_room_is_looked_for_only_where_a_checkpoint_will_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage._replace(free=0))
    scene = scene_in(tmp_path)
    written(scene)
    scene.check([])
    shutil.rmtree(scene.checkpoint)  # as `clean` leaves it
    scene.check([])
    with pytest.raises(StepFailed, match="make room"):
        scene.check(["checkpoint"])
    with pytest.raises(StepFailed, match="STEPS=checkpoint"):
        export_steps.plan(scene)


def test_what_a_killed_run_left_is_room_for_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scene = scene_in(tmp_path)
    usage, needed = shutil.disk_usage(tmp_path), size_like(scene.configuration())
    scene.partial.mkdir()
    (scene.partial / "model.safetensors").write_bytes(bytes(needed))
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage._replace(free=0))
    scene.check([])


def test_a_cleaned_run_still_is_of_its_model(tmp_path: Path) -> None:
    scene = scene_in(tmp_path, layers=1)
    kept = tmp_path / "builds" / "a-build" / CHECKPOINT_FOLDER
    kept.mkdir(parents=True)
    shutil.copyfile(scene.configuration() / "config.json", kept / "config.json")
    done(done(scene, "checkpoint"), "build", build=str(kept.parent))
    scene.check([])
    with pytest.raises(StepFailed, match=r"1 text layers.*ask for 2 text layers"):
        scene_in(tmp_path).check([])


@pytest.mark.parametrize("name", ["model", "checkpoint", ".partial-checkpoint", ".llama-gguf"])
@pytest.mark.parametrize("layers", [None, 1])
def test_no_run_removes_the_model_that_it_was_given(tmp_path: Path, name: str, layers: int | None) -> None:
    model = write_configuration(TINY, tmp_path / name)
    with pytest.raises(StepFailed, match=r"MODEL=.* lies where a run .*SCRATCH="):
        scene_in(tmp_path, model=model, layers=layers).check([])
    assert (model / "config.json").is_file()


@pytest.mark.parametrize("name", ["model", "checkpoint", ".partial-checkpoint", ".llama-gguf"])
def test_a_folder_of_the_run_that_is_none_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StepFailed, match=f"{name} is no folder of its own: remove it"):
        scene_in(tmp_path).check([])
    (tmp_path / name).unlink()
    (tmp_path / name).touch()
    with pytest.raises(StepFailed, match=f"{name} is no folder of its own: remove it"):
        scene_in(tmp_path).check([])


@pytest.mark.parametrize("layers", [None, 1])
@pytest.mark.parametrize("config", ["{", "[]", "{}", '{"architectures": ["Glm4vForConditionalGeneration"]}', "\xff"])
def test_a_broken_configuration_is_a_sentence(tmp_path: Path, config: str, layers: int | None) -> None:
    model = write_configuration(TINY, tmp_path / "given")
    (model / "config.json").write_text(config, "latin-1")
    with pytest.raises(StepFailed, match=r"MODEL=.*config\.json"):
        scene_in(tmp_path / "scratch", model=model, layers=layers).check([])


@pytest.mark.parametrize("config", [None, "{", "[]", "{}"])
def test_a_broken_checkpoint_is_no_traceback(tmp_path: Path, config: str | None) -> None:
    scene = scene_in(tmp_path)
    scene.checkpoint.mkdir()
    if config is not None:
        (scene.checkpoint / "config.json").write_text(config, "utf-8")
    with pytest.raises(StepFailed, match=r"SCRATCH=.*STEPS=checkpoint"):
        scene.check(["plan"])
    scene.check(["checkpoint"])


def test_a_model_of_the_first_releases_is_cut_too(tmp_path: Path) -> None:
    model = write_configuration(TINY, tmp_path / "given")
    config = json.loads((model / "config.json").read_text("utf-8"))
    (model / "config.json").write_text(json.dumps(config.pop("text_config") | config), "utf-8")
    cut = scene_in(tmp_path / "scratch", model=model, layers=1).configuration()
    assert Checkpoint.read(cut).text.layers == 1


@pytest.mark.parametrize(("name", "most"), [("layers", 2), ("blocks", 1)])
def test_a_model_is_cut_to_no_more_than_it_has(tmp_path: Path, name: str, most: int) -> None:
    scene_in(tmp_path, **{name: most}).check([])
    with pytest.raises(StepFailed, match=f"{name.upper()}={most + 1} is more than the model has: take 1 to {most}"):
        scene_in(tmp_path, **{name: most + 1}).check([])


def test_a_half_written_answer_is_asked_again(tmp_path: Path) -> None:
    file = tmp_path / "serve.jsonl"
    assert kept_answers(file) == []
    file.write_bytes('{"question": "a\u2028"}\n{"question": "图'.encode()[:-1])
    assert kept_answers(file) == [{"question": "a\u2028"}]
    assert file.read_text("utf-8") == '{"question": "a\u2028"}\n'


def test_a_full_disk_leaves_no_step_half_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_descriptor: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(records, "_run", lambda _command: {})
    monkeypatch.setattr(build_store, "sync", full)
    with pytest.raises(OSError, match="No space"):
        scene_in(tmp_path).keep("plan", {})
    assert not scene_in(tmp_path).is_done("plan")


@pytest.mark.parametrize("kept", ["", "[]", "{}", "[1]"])
def test_what_a_step_kept_may_be_broken(tmp_path: Path, kept: str) -> None:
    scene = planned_in_fp32(tmp_path)
    (tmp_path / "steps" / "plan.json").write_text(kept, "utf-8")
    with pytest.raises(StepFailed, match=r"plan.json is broken: .*STEPS=plan"):
        scene.check([])
    scene.check(["plan"])


def test_what_a_run_cannot_do_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "logs").touch()
    command = [sys.executable, "-m", "bench.real_size", "--scratch", str(tmp_path), "--steps", "checkpoint"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
    *_progress, said = done.stderr.splitlines()
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert said == f"{tmp_path / 'logs'} cannot be read or written: File exists."
