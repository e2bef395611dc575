"""`make real-size` runs here with a tiny model: every step, what it keeps, and which endings are as promised."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from eventually import eventually
from scenes import done, planned_in_fp32, scene_in, with_checkpoint

from bench import records
from bench.checkpoints.synthetic import write_configuration
from bench.real_size import export_steps, page
from bench.real_size.meter import used_bytes
from bench.real_size.questions import Ending, questions
from bench.real_size.scene import TINY, Scene, StepFailed
from bench.real_size.serve_steps import serving_environment
from bench.usage import words_of
from glmserve.model.tokenizer import Tokenizer
from launcher.supervision.vital_signs import children_of

ROOT = Path(__file__).resolve().parents[2]
DEMO = ROOT / "demo" / "checkpoint"
HELPS = "What helps: a longer X-Request-Timeout, of up to 30 seconds."
EXPORT_STEPS = ("checkpoint", "plan", "build", "verify", "publish")
REHEARSED_S = 600  # with the rehearsal itself, which the first of its tests waits for


@pytest.mark.parametrize(
    ("ending", "is_promised"),
    [
        (Ending(status=200, finish="stop", is_whole=True), True),
        (Ending(status=200, finish="length", is_whole=True), True),
        (Ending(finish="left"), True),
        (Ending(status=503, code="overloaded", retry_after="3"), True),
        (Ending(status=429, code="rate_limit_exceeded", retry_after="3"), True),
        (Ending(status=504, code="timeout", sentence=HELPS), True),
        (Ending(status=200, code="timeout", sentence=HELPS), True),
        (Ending(status=200, finish="stop", is_whole=False), False),
        (Ending(status=503, code="overloaded"), False),
        (Ending(status=504, code="timeout", sentence="Too late."), False),
        (Ending(status=500, code="internal_error", sentence=HELPS), False),
        (Ending(status=200, code="internal_error", sentence="A fault of the service."), False),
        (Ending(sentence="ConnectionResetError()"), False),
    ],
)
def test_an_ending_is_promised_or_a_fault(ending: Ending, is_promised: bool) -> None:
    row = ending.row("a question")
    assert row["is_promised"] is is_promised and row["how"]


@pytest.mark.slow
def test_every_kind_of_question_is_asked_once() -> None:
    asked = list(questions(Tokenizer.read(DEMO)))
    names = [question.name for question in asked]
    assert len(names) == len(set(names))
    for kind in ("text", "Chinese", "JSON", "4 clients", "640x480", "1920x1080", "4000x3000", "follow-up", "6,000"):
        assert any(kind in name for name in names), kind
    assert [question.name for question in asked if question.leave_after_s] == [
        "6,000 tokens, cancelled in prefill, and"
    ]


def test_a_cut_model_keeps_the_widths_and_has_fewer_layers(tmp_path: Path) -> None:
    model = write_configuration(TINY, tmp_path / "model")
    cut = scene_in(tmp_path / "scratch", model=model, layers=1, blocks=1).configuration()
    config, whole = (json.loads((folder / "config.json").read_text("utf-8")) for folder in (cut, model))
    assert config["text_config"] == whole["text_config"] | {"num_hidden_layers": 1}
    assert config["vision_config"] == whole["vision_config"] | {"depth": 1}
    assert (cut / "tokenizer.json").read_bytes() == (model / "tokenizer.json").read_bytes()


@pytest.mark.process
@pytest.mark.slow
def test_only_the_whole_model_goes_among_the_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "RESULTS", tmp_path / "results")
    (tmp_path / "results").mkdir()
    scene_in(tmp_path / "rehearsal").keep("plan", {"seconds": 1.0})
    assert not list((tmp_path / "results").iterdir())
    whole = scene_in(tmp_path / "whole", model=DEMO)
    for seconds in (1.0, 2.0):
        whole.keep("plan", {"seconds": seconds})
    whole.keep("build", {"seconds": 3.0})
    kept = {row["step"]: row["seconds"] for row in records.read("real_size")}
    assert kept == {"plan": 2.0, "build": 3.0} and whole.is_done("build") and not whole.is_done("serve")
    whole.keep_so_far("serve", {"answers": [], "is_cut": True})
    assert records.read("real_size")[-1]["is_cut"] and not whole.is_done("serve")


def test_a_step_that_needs_another_names_it(tmp_path: Path) -> None:
    with pytest.raises(StepFailed, match="STEPS=build"):
        _ = scene_in(tmp_path).build


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"precision": "bf16"}, "PRECISION=bf16: "),
        ({"model": ROOT}, "has no config.json, preprocessor_config.json, tokenizer.json, chat_template.jinja"),
        ({"precision": "int8"}, "holds a run in fp32, this one is in int8.*SCRATCH=.*PRECISION=.*STEPS="),
    ],
    ids=["no precision of a processor", "no model", "another precision"],
)
def test_what_would_fail_after_hours_is_said_at_once(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    planned_in_fp32(tmp_path).check([])
    with pytest.raises(StepFailed, match=said):
        scene_in(tmp_path, **changes).check([])


def test_named_steps_may_run_in_another_precision(tmp_path: Path) -> None:
    planned_in_fp32(tmp_path)
    scene_in(tmp_path, precision="int8").check(["build"])


def test_a_folder_that_cannot_be_made_is_named() -> None:
    with pytest.raises(StepFailed, match="SCRATCH=/proc/none cannot be made"), scene_in(Path("/proc/none")).alone():
        pass


def test_two_runs_do_not_work_in_one_folder(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "bench.real_size", "--scratch", str(tmp_path), "--steps", "checkpoint"]
    with scene_in(tmp_path).alone():
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 1 and done.stderr.startswith(f"Another command is at work in {tmp_path} ")
    assert not (tmp_path / "checkpoint").exists()


def test_a_run_that_is_killed_takes_its_program_with_it(tmp_path: Path) -> None:
    """It wrote on beside the next run, which began with removing what it wrote."""
    code = "import sys\nfrom pathlib import Path\nfrom bench.real_size.scene import Scene\n"
    code += "scene = Scene(Path(sys.argv[1]), None, 'fp32', None, None, print)\n"
    code += "scene.run('endless', 'timeit', '-n', '1', '-r', '1', 'import time; time.sleep(600)')"
    run = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], cwd=ROOT)
    try:
        assert eventually(lambda: any("timeit" in words_of(pid) for pid in children_of(run.pid)), 30)
        (child,) = children_of(run.pid)
    finally:
        run.kill()
        run.wait()
    assert eventually(lambda: "timeit" not in words_of(child))


def test_what_make_was_told_does_not_reach_the_service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = ("PRECISION", "CHECKPOINT", "START_TIMEOUT_S", "MAKEFLAGS", "GLM_ENGINE_SLOTS")
    for name in given:
        monkeypatch.setenv(name, "1")
    environment = serving_environment(scene_in(tmp_path))
    assert not environment.keys() & set(given) and environment["PATH"]


@pytest.mark.slow
def test_memory_is_that_of_every_process_below(tmp_path: Path) -> None:
    program = "import subprocess, sys, time\nif len(sys.argv) > 1: held = bytearray(b'x') * 80_000_000; time.sleep(7)\n"
    program += "else: subprocess.run([sys.executable, sys.argv[0], 'child'])\n"
    (tmp_path / "program.py").write_text(program, "utf-8")
    measuring = "import json, subprocess, sys\nfrom bench.real_size.meter import Meter\n"
    measuring += "with Meter() as meter: subprocess.run([sys.executable, sys.argv[1]], check=True)\n"
    measuring += "print(json.dumps(meter.row()))"  # in a process that has started nothing else
    command = [sys.executable, "-c", measuring, str(tmp_path / "program.py")]
    row = json.loads(subprocess.run(command, cwd=ROOT, check=True, capture_output=True).stdout)
    assert row["seconds"] > 6 and len(row["load"]) == 2
    assert 80e6 < row["peak_pss_bytes"] <= row["peak_rss_bytes"] < 400e6


def test_the_page_shows_what_was_foretold_beside_what_was_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(records, "RESULTS", tmp_path)
    assert page.block() == "Not measured yet."
    run = {"command": "make real-size", "date": "2026-01-01", "commit": "abc", "cpu": "A CPU", "cores": 2}
    step = {"precision": "int4", "seconds": 90.0, "load": [0.5, 2.0], "peak_rss_bytes": 2e9, "peak_pss_bytes": 1e9}
    step |= {"disk_bytes": 3e9, "run": run | {"versions": {"python": "3.11"}}}
    speed = {"first_token_s": {"640x480": 20.0}, "tokens_per_s": {"1": 2.0}}
    answer = {"how": "length", "is_promised": True, "seconds": 40.0, "tokens": 24, "load": [1.0, 1.0]}
    photo = answer | {"question": "photo 640x480, streamed", "first_token_s": 30.0, "tokens_per_s": 1.5}
    text = answer | {"question": "text, streamed", "first_token_s": 1.0, "tokens_per_s": 1.6}
    served = {"ready_s": 20.0, "weights_bytes": 5e9, "threads": 1, "bandwidth_bytes_per_s": 10e9}
    served |= {"bandwidth_all_cores_bytes_per_s": 15e9, "answers": [text, photo], "broken": ["JSON schema"]}
    built = {"step": "build", "was_killed": True, "continued": True, "kept_bytes": 3e9, "written_bytes": 7e9}
    built |= {"killed_after_s": 60.0, "resumed_s": 300.0}
    rows: list[dict[str, Any]] = [
        step | {"step": "plan", "new_bytes": 7e9, "build_peak_bytes": 1e9, "speed": speed},
        step | built,
        step | served | {"step": "serve"},
    ]
    (tmp_path / "real_size.json").write_text(json.dumps(rows), "utf-8")
    shown = page.block()
    assert "| first token, photo of 640x480, s | 20 | 30 | 1.50 |" in shown
    assert "| peak memory of the build, GB | 1 | 2 | 2.00 |" in shown
    assert "killed after 60.0 s with 3.00 GB written, went on for 5.0 min" in shown
    assert "memory allows 2.00 tokens a second of one request; 1.60 were generated, 80% of that." in shown
    assert "Ready after 20.0 s. **Not as promised: JSON schema.**" in shown and "cut short" not in shown
    rows[-1] |= {"is_cut": True, "is_verified": False}
    (tmp_path / "real_size.json").write_text(json.dumps(rows), "utf-8")
    shown = page.block()
    theirs = photo | {"first_token_s": 60.0, "tokens_per_s": None}
    peer = {"server": "llama.cpp b1, Q4_0", "threads": 1, "weights_bytes": 6e9, "ready_s": 9.0, "answers": [theirs]}
    rows.append(step | peer | {"step": "llama"})
    (tmp_path / "real_size.json").write_text(json.dumps(rows), "utf-8")
    beside = page.block()
    assert "| photo 640x480, streamed | first token | 30 s | 60 s | 0.50 |" in beside
    assert "| photo 640x480, streamed | tokens/s | 1.5 | – | – |" in beside and "(6.00 GB)" in beside
    assert "cut short" in shown and "without a certificate" in shown and "| `serve` |" not in shown


def test_a_refused_build_is_a_result_and_is_not_published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scene = done(scene_in(tmp_path), "build", build=str(tmp_path / "build"))
    with_checkpoint(scene)
    (tmp_path / "build").mkdir()

    stages = [{"name": f"layer {i}", "worst": 2.1 * i, "tolerance": 0.5, "passed": not i} for i in range(2)]
    certificate = tmp_path / "build" / "certificate.json"

    def refuse(*_arguments: object) -> str:
        certificate.write_text(json.dumps({"stages": stages}), "utf-8")
        raise StepFailed("verify ended with code 8.")

    def break_off(*_arguments: object) -> str:
        raise StepFailed("verify ended with code 8.")

    monkeypatch.setattr(Scene, "run", refuse)
    assert export_steps.verify(scene) == {"failed": [stages[1]], "passed_stages": 1}
    assert export_steps.publish(scene) == {"is_left_out": True}
    monkeypatch.setattr(Scene, "run", break_off)
    with pytest.raises(StepFailed, match="code 8"):  # though the run before left a certificate that failed
        export_steps.verify(scene)


@pytest.fixture(scope="module")
def rehearsed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a rehearsal that was killed in its plan, and went on."""
    scratch = tmp_path_factory.mktemp("real-size") / "scratch"
    command = [sys.executable, "-m", "bench.real_size", "--scratch", str(scratch), "--steps"]
    subprocess.run([*command, "checkpoint"], cwd=ROOT, check=True, timeout=250)
    with pytest.raises(subprocess.TimeoutExpired):
        subprocess.run([*command, "plan"], cwd=ROOT, check=True, timeout=2)
    subprocess.run([*command, " ".join(EXPORT_STEPS[1:])], cwd=ROOT, check=True, timeout=280)
    return scratch


@pytest.mark.timeout(REHEARSED_S)
@pytest.mark.parity
@pytest.mark.build
@pytest.mark.slow
def test_a_rehearsal_builds_is_killed_goes_on_and_is_published(rehearsed: Path) -> None:
    scene = scene_in(rehearsed)
    for step in EXPORT_STEPS:
        row = scene.found(step)
        assert row["seconds"] > 0 and row["disk_bytes"] > 0 and row["run"]["cpu"], step
    plan, built = scene.found("plan"), scene.found("build")
    assert built["was_killed"] and built["continued"] and built["kept_bytes"] > 0 and built["resumed_s"] > 0
    assert built["written_bytes"] == pytest.approx(plan["new_bytes"], rel=0.15)
    assert (scene.builds / "current").resolve().samefile(scene.build) and used_bytes(scene.build) > 0


@pytest.mark.timeout(REHEARSED_S)
@pytest.mark.triton
@pytest.mark.slow
def test_a_rehearsal_serves_and_every_answer_ends_as_promised(rehearsed: Path) -> None:
    command = [sys.executable, "-m", "bench.real_size", "--scratch", str(rehearsed), "--steps", "serve"]
    subprocess.run(command, cwd=ROOT, check=True, timeout=280)
    row = scene_in(rehearsed).found("serve")
    assert row["broken"] == [] and len(row["answers"]) >= 13
    assert row["weights_bytes"] > 0 and row["ready_s"] > 0 and row["settings"] == {}
