"""``show``: the settings of a recipe and the options of its parts."""

import re
from pathlib import Path

import pytest

from callbacks.errors import RunError
from experiments.command_line.show import options, parts, settings
from experiments.recipes import FAMILY, FOLDER, read, recipes

ONE_OF_EACH_FAMILY = [
    next(name for name, path in recipes().items() if path.parent == family.parent)
    for family in sorted(FOLDER.glob(f"*/{FAMILY}"))
]


def test_options_have_their_flag_value_meaning_and_default():
    assert settings("spmix").startswith("SPMix without the paper's shortcut")
    page = " ".join(options("spmix").split())
    assert "--model.mix.floor 0.5 Smallest ratio, in [0, 1]" in page
    assert "--model.mix.probability Share of the pairs that are mixed" in page
    assert "(float, default: 1.0)" in page
    assert "--data.sampler.anchors balanced" in page
    assert "--data.sampler.labels" not in page  # filled in


@pytest.mark.parametrize("name", ONE_OF_EACH_FAMILY)
def test_each_part_of_a_recipe_is_explained_without_markup(name):
    page = options(name)
    for option, path, _ in parts(read(name)):
        assert f"{path} (--{option})" in page
    assert not re.search(r":\w+:`|``|<class", page)


def test_a_file_of_your_own_is_printed_with_its_header():
    Path("mine.yaml").write_text("# Mine.\ndata:\n  size: 96\n")
    assert settings("mine.yaml").split("\n") == ["Mine.", "", "data: {size: 96}", ""]


def test_an_unknown_recipe_is_named():
    with pytest.raises(RunError, match="There is no recipe 'spmax'.*spmix"):
        settings("spmax")
