"""Cards and drivers that cannot work are refused by name, with what to install; all others pass."""

from __future__ import annotations

import pytest

from glmserve.engine.runtime.gpu_support import ORT_KERNELS, check_driver, check_kernels
from glmserve.errors import BadArtifact


@pytest.mark.parametrize("capability", [*ORT_KERNELS, "8.7", "12.1"])
def test_a_gpu_with_kernels_of_its_own_major_version_passes(capability: str) -> None:
    check_kernels(capability, 0)


@pytest.mark.parametrize("capability", ["6.1", "7.0", "7.2", "10.0", "10.3", "11.0", "13.0"])
def test_a_gpu_without_kernels_is_named_with_the_remedies(capability: str) -> None:
    with pytest.raises(BadArtifact, match=rf"GPU 3 is of compute capability {capability}, .*GLM_ENGINE_DEVICE_NUMBER"):
        check_kernels(capability, 3)


@pytest.mark.parametrize(("supported", "needed"), [(13000, 13000), (13010, 13000), (13000, 13020), (14000, 13000)])
def test_a_driver_of_the_same_major_version_or_a_later_one_passes(supported: int, needed: int) -> None:
    check_driver(supported, needed)


@pytest.mark.parametrize(
    ("supported", "needed", "said"),
    [
        (12080, 13000, r"supports CUDA 12\.8, .* of version 13\.0: install driver 580 or newer"),
        (11040, 12060, r"supports CUDA 11\.4, .* of version 12\.6: install driver 525 or newer"),
        (0, 13000, r"driver is missing, .* install driver 580"),
    ],
)
def test_an_old_or_missing_driver_is_told_with_the_version_to_install(supported: int, needed: int, said: str) -> None:
    with pytest.raises(BadArtifact, match=said):
        check_driver(supported, needed)
