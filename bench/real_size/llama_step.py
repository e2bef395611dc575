"""llama.cpp's server on the same weights, compiled for this machine: what a user would run here instead."""

from __future__ import annotations

import subprocess
from pathlib import Path

from bench.peers import environment
from bench.peers.gguf_files import GgufFiles, GgufType, converted
from bench.peers.servers import llama_native
from bench.real_size.export_steps import written_checkpoint
from bench.real_size.meter import used_bytes
from bench.real_size.questions import CLIENTS, questions
from bench.real_size.scene import Scene, StepFailed
from bench.real_size.serve_steps import answers_to, told
from bench.records import Row, rounded
from bench.servers.processes import NotStarted
from export.precision import Precision
from glmserve.build.manifest import CHECKPOINT_FOLDER
from glmserve.model.tokenizer import Tokenizer

_CONTEXT_TOKENS = 8192
_TYPES = {Precision.INT4.value: GgufType.Q4_0}
"""Its counterpart of a precision; of all others Q8_0."""


def llama(scene: Scene) -> Row:
    """Converts the checkpoint with llama.cpp's own programs, starts its server with as many threads as the engine
    has, and asks the questions of `serve` that both take."""
    for program in (environment.LLAMA_NATIVE, environment.LLAMA_QUANTIZE):
        if not program.is_file():
            raise StepFailed(
                f"{program} is missing: where a C++ compiler is, remove {environment.FOLDER}, and "
                f"`make {environment.FOLDER.name}/.installed` compiles llama.cpp there."
            )
    precision = str(scene.found("build")["precision"])
    kind = _TYPES.get(precision, GgufType.Q8_0)
    tokenizer, threads = Tokenizer.read(scene.build / CHECKPOINT_FOLDER), scene.threads()
    try:
        files = converted(Path(written_checkpoint(scene)), scene.gguf / kind, kind)
        asked = _asked(scene, files, threads, tokenizer)
    except (RuntimeError, NotStarted, subprocess.TimeoutExpired) as error:
        raise StepFailed(str(error)) from None
    server_name = f"{environment.llama_native_name()}, {kind.upper()}"
    weights = used_bytes(scene.gguf / kind)
    return {"server": server_name, "precision": precision, "threads": threads, "weights_bytes": weights} | asked


def _asked(scene: Scene, files: GgufFiles, threads: int, tokenizer: Tokenizer) -> Row:
    """How long the server took to be ready, and its answers."""
    answers = list[Row]()
    with llama_native(files, threads, CLIENTS, _CONTEXT_TOKENS) as server:
        scene.say(f"llama: ready after {server.start_s:.0f} s")
        for question in questions(tokenizer):
            for row in answers_to(server.url, question) if question.is_compared else ():
                answers.append(row)
                scene.say(f"llama: {row}")
    return {"ready_s": rounded(server.start_s)} | told(answers)
