"""The examples in docstrings run and print what they show."""

import doctest
from pathlib import Path

import pytest

from datamodules import HAM10000, boxes, ham10000, samplers, splits, transforms, views


@pytest.fixture
def _demo(lesions):
    """Data in the folder of `make demo`, already decoded, since decoding prints its progress."""
    Path("data").mkdir()
    Path("data/demo").symlink_to(lesions)
    HAM10000(Path("data/demo"), splits.Balanced(3, 2), size=64).prepare_data()


@pytest.mark.usefixtures("_demo")
@pytest.mark.parametrize("module", [boxes, ham10000, samplers, splits, transforms, views])
def test_examples_print_what_they_show(module):
    failed, attempted = doctest.testmod(module)
    assert attempted
    assert not failed


@pytest.mark.parametrize("module", [samplers, splits])
def test_every_sampler_and_split_has_an_example(module):
    choices = [
        value
        for name, value in vars(module).items()
        if getattr(value, "__module__", "") == module.__name__
        and isinstance(value, type)
        and not getattr(value, "__abstractmethods__", None)
    ]
    assert choices
    assert [value.__name__ for value in choices if "Examples:" not in value.__doc__] == []
