import json

import numpy as np
import pandas as pd
import pytest

from callbacks.errors import RunError
from experiments.compare.runs import check_comparable, read_run, read_runs


def test_reads_a_run(make_run):
    run = read_run(make_run("ce", seed=3))
    assert (run.name, run.seed, len(run.predictions)) == ("ce", 3, 90)
    assert run.probability.shape == (90, 7)
    assert run.decision is None
    assert run.lesion.max() + 1 == 60
    assert [run.classes[c] for c in run.label[:3]] == run.predictions["dx"].tolist()[:3]


@pytest.mark.parametrize("pattern", ["runs", "runs/*", "runs/ce", "runs/*/seed*", "runs/ce/seed0"])
def test_finds_runs_wherever_a_pattern_ends(make_run, pattern):
    make_run("ce")
    runs, left_out = read_runs([pattern, pattern])
    assert [run.name for run in runs] == ["ce"]
    assert left_out == []


def test_reads_the_last_epochs_in_place_of_the_best(make_run):
    folder = make_run("ce")
    make_run("untested")
    for name in ("results.json", "test_predictions.csv"):
        (folder / f"last_{name}").write_bytes((folder / name).read_bytes())
    reverse = pd.read_csv(folder / "test_predictions.csv").iloc[::-1]
    reverse["p_mel"] = 1.0
    reverse.to_csv(folder / "last_test_predictions.csv", index=False)
    (run,), left_out = read_runs(["runs/*"], last=True)
    assert (run.probability[:, 0] == 1).all()
    assert (read_run(folder).probability[:, 0] < 1).all()
    (sentence,) = left_out
    assert sentence == (
        "runs/untested/seed0 has no last_results.json: evaluate its last.ckpt (CKPT=last)."
    )


def with_sets(folder, sets):
    path = folder / "test_predictions.csv"
    pd.read_csv(path).assign(set=sets).to_csv(path, index=False)
    return folder


def test_reads_prediction_sets_which_may_be_empty(make_run):
    sets = ["mel nv", "", "vasc"] * 30
    run = read_run(with_sets(make_run("ce"), sets))
    found = [" ".join(np.array(run.classes)[row]) for row in run.sets]
    assert found == sets
    assert read_run(make_run("without")).sets is None
    assert not read_run(with_sets(make_run("empty"), "")).sets.any()


def test_a_set_of_other_classes_is_refused(make_run):
    make_run("ce")
    with_sets(make_run("torn"), "mel cat")
    assert "has other classes in its column set" in read_runs(["runs/*"])[1][0]


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])


def cut_a_line(path):
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))


@pytest.mark.parametrize(
    ("break_it", "said"),
    [
        (lambda f: (f / "results.json").unlink(), "has no results.json"),
        (lambda f: (f / "test_predictions.csv").unlink(), "has no test_predictions.csv"),
        (lambda f: cut(f / "results.json"), "is incomplete"),
        (lambda f: cut(f / "test_predictions.csv"), "is incomplete"),
        (lambda f: (f / "test_predictions.csv").write_text(""), "is incomplete"),
        (lambda f: cut_a_line(f / "test_predictions.csv"), "lacks predictions"),
        (lambda f: (f / "results.json").write_text("[]"), "is incomplete"),
        (
            lambda f: (f / "results.json").write_text('{"psnr": 40}'),
            "has no classes: only classifiers",
        ),
    ],
)
def test_half_written_runs_are_named_and_left_out(make_run, break_it, said):
    make_run("ce")
    break_it(make_run("torn"))
    runs, left_out = read_runs(["runs/*"])
    assert [run.name for run in runs] == ["ce"]
    assert len(left_out) == 1
    assert "runs/torn/seed0" in left_out[0]
    assert said in left_out[0]


def test_a_pattern_without_runs_is_named(make_run):
    make_run("ce")
    assert read_runs(["runs/ce", "runs/typo"])[1] == ["runs/typo matches no run folder."]


def test_diagnoses_that_the_run_does_not_know(make_run):
    file = make_run("ce") / "test_predictions.csv"
    table = pd.read_csv(file)
    table.assign(dx=table["dx"].str.upper()).to_csv(file, index=False)
    with pytest.raises(RunError, match="other classes in its column dx"):
        read_run(file.parent)


def test_no_runs_says_how_to_make_one():
    with pytest.raises(RunError, match="No evaluated run in runs/.*make train EXP=small_ce"):
        read_runs(["runs/*"])


def test_two_folders_of_one_run_are_refused(make_run, tmp_path):
    make_run("ce")
    (tmp_path / "runs").rename(tmp_path / "there")
    make_run("ce")
    with pytest.raises(
        RunError, match="there/ce/seed0 and runs/ce/seed0 have the same name and seed"
    ):
        read_runs(["there", "runs"])


def test_a_link_to_a_run_is_no_second_run(make_run, tmp_path):
    folder = make_run("ce")
    (tmp_path / "runs/best").symlink_to("ce")
    (folder.parent / "seed1").symlink_to("seed0")
    runs, left_out = read_runs(["runs/*", "runs/ce", str(folder)])
    assert [run.source for run in runs] == ["runs/ce/seed0"]
    assert left_out == [
        f"runs/{link}/seed{seed} is a link to runs/ce/seed0."
        for link, seed in (("best", 0), ("best", 1), ("ce", 1))
    ]
    assert [run.name for run in read_runs(["runs/best/seed0"])[0]] == ["best"]


@pytest.mark.parametrize(
    ("other", "what"),
    [
        ({"classes": ["nv", "mel"]}, "different classes"),
        ({"images": 93}, "different test images"),
        ({"split": "other"}, "different splits"),
        ({"synthetic": True}, "synthetic and real images"),
    ],
)
def test_what_was_asked_differently_is_not_compared(make_run, other, what):
    runs = [read_run(make_run("ce")), read_run(make_run("other", **other))]
    with pytest.raises(RunError, match=f"runs/ce/seed0 and .*runs/other/seed0 .*{what}"):
        check_comparable(runs)
    check_comparable(runs[:1])


def test_order_of_the_rows_does_not_matter(make_run):
    folder = make_run("ce")
    before = read_run(folder)
    lines = (folder / "test_predictions.csv").read_text().splitlines()
    (folder / "test_predictions.csv").write_text("\n".join([lines[0], *lines[:0:-1]]) + "\n")
    assert read_run(folder).predictions.equals(before.predictions)
    assert json.loads((folder / "results.json").read_text())["seed"] == 0
