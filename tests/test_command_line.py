"""The command line: training, resuming, testing and using a run, and error messages."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import timm
import torch
import yaml
from filelock import FileLock
from PIL import Image

from callbacks.errors import RunError
from callbacks.recording.decision import Decision
from callbacks.safety.progress import epochs_done
from datamodules.layout import image_files
from experiments import load
from experiments.command_line.cli import main, run_command
from experiments.command_line.failures import fixable
from experiments.running.resume import resume_from
from experiments.running.status import status
from tests.parsed import parsed

ROOT = Path(__file__).parents[1]
PLAIN = ROOT / "tests" / "plain.yaml"
RUN = Path("runs/demo/seed0")


def arguments(lesions, *more):
    return [
        f"--config={PLAIN}",
        f"--data.root={lesions}",
        "--data.split.test_images=3",
        "--data.split.val_images=2",
        "--data.size=32",
        "--model.network.name=test_resnet",
        "--trainer.max_epochs=1",
        "--trainer.accelerator=cpu",
        "--trainer.enable_progress_bar=false",
        *more,
    ]


def fit(lesions, *more):
    return run_command(["fit", *arguments(lesions, *more)])


def use(command, *more, checkpoint="best.ckpt"):
    return run_command(
        [command, f"--config={RUN}/config.yaml", f"--ckpt_path={RUN}/{checkpoint}", *more]
    )


@pytest.fixture
def error(monkeypatch, capsys):
    """Run a command that must fail; return its message."""

    def of(*args):
        monkeypatch.setattr("sys.argv", ["experiments", *args])
        with pytest.raises(SystemExit) as exit_:
            main()
        said = capsys.readouterr().err if exit_.value.code == 2 else str(exit_.value.code)
        assert "Traceback" not in said
        return said

    return of


def test_a_run_from_training_to_predictions(lesions, tmp_path, capsys):
    fit(lesions)
    assert {p.name for p in RUN.iterdir()} >= {
        "config.yaml",
        "split.csv",
        "metrics.jsonl",
        "best.ckpt",
        "last.ckpt",
    }
    split = pd.read_csv(RUN / "split.csv")
    assert (split.groupby("lesion_id")["split"].nunique() == 1).all()
    said = capsys.readouterr().out
    assert "SYNTHETIC DATA" in said
    assert "akiec" in said

    use("test")
    results = json.loads((RUN / "results.json").read_text())
    assert results["synthetic"] is True
    assert results["metrics"]["support_df"] == 3
    assert results["checkpoint"]["epoch"] == 0
    predictions = pd.read_csv(RUN / "test_predictions.csv")
    assert set(predictions["image_id"]) == set(split.loc[split["split"] == "test", "image_id"])
    columns = [f"p_{name}" for name in results["classes"]]
    decided = predictions[columns].idxmax(axis="columns").str.removeprefix("p_")
    accuracy = (decided == predictions["dx"]).mean()
    assert results["metrics"]["accuracy"] == pytest.approx(accuracy)
    assert results["training"]["best_epoch"] == results["training"]["last_epoch"] == 0

    use("test", checkpoint="last.ckpt")
    last = json.loads((RUN / "last_results.json").read_text())
    assert last["checkpoint"]["file"].endswith("last.ckpt")
    assert last["metrics"] == results["metrics"]  # there is only one epoch
    both = [RUN / f"{epoch}test_predictions.csv" for epoch in ("", "last_")]
    assert both[0].read_bytes() == both[1].read_bytes()

    photos = tmp_path / "photos"
    photos.mkdir()
    tested = predictions.iloc[0]
    Image.open(image_files(lesions)[tested["image_id"]]).save(photos / "a.png")
    (photos / "b.jpg").write_bytes(b"no image")
    (photos / "c.heic").write_bytes(b"\0\0\0\x18ftypheic")
    use("predict", f"--data.predict_folder={photos}")
    table = pd.read_csv(RUN / "predictions.csv")
    assert table["image"].tolist() == ["a.png", "b.jpg"]
    assert table["decision"].tolist() == [decided[0], "unreadable"]
    assert table.loc[0, columns].to_numpy(float) == pytest.approx(tested[columns].to_numpy(float))
    assert table.loc[1, columns].isna().all()
    assert table["reason"].fillna("").tolist() == ["", "not an image of a known format"]
    out = capsys.readouterr().out
    assert "1 images cannot be read: b.jpg (not an image of a known format)" in out
    assert "1 files were left out" in out
    assert "c.heic" in out


def test_the_same_command_goes_on_and_says_when_it_is_finished(lesions, capsys):
    fit(lesions)
    with pytest.raises(SystemExit) as finished:
        fit(lesions)
    assert finished.value.code == 0
    assert "runs/demo/seed0 is finished: 1 epochs" in capsys.readouterr().out
    cli = fit(lesions, "--trainer.max_epochs=2")
    assert "Resuming from runs/demo/seed0/last.ckpt: 1 epochs" in capsys.readouterr().out
    assert cli.trainer.current_epoch == 2


def test_a_training_that_a_callback_stopped_is_finished(lesions, capsys):
    stop = [
        "--model.optimizer.lr=0.0",
        "--trainer.max_epochs=8",
        "--trainer.callbacks+=pytorch_lightning.callbacks.EarlyStopping",
        "--trainer.callbacks.monitor=val/balanced_accuracy",
        "--trainer.callbacks.mode=max",
    ]
    fit(lesions, *stop, "--trainer.callbacks.patience=1")
    assert epochs_done(resume_from(RUN)[1]) == 2
    assert status()["state"].tolist() == ["finished"]
    capsys.readouterr()
    with pytest.raises(SystemExit) as finished:
        fit(lesions, *stop, "--trainer.callbacks.patience=1")
    assert finished.value.code == 0
    said = capsys.readouterr().out
    assert "is finished: 2 epochs" in said
    assert "ended by EarlyStopping on val/balanced_accuracy (patience 1)" in said
    fit(lesions, *stop, "--trainer.callbacks.patience=3")  # as the message advises
    assert epochs_done(resume_from(RUN)[1]) >= 4


@pytest.mark.parametrize(
    ("limits", "end"),
    [
        (["--trainer.max_steps=5", "--trainer.max_epochs=9"], "max_steps"),
        (["--trainer.max_time={microseconds: 1}", "--trainer.max_epochs=9"], "max_time (0:00:00"),
    ],
)
def test_a_training_that_ran_out_of_time_or_steps_is_finished(lesions, capsys, limits, end):
    fit(lesions, *limits)
    assert status()["state"].tolist() == ["finished"]
    steps = resume_from(RUN)[1]["global_step"]
    capsys.readouterr()
    with pytest.raises(SystemExit) as finished:
        fit(lesions, *limits)
    assert finished.value.code == 0
    assert f"ended by {end}" in capsys.readouterr().out
    assert resume_from(RUN)[1]["global_step"] == steps


def test_another_seed_and_another_name_are_other_runs(lesions):
    fit(lesions, "--seed_everything=3", "--name=other")
    assert Path("runs/other/seed3/last.ckpt").exists()
    config = yaml.safe_load(Path("runs/other/seed3/config.yaml").read_text())
    assert config["data"]["split"]["init_args"] == {
        "test_images": 3,
        "val_images": 2,
        "seed": 0,
    }


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ("--model.network.drop_rate=0.1", "model.network.drop_rate"),
        ("--data.size=48", "data.size"),
        ("--data.split.seed=1", "data.split.seed"),
    ],
)
def test_a_changed_run_is_refused_by_the_key_that_differs(lesions, error, change, key):
    fit(lesions)
    said = error("fit", *arguments(lesions, "--trainer.max_epochs=2", change))
    assert f"runs/demo/seed0 was started with {key} = " in said


def test_a_run_that_has_learned_nothing_may_change(lesions):
    fit(lesions)
    for checkpoint in RUN.glob("*.ckpt"):
        checkpoint.unlink()
    fit(lesions, "--data.size=48")
    assert yaml.safe_load((RUN / "config.yaml").read_text())["data"]["size"] == 48


def test_how_a_network_was_initialised_may_change(lesions):
    fit(lesions)
    weights = f"--model.network.weights={RUN}/best.ckpt"
    fit(lesions, "--trainer.max_epochs=2", weights)


def test_a_trained_run_is_used_without_its_initial_weights(lesions):
    torch.save(timm.create_model("test_resnet").state_dict(), "initial.pth")
    fit(lesions, "--model.network.weights=initial.pth")
    Path("initial.pth").unlink()
    use("test", "--trainer.limit_test_batches=1")
    assert load(RUN).probabilities(np.zeros((1, 32, 32, 3), np.uint8)).shape == (1, 7)


def test_a_run_is_trained_by_one_process_at_a_time(lesions, error):
    RUN.mkdir(parents=True)
    with FileLock(RUN / ".lock"):
        assert "Another process is training runs/demo/seed0" in error("fit", *arguments(lesions))


def test_nothing_to_score_yet(lesions, error):
    fit(lesions)
    (RUN / "best.ckpt").unlink()
    run_ = [f"--config={RUN}/config.yaml", f"--ckpt_path={RUN}/best.ckpt"]
    assert "There is no checkpoint runs/demo/seed0/best.ckpt" in error("test", *run_)


def test_a_trial_of_the_test_is_no_result(lesions):
    fit(lesions)
    use("test", "--trainer.limit_test_batches=1", "--data.batch_size=8")
    assert not (RUN / "results.json").exists()


def test_a_checkpoint_within_an_accumulation_is_passed_over(lesions):
    every_batch = [
        "--trainer.callbacks+=pytorch_lightning.callbacks.ModelCheckpoint",
        "--trainer.callbacks.filename=batch{step}",
        "--trainer.callbacks.save_top_k=-1",
        "--trainer.callbacks.every_n_train_steps=1",
    ]
    fit(lesions, "--data.batch_size=32", "--trainer.val_check_interval=3", *every_batch)
    steps = {
        path.name: torch.load(path, weights_only=True)["global_step"]
        for path in RUN.glob("batch*.ckpt")
    }
    whole_epoch = max(steps, key=steps.get)
    assert steps[whole_epoch] == 11
    for other in ("last.ckpt", "best.ckpt", whole_epoch):
        (RUN / other).unlink()
    assert resume_from(RUN, accumulated=1)[1]["global_step"] == 10
    assert resume_from(RUN, accumulated=4)[1]["global_step"] == 8


def test_a_copied_run_goes_on_from_where_it_was(lesions):
    fit(lesions)
    fit(lesions, "--trainer.max_epochs=3")
    (RUN / "best.ckpt").touch()  # copies have new file times
    path, checkpoint = resume_from(RUN)
    assert checkpoint["epoch"] == 2
    assert path == RUN / "last.ckpt"


def test_a_decision_is_chosen_on_validation_and_used(lesions, tmp_path):
    fit(lesions)
    use(
        "validate",
        "--trainer.callbacks+=callbacks.ChooseDecision",
        "--trainer.callbacks.rule=Sensitivity",
        "--trainer.callbacks.rule.at_least=1.0",
    )
    decision = Decision.load(RUN)
    assert decision.offsets[0] != 0
    assert not any(decision.offsets[1:])
    use("test")
    results = json.loads((RUN / "results.json").read_text())
    table = pd.read_csv(RUN / "test_predictions.csv")
    melanomas = table[table["dx"] == "mel"]
    found = (melanomas["decision"] == "mel").mean()
    assert results["decided"]["recall_mel"] == pytest.approx(found)
    photos = tmp_path / "photos"
    photos.mkdir()
    for image in table["image_id"]:
        (photos / f"{image}.jpg").symlink_to(image_files(lesions)[image])
    use("predict", f"--data.predict_folder={photos}")
    predicted = pd.read_csv(RUN / "predictions.csv").set_index("image")["decision"]
    assert (predicted[table["image_id"] + ".jpg"].to_numpy() == table["decision"]).all()


def test_sets_and_abstention_are_chosen_on_validation_and_used(lesions, tmp_path, capsys):
    fit(lesions)
    choose = "--trainer.callbacks+=callbacks.ChooseDecision"
    use("validate", choose, "--trainer.callbacks.rule=LogitAdjustment")
    kept = (RUN / "decision.json").read_text()
    chosen = Decision.load(RUN)
    sets = ("--trainer.callbacks.sets=Marginal", "--trainer.callbacks.sets.coverage=0.8")
    use("validate", choose, *sets)
    assert "with a probability of at least 0.8, if lesions" in capsys.readouterr().out
    assert (RUN / "decision.json").read_text() == kept
    use("validate", choose, "--trainer.callbacks.min_share=0.5")
    decision = Decision.load(RUN)
    assert decision == replace(chosen, threshold=decision.threshold)
    assert decision.threshold > 0

    # A renamed run keeps what was chosen, and uses it alone.
    renamed = RUN.rename(RUN.with_name("seed5"))
    saved = [f"--config={renamed}/config.yaml", f"--ckpt_path={renamed}/best.ckpt"]
    run_command(["test", *saved])
    results = json.loads((renamed / "results.json").read_text())
    table = pd.read_csv(renamed / "test_predictions.csv", keep_default_na=False)
    assert (results["sets"]["kind"], results["sets"]["target"]) == ("Marginal", 0.8)
    covered = [dx in names.split() for dx, names in zip(table["dx"], table["set"], strict=True)]
    images = table.groupby("lesion_id")["dx"].transform("size")
    lesions_covered = (covered / images).sum() / (1 / images).sum()
    assert results["sets"]["coverage"] == pytest.approx(lesions_covered)
    assert set(results["sets"]["per_class"]) == set(results["classes"])
    assert (table["confident"] == (table["confidence"] >= decision.threshold)).all()
    decided = (table["confident"] / images).sum() / (1 / images).sum()
    assert results["abstention"]["share"] == pytest.approx(decided)
    assert results["abstention"]["threshold"] == decision.threshold

    photos = tmp_path / "photos"
    photos.mkdir()
    for image in table["image_id"]:
        (photos / f"{image}.jpg").symlink_to(image_files(lesions)[image])
    (photos / "z.jpg").write_bytes(b"no image")
    run_command(["predict", *saved, f"--data.predict_folder={photos}"])
    predicted = pd.read_csv(renamed / "predictions.csv", keep_default_na=False).set_index("image")
    assert predicted.loc["z.jpg", ["decision", "confident", "set"]].tolist() == [
        "unreadable",
        "",
        "",
    ]
    predicted = predicted.loc[table["image_id"] + ".jpg"]
    assert predicted["set"].tolist() == table["set"].tolist()
    assert predicted["confident"].tolist() == table["confident"].astype(str).tolist()

    run = load(renamed)
    paths = [image_files(lesions)[image] for image in table["image_id"][:4]]
    assert run.sets(paths) == [names.split() for names in table["set"][:4]]
    assert run.confident(paths) == table["confident"][:4].tolist()
    (renamed / "sets.json").unlink()
    with pytest.raises(RunError, match=r"seed5 has no sets\.json: choose prediction sets with"):
        load(renamed).sets(paths)


def test_sets_of_an_epoch_that_training_has_replaced_are_refused(lesions, error):
    fit(lesions)
    choose = "--trainer.callbacks+=callbacks.ChooseDecision"
    use("validate", choose, "--trainer.callbacks.sets=ClassConditional")
    fit(lesions, "--trainer.max_epochs=2")
    (RUN / "best.ckpt").write_bytes((RUN / "last.ckpt").read_bytes())  # as if it were the better
    saved = [f"--config={RUN}/config.yaml", f"--ckpt_path={RUN}/best.ckpt"]
    assert "was chosen for the checkpoint of step" in error("test", *saved)
    photos = f"--data.predict_folder={lesions}/HAM10000_images_part_1"
    assert "choose them again with `make decide SETS=" in error("predict", *saved, photos)
    assert not (RUN / "results.json").exists()
    use("validate", choose, "--trainer.callbacks.sets=ClassConditional")
    use("test")


def test_where_the_data_lie_may_change(lesions, tmp_path):
    fit(lesions)
    (tmp_path / "elsewhere").symlink_to(lesions)
    fit(tmp_path / "elsewhere", "--trainer.max_epochs=2", "--data.num_workers=1")


def test_other_data_under_the_same_name_are_refused(lesions, error):
    fit(lesions)
    split = pd.read_csv(RUN / "split.csv")
    split.loc[0, "split"] = "test"
    split.to_csv(RUN / "split.csv", index=False)
    assert "records another split" in error("fit", *arguments(lesions, "--trainer.max_epochs=2"))


def test_a_run_continues_where_lesions_were_joined_without_changing_a_part(lesions):
    fit(lesions)
    split = pd.read_csv(RUN / "split.csv")
    split.loc[0, "lesion_id"] = "HAM_0000000"
    split.to_csv(RUN / "split.csv", index=False)
    fit(lesions, "--trainer.max_epochs=2")


def test_a_damaged_checkpoint_is_named_and_the_one_before_it_taken(lesions, capsys):
    fit(lesions)
    last = RUN / "last.ckpt"
    last.write_bytes(last.read_bytes()[:5000])
    path, _ = resume_from(RUN)
    assert path == RUN / "best.ckpt"
    assert "last.ckpt is damaged" in capsys.readouterr().err
    assert resume_from(Path("nowhere")) is None


def test_a_checkpoint_that_does_not_fit_or_is_damaged(lesions, error):
    fit(lesions)
    best = RUN / "best.ckpt"
    run_ = [f"--config={RUN}/config.yaml", f"--ckpt_path={best}"]
    checkpoint = torch.load(best)
    checkpoint["state_dict"].popitem()
    torch.save(checkpoint, best)
    assert "The checkpoint does not fit the network" in error("test", *run_)
    best.write_bytes(best.read_bytes()[:5000])
    assert f"{best} is damaged" in error("test", *run_)
    assert "There is no checkpoint none.ckpt" in error(
        "fit", *arguments(lesions, "--name=other", "--ckpt_path=none.ckpt")
    )


def test_a_record_that_is_whole_or_the_old_one(lesions, error, monkeypatch):
    fit(lesions)
    record = RUN / "config.yaml"
    before = record.read_text()
    with monkeypatch.context() as patch, pytest.raises(ZeroDivisionError):
        patch.setattr("callbacks.atomic_files.os.replace", lambda *_: 1 / 0)  # as if killed
        fit(lesions, "--trainer.max_epochs=2")
    assert record.read_text() == before
    record.write_text("")
    assert f"{record} cannot be read" in error("fit", *arguments(lesions))


def test_checkpoints_hold_state_only(lesions):
    fit(lesions)
    for name in ("best", "last"):
        checkpoint = torch.load(RUN / f"{name}.ckpt", weights_only=True)
        assert "hyper_parameters" not in checkpoint


@pytest.mark.parametrize(
    ("flag", "said"),
    [
        (
            "--model.network.drop_ratio=0.1",
            "no option --model.network.drop_ratio (of lightning_modules.networks.TimmNetwork). "
            "Did you mean --model.network.drop_rate?",
        ),
        ("--model.optimizer.lrr=1", "(of torch.optim.AdamW). Did you mean --model.optimizer.lr?"),
        ("--trainer.max_epoch=3", "Did you mean --trainer.max_epochs?"),
        ("--mix.help=SPMix", "error: There is no option --mix.help. List"),
        ("--data.sampler=SquareRot", "Did you mean datamodules.samplers.SquareRoot?"),
        ("--trainer.callbacks+=callbacks.Overlay", "Did you mean callbacks.Overlays?"),
        ("--data.split.test_images=abc", "--data.split.test_images: Expected int."),
        ("--model.optimizer.lr=0,001", "--model.optimizer.lr: Expected float. Got value: 0,001"),
        ("--trainer.max_epochs=1.5", "max_epochs: Expected int or null. Got value: 1.5"),
        ("--data.root=nowhere", "No data in nowhere. Install HAM10000 with `make data`"),
        ("--model.network.name=resnet81", "timm has no model 'resnet81'"),
        ("--model.network.pretrained=true", "--model.network.pretrained=false"),
        ("--data.split.test_images=300", "The balanced split takes 300 test images"),
        ("--data.batch_size=5000", "do not fill one batch of 5000"),
    ],
)
def test_mistakes_are_one_sentence(lesions, error, flag, said):
    assert said in error("fit", *arguments(lesions, flag))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "model: {init_args: {network: {init_args: {drop_ratio: 0.1}}}}",
            "no option --model.network.drop_ratio (of lightning_modules.networks.TimmNetwork), "
            "which mine.yaml sets. Did you mean --model.network.drop_rate?",
        ),
        ("data: {batch: 8}", "no option --data.batch, which mine.yaml sets. Did you mean --data.b"),
        (
            "model: {init_args: {optimizer: {class_path: torch.optim.SGD, init_args: {lr: x}}}}",
            "--model.optimizer.lr in mine.yaml: Expected float",
        ),
    ],
)
def test_a_mistake_in_a_file_is_reported_with_its_path_and_the_file(lesions, error, text, said):
    Path("mine.yaml").write_text(text)
    assert said in error("fit", *arguments(lesions, "--config=mine.yaml"))


def test_the_printed_options_are_those_that_a_command_takes(capsys):
    command = ["fit", "--config=vgg_ce", "--name=x", "--data.size=32"]
    with pytest.raises(SystemExit) as end:
        run_command([*command, "--print_config"])
    assert end.value.code in (0, None)
    printed = yaml.safe_load(capsys.readouterr().out)
    taken = parsed(*command)
    assert printed["data"]["size"] == taken["data"]["size"] == 32
    assert printed["model"]["init_args"]["network"]["init_args"]["name"] == "vgg16.tv_in1k"
    assert printed["model"]["class_path"] == taken["model"]["class_path"]
    assert printed["trainer"]["max_epochs"] == taken["trainer"]["max_epochs"]


def test_a_class_path_without_a_class_names_the_nearest():
    # In a subprocess, because the parser also tries classes imported by other tests.
    command = [sys.executable, "-m", "experiments", "train", "small_ce"]
    outcome = subprocess.run(
        [*command, "--model.criterion.class_path=FocalLos"],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert outcome.returncode == 2
    _, said = outcome.stderr.split("\n", 1)
    assert said.startswith("error: There is no class FocalLos for --model.criterion.")
    assert "Did you mean lightning_modules.losses.FocalLoss?" in outcome.stderr


def test_a_folder_without_images(lesions, error, tmp_path):
    fit(lesions)
    (tmp_path / "empty").mkdir()
    run_ = [f"--config={RUN}/config.yaml", f"--ckpt_path={RUN}/best.ckpt"]
    assert "contains no image" in error("predict", *run_, "--data.predict_folder=empty")
    assert "set data.predict_folder" in error("predict", *run_)


def test_other_errors_keep_their_traceback():
    assert fixable(ValueError("a defect")) is None


def test_binary_task_end_to_end(lesions):
    cli = fit(lesions, "--data.task=melanoma", "--data.batch_size=32")
    assert cli.model(torch.rand(2, 3, 32, 32)).shape == (2, 2)
    use("test")
    results = json.loads((RUN / "results.json").read_text())
    assert results["classes"] == ["nv", "mel"]
    assert "many_accuracy" not in results["metrics"]


def test_every_timm_backbone_by_name(lesions):
    cli = fit(lesions, "--model.network.name=test_vit", "--data.size=160")
    assert type(cli.model.network.model).__name__ == "VisionTransformer"
