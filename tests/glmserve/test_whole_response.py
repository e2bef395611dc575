"""Messages joined say what they said one by one."""

from __future__ import annotations

import numpy as np

from glmserve.engine.triton.whole_response import joined


def test_parts_follow_one_another_and_the_rest_is_the_last_word() -> None:
    whole = joined(
        [
            {"TOKENS": np.array([1, 2]), "LOGPROB_IDS": np.array([[1, 9], [2, 8]])},
            {"TOKENS": np.array([], int)},
            {"TOKENS": np.array([3]), "LOGPROB_IDS": np.array([[3, 7]])},
            {"TOKENS": np.array([], int), "FINISH": np.array([1]), "TIMINGS_MS": np.array([1.0, 2.0])},
        ]
    )
    assert whole["TOKENS"].tolist() == [1, 2, 3] and whole["LOGPROB_IDS"].tolist() == [[1, 9], [2, 8], [3, 7]]
    assert whole["FINISH"].tolist() == [1] and whole["TIMINGS_MS"].tolist() == [1.0, 2.0]
    assert "LOGPROB_VALUES" not in whole


def test_an_answer_without_a_word_still_has_its_tensor() -> None:
    whole = joined([{"TOKENS": np.array([], np.int32), "FINISH": np.array([1])}])
    assert whole["TOKENS"].dtype == np.int32 and len(whole["TOKENS"]) == 0
