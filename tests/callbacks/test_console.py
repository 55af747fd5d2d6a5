import math

import pandas as pd
import pytest

from callbacks.console import decimals, in_words, print_table
from experiments.compare import page, table
from experiments.compare.rows import Estimate

ROUNDED = {
    0.3125: "0.313",
    0.0625: "0.063",
    1.0005: "1.001",  # in binary a little less
    0.31249: "0.312",
    0.0: "0.000",
    -0.0002: "0.000",
    -0.0625: "-0.063",
    math.nan: "-",
    math.inf: "inf",
    1e30: "1e+30",
}


@pytest.mark.parametrize(("value", "text"), ROUNDED.items())
def test_half_is_rounded_up_wherever_numbers_are_shown(value, text, capsys):
    assert decimals(value) == text
    assert in_words({"macro_f1": value}) == f"macro f1 {text}"
    assert table.number(Estimate(value)) == text
    assert table.interval((value, value)) == f"[{text}, {text}]"
    print_table(pd.DataFrame({"name": ["one"], "value": [value]}), "Title")
    assert f" {text} " in capsys.readouterr().out


def test_names_are_no_markup(capsys):
    print_table(pd.DataFrame({"[b]class": ["[red]nevus", "[/]"]}), "[Title]")
    told = capsys.readouterr().out
    assert all(name in told for name in ("[Title]", "[b]class", "[red]nevus", "[/]"))


def test_a_difference_has_a_sign():
    assert [decimals(x, sign=True) for x in (0.0125, -0.0125)] == ["+0.013", "-0.013"]


def test_the_page_rounds_a_number_that_is_read_only_once():
    assert page._plain({"mean": 0.3124996, "lesions": (0.1234567, None)}) == {
        "mean": 0.3124996,
        "lesions": [0.1234567, None],
    }
    assert page._plain([0.3124996, [0.1234567]]) == [0.3125, [0.12346]]
