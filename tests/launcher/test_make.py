"""A program that fails under make has the last word: make adds nothing, and still fails."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from bench.ports import free_port
from launcher.builds import PRECISIONS
from launcher.cli import app
from launcher.make_variables import SERVE_TAKES, misspelled

ROOT = Path(__file__).resolve().parents[2]


def make(folder: Path, *words: str, sigint: str = "default") -> subprocess.CompletedProcess[str]:
    """As from a terminal, or with `sigint` "ignore" as in the background of a script."""
    outer = ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")  # of the make that runs the tests
    ours = {name: value for name, value in os.environ.items() if name not in outer} | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(
        ["env", f"--{sigint}-signal=INT", "make", *words],
        cwd=folder,
        env=ours,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.fixture
def fresh(tmp_path: Path) -> Path:
    """A checkout in which nothing was installed."""
    for name in ("Makefile", "requirements", "pyproject.toml"):
        (tmp_path / name).symlink_to(ROOT / name)
    return tmp_path


@pytest.mark.parametrize("goal", ["serve", "export"])
def test_a_precision_that_does_not_exist_is_refused_before_anything_is_installed(fresh: Path, goal: str) -> None:
    done = make(fresh, goal, "PRECISION=int7")
    assert done.returncode != 0 and not done.stdout
    assert done.stderr == "int7 is no precision; choose auto, fp32, fp16, int8 or int4.\n"
    assert not (fresh / ".venv").exists()


def test_a_make_that_ignores_sigint_fails_all_the_same(fresh: Path) -> None:
    assert make(fresh, "serve", "PRECISION=int7", sigint="ignore").returncode != 0
    (fresh / "Makefile").unlink()
    command = f"{sys.executable} -m launcher.under_make does_not_exist"
    (fresh / "Makefile").write_text(f"goal:\n\t@exec {command}\n", "utf-8")
    assert make(fresh, "goal", sigint="ignore").returncode != 0


@pytest.mark.parametrize("precision", [*PRECISIONS, "bf16", ""])
def test_make_lets_the_launchers_precisions_pass(fresh: Path, precision: str) -> None:
    assert make(fresh, "known-precision", f"PRECISION={precision}").returncode == 0


@pytest.mark.parametrize("python", ["", "/bin/false", "no-such-python"])
def test_a_machine_without_a_fitting_python_is_told_so_in_one_line(fresh: Path, python: str) -> None:
    done = make(fresh, "serve", f"PYTHON={python}")
    assert done.returncode != 0 and not (fresh / ".venv").exists()
    assert done.stderr.splitlines()[-1].endswith("PYTHON=.") and "make:" not in done.stderr


@pytest.mark.parametrize(
    ("program", "succeeds", "output"),
    [
        ("raise SystemExit(3)", False, ""),
        ("raise SystemExit('That went wrong.')", False, "That went wrong.\n"),
        ("raise KeyboardInterrupt", False, ""),
        ("raise SystemExit", True, ""),
        ("import sys; sys.exit(0 if sys.argv[1:] == ['--of', 'its own'] else 5)", True, ""),
    ],
)
def test_make_adds_no_line_to_what_a_program_says(tmp_path: Path, program: str, succeeds: bool, output: str) -> None:
    (tmp_path / "program.py").write_text(program, "utf-8")
    recipe = f"@exec {sys.executable} -m launcher.under_make program --of 'its own'"
    (tmp_path / "Makefile").write_text(f"all:\n\t{recipe}\n\t@echo went on\n", "utf-8")
    done = make(tmp_path)
    assert (done.returncode == 0) is succeeds
    assert done.stdout == ("went on\n" if succeeds else "") and done.stderr == output


def test_a_refused_start_is_one_sentence() -> None:
    """Also while a service with the usual ports runs beside the tests."""
    done = make(ROOT, "serve", f"PORT={free_port()}", "TRITON_GRPC_PORT=6102", "TRITON_HTTP_PORT=6102")
    assert done.returncode != 0
    assert done.stdout + done.stderr == (
        "TRITON_HTTP_PORT and TRITON_GRPC_PORT are both 6102: give one of them another port.\n"
    )


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("PORTT=8000", "PORT"),
        ("port=8000", "PORT"),
        ("CHECKPIONT=/models/glm", "CHECKPOINT"),
        ("PRECISON=int8", "PRECISION"),
        ("BUILDS=abc", "BUILD"),
        ("DEVICE=0,1", "DEVICES"),
        ("TRITON_GRCP_PORT=9000", "TRITON_GRPC_PORT"),
    ],
)
def test_a_mistyped_variable_is_refused_before_the_program_runs(tmp_path: Path, word: str, meant: str) -> None:
    command = f"{sys.executable} -m launcher.under_make does_not_exist"
    (tmp_path / "Makefile").write_text(f"goal:\n\t@exec {command}\n", "utf-8")
    done = make(tmp_path, "goal", word, "HOST=127.0.0.1")
    assert done.returncode != 0 and not done.stdout
    assert done.stderr == f"{word}: unknown variable; did you mean {meant}=?\n"


def test_variables_of_other_programs_pass() -> None:
    words = r"OMP_NUM_THREADS=1 HF_TOKEN=a\ PORTT=1 GLM_GATEWAY_THREADS=8 CUDA_VISIBLE_DEVICES=0 PYTHON=python3.12"
    assert misspelled(f"wj2 -- {words} PORT=1") == [] == misspelled("") == misspelled("n")


def test_every_variable_of_the_launcher_is_known() -> None:
    options = (option.envvar for option in typer.main.get_command(app).params)
    assert set(SERVE_TAKES) == {name for name in options if isinstance(name, str) and not name.startswith("GLM_")}
