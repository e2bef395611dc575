"""What other servers' tests ask of a server: each behaviour that docs/compatibility.md lists holds here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest
from behaviours.asking import Service
from behaviours.declined import DECLINED
from behaviours.every import ASKED, GROUPS, HOLD
from behaviours.listed import Behaviour
from running_behaviours import saying, sender, with_keys
from serving import READY_S, gateway_on, triton_on
from shared_builds import build_with_tools

CASES = [(group, behaviour) for group, behaviours in GROUPS.items() for behaviour in behaviours]
LEAST_SHARE = 0.935


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """The demo with a template that knows tools, served with keys and without."""
    build, folder = build_with_tools(), tmp_path_factory.mktemp("stand_in")
    with (
        triton_on(build) as triton,
        gateway_on(build, triton.grpc_url) as gateway,
        with_keys(build, triton.grpc_url, tmp_path_factory.mktemp("keys") / "keys.json") as keyed,
        saying(folder) as told,
    ):
        gateway.wait_ready(READY_S)
        yield Service(sender(gateway.url), keyed, told)


@pytest.mark.triton
@pytest.mark.parametrize("case", CASES, ids=[f"{group}: {behaviour.sentence}" for group, behaviour in CASES])
def test_a_behaviour_that_is_listed_holds(case: tuple[str, Behaviour], compared: Service) -> None:
    assert case[1].check(compared)


def test_nothing_is_listed_twice() -> None:
    listed = [(group, behaviour.source, behaviour.sentence) for group, behaviour in CASES]
    listed += [("", each.source, each.sentence) for each in DECLINED]
    assert [each for each, count in Counter(listed).items() if count > 1] == []


def test_nearly_all_that_is_asked_for_holds() -> None:
    assert HOLD >= LEAST_SHARE * ASKED
