import json
import re
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from callbacks.errors import RunError
from experiments.compare import page, table
from experiments.compare.__main__ import main
from experiments.compare.comparison import compare
from experiments.compare.compression import with_compression
from experiments.compare.resources import resources
from experiments.compare.runs import read_run


@pytest.fixture
def runs(make_run):
    """Three seeds of one name, with a decision rule, and one seed of a better run."""
    folders = [make_run("ce", seed=s, decide=True) for s in range(3)]
    return [read_run(folder) for folder in [*folders, make_run("good", skill=3.0)]]


def test_a_row_is_a_name_and_its_decision_another(runs):
    rows = compare(runs[::-1], resamples=50).rows
    assert [run.seed for run in rows[1].runs] == [0, 1, 2]
    assert [(row.name, len(row.runs)) for row in rows] == [
        ("good", 1),
        ("ce", 3),
        ("ce + decision", 3),
    ]
    ce, recorded = rows[1].metrics, [run.metrics["macro_f1"] for run in runs[:3]]
    assert ce["macro_f1"].mean == pytest.approx(np.mean(recorded), abs=1e-6)
    assert ce["macro_f1"].seeds[0] < ce["macro_f1"].mean < ce["macro_f1"].seeds[1]
    assert rows[2].metrics["recall_mel"].mean == 1
    assert "macro_auroc" not in rows[2].metrics
    assert rows[0].metrics["macro_f1"].seeds is None


def test_a_doubtful_training_is_named_on_table_and_page(make_run):
    training = {"remarks": ["the best epoch is 1 of 10, in the first tenth"]}
    runs = [read_run(make_run("ce", seed=s, training=training if s else None)) for s in range(2)]
    comparison = compare(runs, resamples=20)
    said = "Doubtful training of ce, seed 1: the best epoch is 1 of 10, in the first tenth."
    assert said in table.markdown(comparison)
    assert said in page.render(comparison)


def test_seeds_are_averaged_within_each_resample(runs):
    found = compare(runs[:3], resamples=50)
    ce = found.rows[0]
    each = ce.scores(found.weight)["accuracy"]
    assert each.shape == (3, 50)
    low, high = np.quantile(np.mean(each, axis=0), [0.025, 0.975])
    assert ce.metrics["accuracy"].lesions == pytest.approx((low, high))


def test_differences_are_paired_by_lesion_and_seed(runs, make_run):
    good = [read_run(make_run("better", seed=s, skill=2.0)) for s in (1, 2)]
    rows = {row.name: row for row in compare([*runs, *good], 200, baseline="ce").rows}
    assert rows["ce"].difference is None
    better = rows["better"].difference
    assert better.shared_seeds == (1, 2)
    gains = [
        of_better.metrics["balanced_accuracy"] - of_ce.metrics["balanced_accuracy"]
        for of_better, of_ce in zip(good, runs[1:3], strict=True)
    ]
    assert better.mean == pytest.approx(np.mean(gains), abs=1e-6)
    half = (better.seeds[1] - better.seeds[0]) / 2
    assert half == pytest.approx(12.706 * np.std(gains, ddof=1) / 2**0.5, rel=1e-3)
    assert better.lesions[0] < better.mean < better.lesions[1]
    assert better.p == pytest.approx(2 / 201)
    assert better.p_holm == pytest.approx(6 / 201)
    assert better.better > better.worse
    assert rows["good"].difference.seeds is None


def test_a_baseline_that_does_not_exist_is_refused(runs):
    message = "No row is called 'cf': .* one of ce, ce \\+ decision, good"
    with pytest.raises(RunError, match=message):
        compare(runs, resamples=5, baseline="cf")


def test_rows_of_different_seeds_are_named(runs, make_run):
    other = read_run(make_run("other", seed=7))
    found = compare([*runs, other], 20, baseline="ce")
    notes = " ".join(found.notes)
    assert "good and ce have different seeds" in notes
    assert "are of the shared ones only (0)." in notes
    assert "other and ce share no seed" in notes
    assert "ce + decision and ce" not in notes
    difference = next(row.difference for row in found.rows if row.name == "other")
    assert (difference.shared_seeds, difference.seeds) == ((), None)
    alone = compare([*runs[:1], runs[-1]], 20, baseline="ce")
    shared = next(
        row.difference for row in compare(runs, 20, baseline="ce").rows if row.name == "good"
    )
    expected = next(row.difference for row in alone.rows if row.name == "good")
    assert (shared.mean, shared.better, shared.worse) == (
        pytest.approx(expected.mean),
        expected.better,
        expected.worse,
    )


def test_few_seeds_have_a_caution_beside_their_p_values(runs):
    text = table.markdown(compare(runs, 20, baseline="ce"))
    assert "not the variation between training runs" in text
    assert "All differences are over only 1 to 3 seeds, so a small p-value does not show" in text
    assert "variation between training runs" not in table.markdown(compare(runs, 20))


def test_the_caution_names_the_rows_of_few_seeds(make_run):
    names = {"ce": 6, "good": 5, "few": 2, "single": 1}
    runs = [read_run(make_run(name, seed=s)) for name, n in names.items() for s in range(n)]
    text = table.markdown(compare(runs, 20, baseline="ce"))
    (listed,) = re.findall(r"if its difference is over fewer than 5 seeds: (.*)\.", text)
    assert sorted(listed.split(", ")) == ["few (2)", "single (1)"]
    enough = [run for run in runs if run.name in ("ce", "good")]
    assert "small p-value" not in table.markdown(compare(enough, 20, baseline="ce"))


def test_a_run_does_not_differ_from_itself(make_run):
    same = [read_run(make_run("one")), read_run(make_run("two"))]
    rows = {row.name: row for row in compare(same, resamples=20, baseline="one").rows}
    assert rows["two"].difference.mean == 0
    assert rows["two"].difference.lesions == (0, 0)
    assert rows["two"].difference.p == rows["two"].difference.p_mcnemar == 1


def test_seeds_that_differ_in_more_are_named(make_run):
    first, second = make_run("ce", seed=0), make_run("ce", seed=1)
    for folder in (first, second):  # a second stage starts from its own seed's first
        with (folder / "config.yaml").open("a") as config:
            config.write(f"start: runs/first/{folder.name}\n")
    assert not [n for n in compare([read_run(first), read_run(second)], 5).notes if "differ" in n]
    config = (second / "config.yaml").read_text()
    (second / "config.yaml").write_text(config.replace("lr: 2", "lr: 3"))
    notes = compare([read_run(first), read_run(second)], 5).notes
    assert "The seeds of ce differ in more than the seed: model.lr." in notes


def test_resources(runs):
    found = resources(tuple(runs[:3]))
    assert (found.epochs, found.seconds_per_epoch, found.parameters) == (3, 3.0, 1234567)
    assert found.hours == pytest.approx(9 / 3600)
    assert found.memory_gb == 1.5


def test_an_unmeasured_epoch_took_what_others_did(runs):
    history = runs[0].history.copy()
    history.loc[history["epoch"] == 0, "resources/seconds"] = np.nan
    run = replace(runs[0], history=history)
    assert resources((run,)).hours == pytest.approx((3 + 4 + 3.5) / 3600)


def test_a_run_without_history_has_no_resources(runs):
    run = replace(runs[0], history=pd.DataFrame())
    assert np.isnan(resources((run,)).hours)


def run_main(monkeypatch, *options):
    monkeypatch.setattr(sys, "argv", ["compare", "--resamples", "50", *options])
    main()


def test_command_line(make_run, monkeypatch, capsys):
    for seed in range(2):
        make_run("ce", seed=seed)
    make_run("go|od <script>", skill=3.0)
    (make_run("torn") / "results.json").unlink()
    run_main(monkeypatch, "runs/*", "--baseline", "ce")
    said = capsys.readouterr().out
    assert "go|od <script>" in said
    assert "Left out: runs/torn/seed0 has no results.json" in said
    wide = pd.read_csv("compare/table.csv", index_col="name")
    row = wide.loc["ce"]
    assert row["balanced_accuracy_lesions_low"] < row["balanced_accuracy"]
    assert row["seconds_per_epoch"] == 3.0
    assert wide.loc["go|od <script>", "difference_mean"] > 0
    lines = Path("compare/table.md").read_text().splitlines()
    assert lines[0].startswith("| name | seeds | balanced accuracy [lesions] |")
    assert lines[2].startswith(r"| go\|od &lt;script> | 1 |")
    assert "60 lesions" in "\n".join(lines)


def test_curves_are_written(make_run, monkeypatch):
    make_run("ce", decide=True)
    run_main(monkeypatch, "runs/*", "--positive", "bcc")
    kept = pd.read_csv("compare/curves.csv")
    assert list(kept) == ["name", "curve", "x", "mean", "low", "high"]
    assert kept.groupby(["name", "curve"]).size().to_dict() == {
        ("ce", "net_benefit"): 50,
        ("ce", "net_benefit_corrected"): 50,
        ("ce", "risk_coverage"): 20,
        ("ce + decision", "net_benefit"): 50,
    }
    risk = kept[(kept["curve"] == "risk_coverage") & (kept["x"] == 1)]
    accuracy = pd.read_csv("compare/table.csv", index_col="name").loc["ce", "accuracy"]
    assert risk["mean"].item() == pytest.approx(1 - accuracy)
    with pytest.raises(SystemExit, match="no class 'cat': set --positive to one of mel, nv"):
        run_main(monkeypatch, "runs/*", "--positive", "cat")


def test_sets_have_their_coverage_and_size_beside_other_rows(make_run):
    """Sets contain the true class for one image of the lesions of two images, else nothing."""

    def run(name, seed, sets):
        path = make_run(name, seed=seed) / "test_predictions.csv"
        table = pd.read_csv(path)
        if sets:  # of each three images, the first two are of one lesion
            table.assign(set=table["dx"].where(table.index % 3 == 0)).to_csv(path, index=False)
        return read_run(path.parent)

    runs = [run("sets", s, sets=True) for s in range(2)]
    runs += [run("some", s, sets=s == 0) for s in range(2)]
    found = compare(runs, resamples=50)
    rows = {row.name: row.metrics for row in found.rows}
    once = 0.5 * 30 / 60
    assert rows["sets"]["coverage"].mean == rows["sets"]["set_size"].mean == pytest.approx(once)
    low, high = rows["sets"]["coverage"].lesions
    assert low < once < high
    assert "coverage" not in rows["some"]
    lines = table.compact(found).set_index("name")
    assert re.fullmatch(r"0\.250 \[0\.\d{3}, 0\.\d{3}\]", lines.loc["sets", "coverage [lesions]"])
    assert lines.loc["sets", "set size"] == "0.250"
    assert lines.loc["some", "coverage [lesions]"] == "-"
    assert "Set size: mean number of classes in a set." in table.markdown(found)
    assert '"coverage_mel"' in page.render(found)
    assert "overage" not in table.markdown(compare(runs[2:], resamples=5))


def test_drawn_lesions_are_marked(make_run):
    run = read_run(make_run(synthetic=True))
    assert "SYNTHETIC DATA" in table.markdown(compare([run], resamples=5))


def test_refusals_are_one_sentence(make_run, monkeypatch):
    make_run("ce")
    make_run("melanoma", classes=["nv", "mel"])
    with pytest.raises(SystemExit, match="^error: runs/ce/seed0 and runs/melanoma/seed0"):
        run_main(monkeypatch)


def test_what_compression_left_is_beside_what_was_decided(make_run):
    def compressed(name, **more):
        folder = make_run(name)
        results = json.loads((folder / "results.json").read_text())
        results["metrics"] |= more
        (folder / "results.json").write_text(json.dumps(results))
        return read_run(folder)

    runs = [compressed("jpeg", bits_per_pixel=2.0, psnr=31.5), compressed("original")]
    found = with_compression(compare(runs, resamples=5))
    rate = {row.name: row.metrics.get("bits_per_pixel") for row in found.rows}
    assert rate["jpeg"].mean == 2.0
    assert rate["jpeg"].lesions is None
    assert rate["original"] is None
    lines = table.compact(found).set_index("name")
    assert lines.loc["jpeg", "PSNR"] == "31.500"
    assert lines.loc["original", "PSNR"] == "-"
    assert '"psnr"' in page.render(found)
