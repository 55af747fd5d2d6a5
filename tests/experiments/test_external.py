"""A run that was trained for a moment on drawn skin diseases, tested on another hospital's."""

import json
import re
import shutil
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch

from callbacks.console import decimals
from callbacks.errors import RunError
from callbacks.recording.decision import Decision
from callbacks.run_folder import RunFolder
from datamodules.synthetic import synthesize
from experiments.command_line.cli import run_command
from experiments.compare import __main__ as compare_command
from experiments.use import apply
from experiments.use.external import evaluate_on
from tests.own_data import DISEASES, describe, draw

OTHER_PATIENTS = {"psoriasis": 10, "eczema": 20, "acne": 20}
TINT = (-60, -10, 40)  # of the other hospital's camera
RUN = Path("runs/small_ce/seed0")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a run, its data and those of another hospital."""
    place = tmp_path_factory.mktemp("hospitals")
    draw(place / "mine")
    draw(place / "other", patients=OTHER_PATIENTS, tint=TINT, seed=1)
    data = (f"--data.root={place / 'mine'}", "--data.split=Stratified")
    data += ("--data.split.test_fraction=0.3", "--data.sampler=ClassBalanced", "--data.size=24")
    data += ("--data.batch_size=16", "--data.num_workers=0")
    trainer = ("max_epochs=24", "check_val_every_n_epoch=4", "accelerator=cpu")
    trainer += ("enable_progress_bar=false",)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        patch.setenv("WANDB_MODE", "disabled")
        patch.setattr(sys, "argv", ["experiments"])
        run_command(["fit", "--config=small_ce", *data, *(f"--trainer.{o}" for o in trainer)])
        run_command(["test", f"--config={RUN}/config.yaml", f"--ckpt_path={RUN}/best.ckpt"])
    return place


@pytest.fixture
def run(place, tmp_path):
    """A copy of the run, in the working directory."""
    shutil.copytree(place / "runs", tmp_path / "runs")
    return RunFolder(RUN)


def own_files():
    return {file.name: file.read_bytes() for file in RUN.iterdir() if file.is_file()}


def subset(place, to, diseases, **columns):
    """The other hospital's data set with some diseases and other columns."""
    shutil.copytree(place / "other", to)
    table = pd.read_csv(to / "table.csv", dtype=str)
    table = table[table["diagnosis"].isin(diseases)].reset_index(drop=True)
    table.assign(**{k: v[: len(table)] for k, v in columns.items()}).to_csv(
        to / "table.csv", index=False
    )
    return to


def test_the_drop_on_another_hospital_is_in_all_reports(run, place, monkeypatch, capsys):
    before = own_files()
    on = subset(place, Path("clinic b"), DISEASES, sex=["male", "female"] * 40)
    monkeypatch.setattr("sys.argv", ["evaluate", str(RUN), "--on", str(on)])
    apply.evaluate()
    told = capsys.readouterr().out
    assert "image ids occur in both data sets, but these images look different" in told
    assert re.search(r"Gap by sex: 0\.\d+ \[.*\] between (fe)?male and", told)
    assert own_files() == before
    assert run.tested_on == ["clinic_b"]
    results, predictions = run.on("clinic_b").results(), run.on("clinic_b").predictions()
    assert predictions["dx"].value_counts().to_dict() == {"eczema": 30, "acne": 30, "psoriasis": 15}
    assert results["on"]["group"] == "patient"
    assert [group["group"] for group in results["subgroups"]] == ["under 40", "female", "male"]
    assert results["gaps"][0]["kind"] == "sex"

    monkeypatch.setattr("sys.argv", ["compare", "--resamples=200"])
    compare_command.main()
    told = capsys.readouterr().out
    assert "clinic_b: 75 images of 50 patients." in " ".join(told.split())
    line = pd.read_csv("compare/external.csv").iloc[0]
    own = run.results()["metrics"]["balanced_accuracy"]
    other = results["metrics"]["balanced_accuracy"]
    assert line["own_same_classes"] == pytest.approx(own)
    assert line["balanced_accuracy"] == pytest.approx(other)
    assert line["change"] == pytest.approx(other - own)
    assert line["change"] < -0.2
    assert line["change_lesions_high"] < 0
    assert decimals(other) in Path("compare/table.md").read_text()
    page = re.search(
        r'<script id="data" type="application/json">(.*?)</script>',
        Path("compare/index.html").read_text(),
        re.DOTALL,
    )
    data = json.loads(page[1])
    assert data["external"][0]["rows"][0]["difference"]["mean"] == pytest.approx(other - own)
    assert [test["test"] for test in data["subgroups"]] == ["own test", "clinic_b"]
    assert data["subgroups"][0]["group"] == run.results()["group"] == "patient"
    tested = pd.read_csv("compare/subgroups.csv").groupby("test")["group"].agg(list)
    assert tested["clinic_b"] == ["under 40", "female", "male"]


def test_classes_are_mapped_and_those_without_images_are_not_averaged(run, place, tmp_path, capsys):
    on = subset(place, tmp_path / "other", ["psoriasis", "acne"])
    table = pd.read_csv(on / "table.csv", dtype=str)
    table["diagnosis"] = table["diagnosis"].map({"psoriasis": "plaque_psoriasis", "acne": "ACNE"})
    table.loc[:3, "diagnosis"] = "scar"
    table.to_csv(on / "table.csv", index=False)
    describe(on, classes=["scar", "ACNE", "plaque_psoriasis"])
    Path("map.csv").write_text("label,class\nPlaque psoriasis,psoriasis\nAcne,acne\nscar,\n")
    with pytest.raises(Exception, match="None of the labels .* by name: set --mapping"):
        evaluate_on(RUN, on)
    results = evaluate_on(RUN, on, mapping="map.csv").results()
    told = capsys.readouterr().out
    assert "4 images were left out because their labels are not classes of the run: scar 4." in told
    assert "No image shows eczema: recall is not defined there" in told
    metrics = results["metrics"]
    assert metrics["recall_eczema"] is None
    both = (metrics["recall_psoriasis"] + metrics["recall_acne"]) / 2
    assert metrics["balanced_accuracy"] == pytest.approx(both)
    assert results["on"]["absent"] == ["eczema"]
    assert results["intervals"].keys() >= {"recall_acne", "balanced_accuracy"}
    given = run.on("other").predictions()["given"]
    assert set(given) == {"ACNE", "plaque_psoriasis"}


def test_what_was_chosen_for_the_run_decides_there_too(run, place):
    split = run.split()
    Decision(tuple(DISEASES), 1.0, (0.0, 0.0, 50.0)).save(RUN)  # always acne
    on = place / "mine"
    target = evaluate_on(RUN, on, name="again")
    predictions, results = target.predictions(), target.results()
    assert set(predictions["decision"]) == {"acne"}
    assert results["decided"]["balanced_accuracy"] == pytest.approx(1 / 3)
    # The run's own data: what it has seen is left out, and the test split remains.
    seen = split[split["split"] != "test"]
    assert results["on"]["leaked"] == {"same pixels": len(seen)}
    own = run.predictions().set_index("image_id").filter(like="p_")
    there = predictions.set_index("image_id").filter(like="p_")
    torch.testing.assert_close(
        torch.tensor(there.loc[own.index].to_numpy()), torch.tensor(own.to_numpy()),
        atol=1e-5, rtol=1e-4,
    )  # fmt: skip


def test_the_test_split_is_scored_where_there_is_one(run, place, tmp_path):
    on = subset(place, tmp_path / "split", DISEASES, split=["train", "test", "val"] * 25)
    assert len(evaluate_on(RUN, on).predictions()) == 25
    assert len(evaluate_on(RUN, on, split="all").predictions()) == 75
    with pytest.raises(RunError, match="no images whose column split is test: set --split=all"):
        evaluate_on(RUN, place / "other", split="test")


def test_a_release_can_be_the_other_data_set(run):
    synthesize(Path("release"), images=60, width=48)
    Path("map.csv").write_text("label,class\nmel,acne\nnv,eczema\n")
    target = evaluate_on(RUN, Path("release"), mapping="map.csv")
    results, predictions = target.results(), target.predictions()
    assert results["synthetic"]
    assert results["on"]["sentences"][0].startswith("SYNTHETIC DATA")
    assert results["on"]["group"] == "lesion"
    assert set(results["on"]["dropped"]) == {"bcc", "akiec", "bkl", "df", "vasc"}
    assert len(predictions) + sum(results["on"]["dropped"].values()) == 60


def test_a_name_stands_for_one_data_set(run, place, tmp_path):
    target = evaluate_on(RUN, place / "other", own=place / "mine")
    assert target.results()["on"]["root"] == str(place / "other")
    moved = subset(place, tmp_path / "b" / "other", DISEASES)
    with pytest.raises(RunError, match="a test on .*other: set --name to another name"):
        evaluate_on(RUN, moved)


def test_a_folder_without_letters_needs_a_name():
    with pytest.raises(RunError, match="皮肤 has no letters a-z .*: add --name NAME"):
        evaluate_on(RUN, Path("皮肤"))
    with pytest.raises(RunError, match="There is no run folder"):
        evaluate_on(RUN, Path("皮肤"), name="skin")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--mapping", "x.csv"], "--mapping is for tests on other data sets: add --on FOLDER"),
        (["--on", "x", "--checkpoint", "last"], "--on tests best.ckpt as it was trained"),
        (["--on", "x", "--data.size=8"], "--on tests best.ckpt as it was trained"),
    ],
)
def test_options_that_do_not_go_together(options, message, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["evaluate", "runs/a/seed0", *options])
    with pytest.raises(SystemExit):
        apply.evaluate()
    assert message in capsys.readouterr().err
