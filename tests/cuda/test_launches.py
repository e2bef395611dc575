"""No step on CUDA launches a kernel more often than is recorded: `make cuda-launches` records anew."""

from __future__ import annotations

from pathlib import Path

import pytest
from launch_tables import Launches, recorded

from tests.cuda.fake_device import PROVIDER
from tests.cuda.launch_list import CARDS, measured

pytestmark = [
    pytest.mark.build,
    pytest.mark.skipif(not PROVIDER.is_file(), reason="needs onnxruntime-gpu: make cuda-rehearsal"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("launches")


@pytest.fixture(scope="module", params=CARDS)
def launched(request: pytest.FixtureRequest, folder: Path) -> Launches:
    return measured(folder, request.param)


def test_no_kernel_is_launched_more_often_than_is_recorded(launched: Launches) -> None:
    more = [
        f"{build}, {tokens} tokens, {part}: {kernel} {count} times, recorded {ceiling}"
        for build, steps in recorded().items()
        for tokens, step in steps.items()
        for part, kernels in step.items()
        for kernel, count in launched[build][tokens][part].items()
        if count > (ceiling := kernels.get(kernel, 0))
    ]
    assert not more, "\n".join(more)
