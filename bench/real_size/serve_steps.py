"""The steps that serve: `make serve` with its default settings is asked every kind of question, and then once more with
the deadline that a slow machine needs."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx_ir as ir
import typer

from bench.ports import free_port
from bench.real_size.meter import bandwidth_bytes_per_s
from bench.real_size.questions import Question, ask, questions
from bench.real_size.scene import Scene, StepFailed
from bench.records import Row, rounded
from bench.servers.processes import HOST
from export.store.build_store import write_whole
from glmserve.build.certificate import REQUIRE_VARIABLE, Certificate
from glmserve.build.manifest import CHECKPOINT_FOLDER, Manifest, decoder_in
from glmserve.model.tokenizer import Tokenizer
from glmserve.system.cpu_count import cores
from launcher import cli
from launcher.children import Child
from launcher.probe import get

PATIENT_S = 1800
"""The deadline of the second service."""
_READY_S = 3600.0
_STOP_S = 60.0
_PROBE_S = 30.0
_POLL_S = 0.5
_MEANWHILE_S = 0.5
_EMBEDDED = "embed.words"
_PROJECT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Served:
    """A service that is ready, and how long that took."""

    url: str
    ready_s: float


def serve(scene: Scene) -> Row:
    """`make serve` with its default settings, its ports aside; serves a build that was not verified with a warning."""
    return _asked(scene, "serve", {})


def serve_patiently(scene: Scene) -> Row:
    """The same with a deadline of half an hour, to see how long answers take."""
    return _asked(scene, "serve-patiently", {"GLM_GATEWAY_DEADLINE_S": str(PATIENT_S)})


def _asked(scene: Scene, step: str, settings: dict[str, str]) -> Row:
    kept = scene.folder / "answers" / f"{step}.jsonl"
    if scene.is_done(step):
        kept.unlink(missing_ok=True)
    kept.parent.mkdir(exist_ok=True)
    answers = kept_answers(kept)
    threads = scene.threads()
    floor = {
        "weights_bytes": step_bytes(decoder_in(scene.build)),
        "threads": threads,
        "bandwidth_bytes_per_s": rounded(bandwidth_bytes_per_s(threads)),
        "bandwidth_all_cores_bytes_per_s": rounded(bandwidth_bytes_per_s(cores())),
    }
    tokenizer = Tokenizer.read(scene.build / CHECKPOINT_FOLDER)
    is_verified = Certificate.vouches(scene.build, Manifest.read(scene.build))
    if not is_verified:
        settings = settings | {REQUIRE_VARIABLE: "false"}
    found: Row = {"settings": settings, "is_verified": is_verified, **floor}
    with _service(scene, step, settings) as served, kept.open("a", encoding="utf-8") as file:
        scene.say(f"{step}: ready after {served.ready_s:.0f} s")
        found["ready_s"] = rounded(served.ready_s)
        for question in questions(tokenizer):
            if any(answer["question"] == question.name for answer in answers):
                continue  # asked before this run was killed
            for row in answers_to(served.url, question):
                answers.append(row)
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
                file.flush()
                scene.say(f"{step}: {row}")
            scene.keep_so_far(step, found | told(answers) | {"is_cut": True})
    return found | told(answers)


def kept_answers(file: Path) -> list[Row]:
    """The answers of a run that was ended; a last one that was only half written is cut off, and so asked again."""
    *lines, half = file.read_text("utf-8", "replace").split("\n") if file.is_file() else [""]
    if half:
        write_whole(file, "".join(f"{line}\n" for line in lines))
    return [json.loads(line) for line in lines]


def told(answers: list[Row]) -> Row:
    """The answers, and the questions of those that did not end as promised."""
    return {"answers": answers, "broken": [answer["question"] for answer in answers if not answer["is_promised"]]}


def step_bytes(graph: Path) -> int:
    """The weights that a decode step reads: all of the graph's but the table of tokens, of which it reads a row."""
    model = ir.load(graph)
    tables = [node.inputs[0] for node in model.graph if node.name == _EMBEDDED]
    held = {
        name: value.const_value for name, value in model.graph.initializers.items() if value.const_value is not None
    }
    looked_up = {value.name for value in tables if value is not None}
    return sum(tensor.nbytes for name, tensor in held.items() if name not in looked_up)


@contextmanager
def _service(scene: Scene, step: str, settings: dict[str, str]) -> Iterator[Served]:
    """`make serve` from start to Ctrl-C; raises StepFailed where it ends before it is ready."""
    port, *triton = (free_port() for _ in range(4))
    names = ("TRITON_HTTP_PORT", "TRITON_GRPC_PORT", "TRITON_METRICS_PORT")
    ports = [f"PORT={port}", *(f"{name}={number}" for name, number in zip(names, triton, strict=True))]
    command = ["make", "serve", f"BUILD={scene.build}", *ports]
    log, began_s = scene.log(step), time.monotonic()
    with log.open("ab") as output:
        child = Child(step, command, serving_environment(scene) | settings, _PROJECT, output)
        try:
            _wait_until_ready(child, port, log, began_s)
            yield Served(f"http://{HOST}:{port}", time.monotonic() - began_s)
        finally:
            _end(child)


def serving_environment(scene: Scene) -> dict[str, str]:
    """The scene's without what make handed to us: `make serve` would read the PRECISION of `make real-size` too."""
    options = {option.envvar for option in typer.main.get_command(cli.app).params}
    kept = scene.environment().items()
    return {name: value for name, value in kept if name not in options and not name.startswith("MAKE")}


def _wait_until_ready(child: Child, port: int, log: Path, began_s: float) -> None:
    while (reply := get(HOST, port, "/health/ready", _PROBE_S)) is None or reply.status != 200:
        if child.exit_code() is not None or time.monotonic() - began_s > _READY_S:
            raise StepFailed(f"make serve did not become ready. {log} ends:\n{log.read_text('utf-8')[-3000:]}")
        time.sleep(_POLL_S)


def _end(child: Child) -> None:
    """Ctrl-C, and what is left after a minute is killed."""
    if child.exit_code() is None:
        os.killpg(child.pid, signal.SIGINT)
    give_up_s = time.monotonic() + _STOP_S
    while child.exit_code() is None and time.monotonic() < give_up_s:
        time.sleep(_POLL_S)
    child.stop(_STOP_S)


def answers_to(url: str, question: Question) -> Iterator[Row]:
    """A row for each request; several clients are one row."""
    with ThreadPoolExecutor(question.at_once, thread_name_prefix="client") as pool:
        load = rounded(os.getloadavg()[0])
        began_s = time.monotonic()
        asked = [pool.submit(ask, url, question) for _ in range(question.at_once)]
        meanwhile: dict[str, Any] | None = None
        if question.meanwhile is not None:
            time.sleep(question.leave_after_s or _MEANWHILE_S)
            meanwhile = ask(url, question.meanwhile).row(question.meanwhile.name)
        endings = [each.result() for each in asked]
        passed_s = time.monotonic() - began_s
    rows = [ending.row(question.name) for ending in endings]
    slowest = max(rows, key=lambda row: (not row["is_promised"], row["seconds"]))
    if question.at_once > 1:
        first = max((row["first_token_s"] or 0.0 for row in rows), default=0.0)
        together = sum(row["tokens"] for row in rows)
        slowest |= {"tokens": together, "tokens_per_s": rounded(together / passed_s), "first_token_s": first or None}
        slowest["how"] = ", ".join(sorted({row["how"] for row in rows}))
    yield {**slowest, "load": [load, rounded(os.getloadavg()[0])]}
    if meanwhile is not None:
        name = f"{question.name} {meanwhile['question']}"
        yield {**meanwhile, "question": name, "load": [load, rounded(os.getloadavg()[0])]}
