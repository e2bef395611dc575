"""Makes a grammar on trial, in a process that can be ended: llguidance bounds neither its time nor its memory.

A JSON Schema of 50 bytes (`{"type": "integer", "multipleOf": 999983}`) compiles for minutes. The trial's process reads
the tokenizer once and forks for each answer's rules, so that what they make it do ends with the fork.
"""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from contextlib import suppress
from enum import IntEnum
from pathlib import Path
from threading import Timer
from typing import BinaryIO, NoReturn

from llguidance import LLMatcher, LLParserLimits, LLTokenizer

from glmserve.answer_rules import AnswerRules
from glmserve.engine.grammars.answer_grammar import control_tokens, grammar_of
from glmserve.errors import BadArtifact, GlmServeError, InvalidInput
from glmserve.limits import GRAMMAR_COMPILE_CPU_S, GRAMMAR_COMPILE_MEMORY_BYTES
from glmserve.system.idle_processes import import_path
from glmserve.system.stopped import is_stopped

NICENESS = 10
_WALL_S = 15.0  # for a machine so busy that a niced process gets little of it
_HANGS_AFTER_S = 2 * _WALL_S
_LENGTH_BYTES = 4
_READY = b"R"
_LIMITS = LLParserLimits(
    max_items_in_row=4_100,  # an optional property of an object takes four: 1,000 of them at 6 ms a token
    step_max_items=100_000,
    max_lexer_states=50_000,  # 100 MB for one answer at most
    verbose_errors=False,
)


class Verdict(IntEnum):
    """What became of an answer's rules; also the exit code of their fork."""

    FITS = 0
    UNSUPPORTED = 1
    """They can't be turned into a grammar, or nothing can match them."""
    TOO_COMPLEX = 2
    """They take too long, too much memory, or too many alternatives at once."""
    NO_START = 3
    """Not even the first token can be found."""
    LATE = 4
    """The machine was too busy to find out."""
    REFUSED = 5
    """`grammar_of` refuses them, in words."""


def load_tokenizer(tokenizer: Path, vocabulary: int, eos_token_ids: tuple[int, ...]) -> LLTokenizer:
    """`tokenizer` is a `tokenizer.json`; takes a second or two for a large one. Raises BadArtifact."""
    try:
        return LLTokenizer(str(tokenizer), n_vocab=vocabulary, eos_token=list(eos_token_ids))
    except Exception as error:  # llguidance raises what its tokenizer library does
        raise BadArtifact("tokenizer.json cannot be used for structured answers.") from error


def matcher_of(tokenizer: LLTokenizer, grammar: str) -> LLMatcher:
    """The matcher of a grammar that `grammar_of` made, within our limits."""
    return LLMatcher(tokenizer, grammar, log_level=0, limits=_LIMITS)


class GrammarTrial:
    """The trial's process, seen from the engine. One thread at a time asks it."""

    def __init__(self, tokenizer: Path, vocabulary: int, eos_token_ids: tuple[int, ...]) -> None:
        self._arguments = [str(tokenizer), str(vocabulary), *map(str, eos_token_ids)]
        self._process: subprocess.Popen[bytes] | None = None
        self._is_ready = False

    def start(self) -> None:
        """Starts the process, unless it runs; it reads the tokenizer while others do other things. One that somebody
        has stopped is replaced."""
        if self._process is not None and is_stopped(self._process.pid):
            self.close()
        if self._process is None:
            self._process, self._is_ready = self._started(), False

    def verdict(self, rules: bytes) -> Verdict:
        """Tries an answer's packed rules; a process that died meanwhile, or hangs, is started again.

        Raises GlmServeError when that fails.
        """
        for _ in range(2):
            self.start()
            answer = self._ask(rules)
            if answer:
                return Verdict(answer[0])
            self.close()
        raise GlmServeError("The process that tries grammars does not start.")

    def close(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        assert process.stdin and process.stdout
        _kill(process)
        for pipe in (process.stdin, process.stdout):
            with suppress(OSError):  # what was not read any more
                pipe.close()
        process.wait()

    def _ask(self, rules: bytes) -> bytes:
        assert self._process and self._process.stdin and self._process.stdout
        question, answers = self._process.stdin, self._process.stdout
        ending = Timer(_HANGS_AFTER_S, _kill, (self._process,))
        ending.start()
        try:
            if not self._is_ready:
                self._is_ready = answers.read(1) == _READY
            question.write(len(rules).to_bytes(_LENGTH_BYTES, "big") + rules)
            question.flush()
            return answers.read(1)
        except OSError:
            return b""
        finally:
            ending.cancel()
            ending.join()

    def _started(self) -> subprocess.Popen[bytes]:
        environment = {**os.environ, "PYTHONPATH": import_path()}
        environment |= {"RAYON_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}  # a fork has one thread
        return subprocess.Popen(
            [_python(), "-B", "-m", __name__, *self._arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # Rust writes there when it runs out of memory
            env=environment,
            start_new_session=True,  # Ctrl-C is for the server, which then closes our pipe
        )


def _kill(process: subprocess.Popen[bytes]) -> None:
    """With its forks, which hold its pipes open. Nobody has collected it yet."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def _python() -> str:
    """This Python as a program: inside Triton's stub `sys.executable` names another, or none."""
    name = f"python{sys.version_info.major}.{sys.version_info.minor}"
    found = Path(sys.base_exec_prefix, "bin", name)
    return str(found) if found.is_file() else sys.executable or name


def _try(tokenizer: LLTokenizer, tokens: frozenset[str], packed: bytes) -> Verdict:
    """Runs in a fork, which a signal ends when it exceeds its limits."""
    signal.setitimer(signal.ITIMER_PROF, GRAMMAR_COMPILE_CPU_S)
    signal.setitimer(signal.ITIMER_REAL, _WALL_S)
    now_bytes = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    most_bytes = now_bytes + GRAMMAR_COMPILE_MEMORY_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (most_bytes, most_bytes))
    try:
        grammar = grammar_of(AnswerRules.read(packed), tokens)
    except InvalidInput:
        return Verdict.REFUSED
    matcher = matcher_of(tokenizer, grammar)
    if matcher.is_error():
        return Verdict.TOO_COMPLEX if "too big" in matcher.get_error() else Verdict.UNSUPPORTED
    matcher.compute_bitmask()
    if matcher.is_error():
        return Verdict.NO_START
    for token in tokenizer.greedy_tokenize('{"'):  # an object's first key is where its properties are tried at once
        if matcher.is_error() or not matcher.validate_tokens([token]):
            break
        matcher.consume_token(token)
        matcher.compute_bitmask()
    return Verdict.TOO_COMPLEX if matcher.is_error() else Verdict.FITS


def _end_with_verdict(tokenizer: LLTokenizer, tokens: frozenset[str], packed: bytes) -> NoReturn:
    verdict = Verdict.UNSUPPORTED
    try:
        verdict = _try(tokenizer, tokens, packed)
    except MemoryError:
        verdict = Verdict.TOO_COMPLEX
    finally:
        os._exit(verdict)


def _serve(questions: BinaryIO, answers: BinaryIO, tokenizer: LLTokenizer) -> None:
    """Answers until the engine closes the pipe or has died."""
    tokens = control_tokens(tokenizer)
    answers.write(_READY)
    answers.flush()
    while len(length := questions.read(_LENGTH_BYTES)) == _LENGTH_BYTES:
        packed = questions.read(int.from_bytes(length, "big"))
        pid = os.fork()
        if pid == 0:
            _end_with_verdict(tokenizer, tokens, packed)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        ended_by_signal = Verdict.LATE if code == -signal.SIGALRM else Verdict.TOO_COMPLEX
        answers.write(bytes([code if code >= 0 else ended_by_signal]))
        answers.flush()


def _main(tokenizer: str, vocabulary: str, *eos_token_ids: str) -> None:
    os.nice(NICENESS)
    loaded = load_tokenizer(Path(tokenizer), int(vocabulary), tuple(map(int, eos_token_ids)))
    _serve(sys.stdin.buffer, sys.stdout.buffer, loaded)


if __name__ == "__main__":
    _main(*sys.argv[1:])
