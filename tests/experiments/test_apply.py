"""Options of `make decide`."""

import pytest

from experiments.use import apply

CHOOSER = "--trainer.callbacks+=callbacks.ChooseDecision"


@pytest.fixture
def passed(monkeypatch):
    """The options that `decide` passes on to the run."""

    def of(*options):
        found = []
        monkeypatch.setattr("sys.argv", ["decide", "runs/a/seed0", *options])
        monkeypatch.setattr(apply, "_apply", lambda command, run, more: found.extend(more))
        apply.decide()
        assert found[0] == CHOOSER
        return [option.removeprefix("--trainer.callbacks.") for option in found[1:]]

    return of


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([], ["rule=ArgMax"]),
        (["--rule=Sensitivity"], ["rule=Sensitivity"]),
        (["--sets=Marginal"], ["sets=Marginal"]),
        (["--sets=Marginal", "--coverage=0.8"], ["sets=Marginal", "sets.coverage=0.8"]),
        (["--risk=0"], ["max_risk=0.0"]),
        (["--rule=ArgMax", "--share=0.5"], ["rule=ArgMax", "min_share=0.5"]),
    ],
)
def test_sets_and_abstention_keep_the_rule_of_the_run(passed, options, expected):
    assert passed(*options) == expected


def test_a_coverage_without_sets_is_refused(passed, capsys):
    with pytest.raises(SystemExit):
        passed("--coverage=0.9")
    assert "add --sets (SETS=ClassConditional)" in capsys.readouterr().err
