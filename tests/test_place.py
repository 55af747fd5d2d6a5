"""Results are written to the folder of the checkpoint and to no other."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
import torch

from callbacks.errors import RunError
from experiments.command_line.cli import run_command
from experiments.running.place import refuse_name, run_dir, run_group, run_id
from tests.test_command_line import RUN, fit

DECIDE = [
    "--trainer.callbacks+=callbacks.ChooseDecision",
    "--trainer.callbacks.rule=ArgMax",
]


def use(command, folder, *more):
    run_command(
        [command, f"--config={folder}/config.yaml", f"--ckpt_path={folder}/best.ckpt", *more]
    )


def content(folder):
    return {f: f.read_bytes() for f in folder.rglob("*") if f.is_file()}


def test_a_renamed_run_is_used_where_it_lies(lesions, capsys, tmp_path):
    fit(lesions)
    old, archived, copied = RUN, Path("runs/archived/seed0"), Path("backup/of it/demo/seed0")
    archived.parent.mkdir()
    old.rename(archived)
    shutil.copytree(archived, copied)
    photos = tmp_path / "photos"
    photos.mkdir()
    shutil.copy(next((lesions / "HAM10000_images_part_1").glob("*.jpg")), photos)
    old.mkdir()
    (old / "results.json").write_text("of another training")
    before = content(old)
    for folder in (archived, copied):
        use("validate", folder, *DECIDE)
        use("test", folder)
        use("predict", folder, f"--data.predict_folder={photos}")
        assert content(old) == before
        results = json.loads((folder / "results.json").read_text())
        assert results["name"] == folder.parent.name
        assert results["decided"] is not None
        assert results["training"]["best_epoch"] == 0
        assert len(pd.read_csv(folder / "predictions.csv")) == 1
        assert list((folder / "attention").iterdir())
        assert f"{folder} was trained as {old}" in capsys.readouterr().out
    with pytest.raises(RunError, match="belong to two runs"):
        run_command(["test", f"--config={copied}/config.yaml", f"--ckpt_path={archived}/best.ckpt"])
    with pytest.raises(RunError, match="omit --name"):
        use("test", archived, "--name=other")
    with pytest.raises(RunError, match=r"No checkpoint is given: set --ckpt_path"):
        run_command(["test", f"--config={archived}/config.yaml"])
    with pytest.raises(RunError, match="still names the run runs/demo/seed0, which is another run"):
        run_command(["fit", f"--config={archived}/config.yaml"])
    assert content(old) == before


def test_a_renamed_run_keeps_its_best_epoch(lesions):
    """A better epoch replaces ``best.ckpt``; the first one in the new folder does not."""
    fit(lesions)
    moved = Path("runs/moved/seed0")
    moved.parent.mkdir()
    RUN.rename(moved)
    checkpoint = torch.load(moved / "last.ckpt")
    (best,) = (each for name, each in checkpoint["callbacks"].items() if "balanced" in name)
    unbeatable = torch.tensor(2.0)
    scores = dict.fromkeys(best["best_k_models"], unbeatable)
    best |= {"best_k_models": scores, "best_model_score": unbeatable, "kth_value": unbeatable}
    torch.save(checkpoint, moved / "last.ckpt")
    before = (moved / "best.ckpt").read_bytes()
    fit(lesions, "--name=moved", "--trainer.max_epochs=2")
    assert (moved / "best.ckpt").read_bytes() == before
    assert not RUN.exists()


def test_places_and_what_wandb_knows_them_by(tmp_path):
    assert run_dir("ce", 1) == "runs/ce/seed1"
    assert run_dir("ce", 1, "runs/other/seed1/best.ckpt") == "runs/other/seed1"
    assert run_dir("ce", 1, "best.ckpt") == str(tmp_path)
    assert run_group("ce", 1, "runs/other/seed1/best.ckpt") == "other"
    places = ["runs/a/seed0", "runs/b/seed0", "backup/a/seed0", "runs/a#/seed0", "runs/a_/seed0"]
    ids = [run_id("a", 0, f"{place}/best.ckpt") for place in places]
    assert ids[0] == run_id("a", 0) == "a-seed0"
    assert len(set(ids)) == len(places)
    assert not any(set(each) & set("/#?%:\\") for each in ids)


@pytest.mark.parametrize("name", ["", "..", "a/b", "a:b", "a#", "a?", "a%", "a;b", "a,b", "'a'"])
def test_names_that_are_no_folder_or_no_id(name):
    with pytest.raises(RunError, match="use 1 to 100 letters"):
        refuse_name(name)


def test_names_of_runs():
    for name in ("imbalance-ce", "sweep-x1y2", "small_ce", "v1.5", "dev"):
        refuse_name(name)
