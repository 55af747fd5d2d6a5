import numpy as np
import pandas as pd
import pytest

from experiments.compare.comparison import compare
from experiments.compare.compression import association, with_compression
from experiments.compare.rows import Row
from experiments.compare.runs import read_run


def lost_f1(before, after):
    return {
        name: before.metrics[f"f1_{name}"] - after.metrics[f"f1_{name}"] for name in before.classes
    }


@pytest.fixture
def original(make_run):
    return read_run(make_run("original", skill=3.0))


@pytest.fixture
def compressed(make_run, original):
    """A run whose classes lose contrast in proportion to F1, times ``sign``, plus ``more``."""

    def make(sign, name="jpeg", skill=1.5, more=0.0):
        folder = make_run(name, skill=skill)
        run = read_run(folder)
        lost = sign * run.predictions["dx"].map(lost_f1(original, run)) + more
        table = pd.DataFrame({"image_id": run.predictions["image_id"]})
        lighter = np.where(np.arange(len(table)) % 2, -1, 1)  # than the skin, every other lesion
        table["contrast_before"] = 1.0 * lighter
        table["contrast_after"] = (1 - lost) * lighter
        table.loc[::9, "contrast_after"] = np.nan  # all lesion, no skin
        table.sample(frac=1, random_state=0).to_csv(folder / "test_fidelity.csv", index=False)
        return read_run(folder)

    return make


@pytest.mark.parametrize("sign", [1, -1])
def test_classes_that_lose_both_alike(original, compressed, sign):
    rows = [Row("original", (original,)), Row("jpeg", (compressed(sign),))]
    found = association(rows, rows[0], np.ones((2, len(original.predictions))))
    assert found.rows == 1
    for correlation in found.pooled, found.within:
        assert correlation.value == pytest.approx(sign)
        assert correlation.lesions == (pytest.approx(sign), pytest.approx(sign))


def test_rows_that_compress_more_do_not_make_classes_alike(original, compressed):
    rows = [Row("original", (original,))]
    for name, skill, more in ("mild", 2.9, 0.0), ("harsh", 0.0, 0.4):
        rows.append(Row(name, (compressed(-0.01, name, skill, more),)))
    found = association(rows, rows[0], np.ones((2, len(original.predictions))))
    assert found.pooled.value > 0.4
    assert found.within.value == pytest.approx(-1)


def test_a_row_that_loses_nothing_has_no_part(original, compressed):
    rows = [Row("original", (original,)), Row("jpeg", (compressed(1),))]
    same = Row("same", (compressed(1, "same", skill=3.0),))
    weight = np.ones((2, len(original.predictions)))
    assert association([*rows, same], rows[0], weight).within.value == pytest.approx(1)
    assert association([rows[0], same], rows[0], weight) is None


def test_it_is_said_with_an_interval_where_something_was_compressed(original, compressed, make_run):
    runs = [original, compressed(1), read_run(make_run("other"))]
    found = with_compression(compare(runs, 50, baseline="original"))
    (note,) = [n for n in found.notes if "contrast" in n]
    assert "compared with original: rank correlation 1.00 [" in note
    assert "over the classes of 1 rows together, 1.00 [" in note
    plain = with_compression(compare([runs[0], runs[2]], 5, baseline="original"))
    assert not [n for n in plain.notes if "contrast" in n]
