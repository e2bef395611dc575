"""What all measurements share: rounds, warm-ups and sides that take turns."""

from __future__ import annotations

from bench.harness import Run, in_turn, seconds


def test_warm_ups_run_first_and_do_not_count() -> None:
    numbers: list[int] = []
    said: list[str] = []

    def one_round(number: int) -> dict[str, float]:
        numbers.append(number)
        return {"ratio": 100.0 if number < 0 else float(number)}

    run = Run(2, 3, said.append)
    row = run.row(clients=4, **run.spreads("Speed", one_round, warm_ups=1))
    assert numbers == [-1, 0, 1, 2]
    assert row == {"clients": 4, "ratio": 1.0, "ratio_spread": [0.0, 2.0], "rounds": 3, "threads": 2}
    assert said == [f"Speed, round {number + 1} of 3: ratio {number}" for number in range(3)]


def test_each_side_goes_first_by_turns_and_answers_keep_their_place() -> None:
    order: list[str] = []

    def side(name: str) -> str:
        order.append(name)
        return name

    for turn in (0, 1):
        assert in_turn(turn, lambda: side("ours"), lambda: side("theirs")) == ("ours", "theirs")
    assert order == ["ours", "theirs", "theirs", "ours"]


def test_a_stopwatch_tells_each_call() -> None:
    ticks = iter([0.0, 1.0, 10.0, 12.0])
    assert seconds(lambda: None, 2, lambda: next(ticks)) == [1.0, 2.0]
