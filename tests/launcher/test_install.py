"""While pip installs, a sentence now and then says how far it is."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from eventually import eventually

from launcher.install import Progress, alone_in, install, make_environment


def test_each_stage_of_pip_has_its_sentence() -> None:
    progress = Progress(installed_before=2)
    assert progress.sentence(2) == "  Asking the package index ..."
    progress.read("Collecting numpy==1.26.4 (from -r requirements/serve.txt (line 12))\n")
    assert progress.sentence(2) == "  Packages found so far: 1; now numpy."
    progress.read("  Downloading numpy-1.26.4-cp311-cp311-manylinux_2_17_x86_64.whl (18.2 MB)\n")
    assert progress.sentence(2) == "  Packages found so far: 1; now numpy (18.2 MB)."
    progress.read("Installing collected packages: wheel, numpy, pillow\n")
    assert progress.sentence(3) == "  Packages installed: 1 of 3."


def test_a_replaced_package_does_not_count_below_nothing_or_beyond_all() -> None:
    progress = Progress(installed_before=5)
    progress.read("Installing collected packages: numpy\n")
    assert progress.sentence(4) == "  Packages installed: 0 of 1."
    assert progress.sentence(9) == "  Packages installed: 1 of 1."


@pytest.mark.process
def test_what_pip_cannot_do_is_its_own_error_and_exit_code(capfd: pytest.CaptureFixture[str]) -> None:
    assert install(["--no-index", "no-such-package-at-all"]) == 1
    assert "No matching distribution found for no-such-package-at-all" in capfd.readouterr().err


def test_a_second_installation_at_the_same_time_waits_and_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def second() -> None:
        with alone_in(tmp_path):
            order.append("second")

    order: list[str] = []
    with alone_in(tmp_path):
        waiting = threading.Thread(target=second)
        waiting.start()
        said: list[str] = []
        assert eventually(lambda: bool(said.append(capsys.readouterr().out) or "waiting for its end" in "".join(said)))
        order.append("first")
    waiting.join(10)
    assert order == ["first", "second"]


def test_an_environment_that_is_there_is_not_made_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "venv" / "bin").mkdir(parents=True)
    (tmp_path / "venv" / "bin" / "pip").touch()
    assert make_environment(str(tmp_path / "venv")) == 0
    assert not capsys.readouterr().out
