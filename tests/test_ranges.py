"""Options whose ranges are those of the docstrings, and options without a value."""

import doctest

import pytest

from callbacks.errors import RunError
from experiments.command_line import ranges
from experiments.command_line.ranges import Range, refuse_out_of_range
from experiments.recipes import read, recipes
from tests.parsed import parsed

MIX = "--model.mix=lightning_modules.mixes."
CALLBACK = "--trainer.callbacks+=callbacks."


def test_ranges_are_read_from_descriptions():
    assert not doctest.testmod(ranges)[0]
    assert Range.stated("Share, in (0, 1], at least one sample; 1 trains all.") == (
        "in (0, 1]", 0, 1, False, True
    )  # fmt: skip
    assert (
        Range.stated("Parameter of the Beta distribution, above 0. At least 3.").words == "above 0"
    )
    assert Range.stated("Attention inside the lesion above 0.5.") is None
    assert Range.stated("Half width j of the range [1 - j, 1 + j].") is None


@pytest.mark.parametrize(
    ("stated", "inside", "outside"),
    [
        ("in [0, 1)", (0, 0.5), (-0.1, 1, float("nan"))),
        ("in (0, 1]", (0.1, 1), (0, 1.1)),
        ("at least 1", (1, 7), (0, -3, float("nan"))),
        ("greater than 0", (0.1,), (0, -1)),
    ],
)
def test_a_number_is_in_a_range(stated, inside, outside):
    known = Range.stated(f"A number, {stated}.")
    assert all(map(known.holds, inside))
    assert not any(map(known.holds, outside))


@pytest.mark.parametrize("recipe", recipes())
def test_recipes_are_within_the_ranges(recipe):
    refuse_out_of_range(read(recipe))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ([f"{MIX}CutMix", "--model.mix.probability=2"], "probability=2.0 is out of range: set it"),
        ([f"{MIX}Mixup", "--model.mix.alpha=0"], "to a number above 0."),
        (["--model.network.drop_rate=1"], "set it to a number in [0, 1)."),
        (["--data.train_transform.operations=-1"], "set it to at least 0."),
        (["--data.window=0"], "--data.window=0 is out of range"),
        (["--preemption.every_n_steps=0"], "--preemption.every_n_steps=0 is out of range"),
        ([f"{CALLBACK}SAM", "--trainer.callbacks.rho=-1"], "--trainer.callbacks.rho=-1.0 is out"),
        ([f"{CALLBACK}EMA", "--trainer.callbacks.decay=1"], "decay=1.0 is out of range"),
        (["--model.lr_scheduler.milestones=[0.5, 1.5]"], "milestones=[0.5, 1.5] is out of range"),
    ],
)
def test_numbers_out_of_range_are_refused_with_the_range(options, said):
    schedule = "--model.lr_scheduler=lightning_modules.schedules.Steps"
    with pytest.raises(RunError) as refusal:
        parsed("fit", "--config=small_ce", schedule, *options)
    assert said in str(refusal.value)


@pytest.mark.parametrize(
    ("rule", "option"),
    [
        ("Sensitivity", "at_least=1.5"),
        ("LogitAdjustment", "tau=.inf"),
        ("LogitAdjustment", "tau=-1"),
    ],
)
def test_rules_of_decisions_have_ranges_too(rule, option):
    chooser = ["--trainer.callbacks+=callbacks.ChooseDecision", f"--trainer.callbacks.rule={rule}"]
    use = ["validate", "--config=small_ce", "--ckpt_path=runs/small_ce/seed0/best.ckpt"]
    with pytest.raises(RunError, match=f"{option.partition('=')[0]}=.* is out of range"):
        parsed(*use, *chooser, f"--trainer.callbacks.rule.{option}")


@pytest.mark.parametrize("word", ["null", "None"])
def test_options_without_a_value(word):
    without = [f"--model.network.weights={word}", f"--data.cache_dir={word}", f"--model.mix={word}"]
    found = parsed("fit", "--config=small_ce", *without)
    model = found["model"]["init_args"]
    assert model["network"]["init_args"]["weights"] is None
    assert found["data"]["cache_dir"] is None
    assert model["mix"] is None
