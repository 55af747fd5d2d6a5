import numpy as np
import pandas as pd
import pytest

from experiments.compare.comparison import compare
from experiments.compare.contrast import association
from experiments.compare.rows import Row
from experiments.compare.runs import read_run


def lost_f1(before, after):
    return {
        name: before.metrics[f"f1_{name}"] - after.metrics[f"f1_{name}"] for name in before.classes
    }


@pytest.fixture
def compressed(make_run):
    """A run whose classes lose contrast as they lose F1, times ``sign``; and the original."""

    def make(sign):
        original, folder = read_run(make_run("original", skill=3.0)), make_run("jpeg", skill=1.5)
        run = read_run(folder)
        lost = run.predictions["dx"].map(lost_f1(original, run))
        table = pd.DataFrame({"image_id": run.predictions["image_id"], "contrast_before": 0.5})
        table["contrast_after"] = table["contrast_before"] - sign * lost
        table.loc[::9, "contrast_after"] = np.nan  # all lesion, no skin
        table.sample(frac=1, random_state=0).to_csv(folder / "test_fidelity.csv", index=False)
        return original, read_run(folder)

    return make


@pytest.mark.parametrize("sign", [1, -1])
def test_classes_that_lose_both_alike(compressed, sign):
    original, run = compressed(sign)
    rows = [Row("original", (original,)), Row("jpeg", (run,))]
    weight = np.ones((2, len(run.predictions)))
    number, correlation, bounds = association(rows, rows[0], weight)
    assert (number, correlation) == (1, pytest.approx(sign))
    assert bounds == (pytest.approx(sign), pytest.approx(sign))


def test_it_is_said_with_an_interval_where_something_was_compressed(compressed, make_run):
    runs = [*compressed(1), read_run(make_run("other"))]
    (said,) = [n for n in compare(runs, 50, baseline="original").notes if "Contrast" in n]
    assert "against original: rank correlation 1.00 [" in said
    assert said.endswith("of the classes of 1 rows.")
    plain = [runs[0], runs[2]]
    assert not [n for n in compare(plain, 5, baseline="original").notes if "Contrast" in n]
