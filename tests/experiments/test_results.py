import math
import sys
from pathlib import Path
from xml.etree import ElementTree

import pandas as pd
import pytest

from experiments.__main__ import main
from experiments.compare.archive import Archive
from experiments.compare.comparison import compare, compare_rows
from experiments.compare.rows import BY_DECISION
from experiments.compare.runs import read_run

PUBLISHED = Path(__file__).parents[2] / "docs/results"

STUDY = """
seeds: [0, 1]
baseline: ce
rows:
  ce: {experiment: small_ce}
  better: {experiment: small_ce, model.optimizer.lr: 0.1}
"""
PAGE = "Before.\n<!-- results: tiny -->\n<!-- end -->\nAfter.\n"


@pytest.fixture
def study(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/results.md").write_text(PAGE)
    (tmp_path / "tiny.yaml").write_text(STUDY)
    return tmp_path


@pytest.fixture
def publish(study, monkeypatch):
    def command():
        monkeypatch.setattr(sys, "argv", ["experiments", "results", "tiny.yaml"])
        main()

    return command


def split_of(folder, run):
    """The split file that tells how many images each class has."""
    table = run.predictions[["image_id", "lesion_id", "dx"]]
    table.assign(split="test").to_csv(folder / "split.csv", index=False)


def test_the_archive_gives_the_numbers_of_the_runs(make_run, tmp_path):
    folders = [make_run("ce", seed=s, decide=s == 0) for s in range(2)]
    for folder in folders:
        split_of(folder, read_run(folder))
    Archive(tmp_path / "a.csv").add(("ce", folder) for folder in folders)
    kept = compare_rows(list(Archive(tmp_path / "a.csv").rows(["ce"])), resamples=50)
    whole = compare([read_run(folder) for folder in folders], resamples=50)
    assert [row.name for row in kept.rows] == [row.name for row in whole.rows]
    for mine, other in zip(kept.rows, whole.rows, strict=True):
        for name in ("balanced_accuracy", "natural_accuracy", "macro_f1", "few_accuracy"):
            assert mine.metrics[name] == other.metrics[name]


def test_measures_of_the_probabilities_are_kept(make_run, tmp_path):
    folder = make_run("ce", decide=True)
    Archive(tmp_path / "a.csv").add([("ce", folder)])
    by_network, by_decision = Archive(tmp_path / "a.csv").rows(["ce"])
    recorded = read_run(folder).metrics
    for name in ("brier", "nll", "classwise_ece", "aurc", "ece"):
        assert by_network.runs[0].metrics[name] == pytest.approx(recorded[name])
        assert math.isnan(by_decision.runs[0].metrics[name])


def test_an_archive_from_before_a_measure_is_read_and_published_as_before(make_run, study, publish):
    make_run("tiny-ce")
    publish()
    page, file = study / "docs/results.md", study / "docs/results/tiny.csv"
    text = page.read_text()
    older = pd.read_csv(file, dtype=str).drop(columns=["brier", "nll", "classwise_ece", "aurc"])
    older.to_csv(file, index=False)
    for results in (study / "runs").glob("*/*/results.json"):
        results.unlink()
    publish()
    assert page.read_text() == text
    make_run("tiny-better", skill=3.0)
    publish()
    kept = pd.read_csv(file).set_index("row")
    assert kept["brier"].isna().tolist() == [False, True]  # better, ce


@pytest.mark.parametrize("path", sorted(PUBLISHED.glob("*.csv")), ids=lambda path: path.stem)
def test_published_archives_can_be_read(path):
    if path.name.startswith("test_"):
        return
    archive = Archive(path)
    names = archive.table["row"].unique()
    rows = list(archive.rows(names))
    assert {row.name.removesuffix(BY_DECISION) for row in rows} == {*names}
    assert all(run.decision.min() >= 0 for row in rows for run in row.runs)


def test_a_study_is_published_and_outlives_its_runs(make_run, study, publish):
    for seed in range(2):
        make_run("tiny-ce", seed=seed)
    publish()
    make_run("tiny-better", seed=0, skill=3.0)
    for old in (study / "runs/tiny-ce").glob("*/results.json"):
        old.unlink()
    publish()
    page = (study / "docs/results.md").read_text()
    assert page.startswith("Before.\n<!-- results: tiny -->\n90 test images of 60 lesions")
    assert page.endswith("\n<!-- end -->\nAfter.\n")
    names = [line.split("|")[1].strip() for line in page.splitlines() if line.startswith("| ")]
    assert names == ["name", "---", "better", "ce"]
    drawn = ElementTree.parse(study / "docs/results/tiny.svg").getroot()
    ends = [line.attrib for line in drawn if line.get("class") == "interval"]
    centers = [float(point.get("cx")) for point in drawn if point.tag.endswith("circle")]
    assert len(ends) == 2
    assert all(
        float(end["x1"]) < center < float(end["x2"])
        for end, center in zip(ends, centers, strict=True)
    )
    kept = pd.read_csv(study / "docs/results/tiny.csv")
    assert kept[["row", "seed"]].to_numpy().tolist() == [["better", 0], ["ce", 0], ["ce", 1]]


def test_a_page_without_a_place_is_left_alone(make_run, study, publish):
    make_run("tiny-ce")
    (study / "docs/results.md").write_text("Nothing.\n")
    with pytest.raises(SystemExit, match="add the lines <!-- results: tiny -->"):
        publish()
    assert (study / "docs/results.md").read_text() == "Nothing.\n"


@pytest.mark.parametrize("name", ["tiny.csv", "test_597760c5abbe.csv"])
@pytest.mark.parametrize("damage", [b"", b"<<<<<<< HEAD\na,b\n=======\n", b"\xff\xfe\0"])
def test_a_damaged_archive_is_named(make_run, study, publish, name, damage):
    make_run("tiny-ce")
    publish()
    file = study / "docs/results" / name
    file.write_bytes(damage)
    with pytest.raises(SystemExit, match=f"{name} cannot be read .*: restore it"):
        publish()
    assert file.read_bytes() == damage


def test_synthetic_runs_are_published_as_such(make_run, study, publish):
    make_run("tiny-ce", synthetic=True)
    publish()
    assert "SYNTHETIC DATA" in (study / "docs/results.md").read_text()


def test_runs_of_changed_files_are_published_as_such(make_run, study, publish):
    make_run("tiny-ce", commit="0123456789ab-dirty")
    make_run("tiny-better", commit="0123456789ab")
    publish()
    page = (study / "docs/results.md").read_text()
    assert "commit 0123456 (better); 0123456-dirty (ce);" in page
