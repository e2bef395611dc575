"""While pip installs, a sentence now and then says how far it is."""

from __future__ import annotations

import pytest

from launcher.install import Progress, install


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


def test_what_pip_cannot_do_is_its_own_error_and_exit_code(capfd: pytest.CaptureFixture[str]) -> None:
    assert install(["--no-index", "no-such-package-at-all"]) == 1
    assert "No matching distribution found for no-such-package-at-all" in capfd.readouterr().err
