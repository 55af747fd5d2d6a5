"""Use of trained runs: export, ensembles, model cards."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from callbacks.console import decimals
from callbacks.errors import RunError
from callbacks.recording.decision import Decision
from callbacks.recording.sets import PredictionSets
from experiments.command_line.cli import run_command
from experiments.use import card, ensemble, export
from experiments.use.trained import restore

ROOT = Path(__file__).parents[2]
SEEDS = [Path(f"runs/small_ce/seed{seed}") for seed in range(2)]


@pytest.fixture
def trained(lesions):
    """Two seeds, trained for one epoch and tested."""
    for seed, folder in enumerate(SEEDS):
        small = ("--data.size=32", "--trainer.max_epochs=1", "--trainer.accelerator=cpu")
        split = ("--data.split.test_images=3", "--data.split.val_images=2")
        config = f"--config={ROOT / 'experiments' / 'small_ce.yaml'}"
        quiet = "--trainer.enable_progress_bar=false"
        data = f"--data.root={lesions}"
        run_command(["fit", config, data, f"--seed_everything={seed}", *small, *split, quiet])
        run_command(["test", f"--config={folder}/config.yaml", f"--ckpt_path={folder}/best.ckpt"])


def table(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / "test_predictions.csv").set_index("image_id")


@pytest.mark.usefixtures("trained")
def test_runs_decide_by_their_mean_probability_and_are_compared_like_runs():
    ensemble.evaluate(SEEDS, "both", 1, None)
    found = table(Path("runs/both/seed0")).filter(like="p_")
    mean = sum(table(seed).filter(like="p_") for seed in SEEDS) / 2
    np.testing.assert_allclose(found, mean, atol=1e-5)
    for name in ("results.json", "split.csv"):
        assert Path("runs/both/seed0", name).exists()
    both = "--config=runs/both/seed0/config.yaml", "--ckpt_path=runs/both/seed0/best.ckpt"
    with pytest.raises(RunError, match="both/seed0 is an ensemble"):
        run_command(["test", *both])
    with pytest.raises(RunError, match="results of another ensemble .*views 1.*another --name"):
        ensemble.evaluate(SEEDS, "both", 2, None)
    with pytest.raises(RunError, match="small_ce/seed0 holds a trained run"):
        ensemble.evaluate(SEEDS, "small_ce", 1, None)
    with pytest.raises(RunError, match="different splits"):
        other = restore(SEEDS[1], "--data.split.seed=1")
        ensemble.require_same_data(SEEDS, [restore(SEEDS[0]).datamodule, other.datamodule])


@pytest.mark.usefixtures("trained")
def test_an_exported_run_says_what_the_run_says(lesions, capsys):
    pytest.importorskip("onnxscript")
    names = tuple(restore(SEEDS[0]).datamodule.class_names)
    decision = Decision(names, 1.7, (0.5, *[0.0] * 6), threshold=0.3)
    decision.save(SEEDS[0])
    sets = PredictionSets(names, "Marginal", 0.9, (0.14,) * 7)
    sets.save(SEEDS[0])
    command = [sys.executable, "-W", "ignore", "-m", "experiments", "export", str(SEEDS[0])]
    config = SEEDS[0] / "config.yaml"
    recorded = config.read_text()
    config.write_text(recorded.replace(str(lesions), "nowhere"))  # export needs no data
    done = subprocess.run(command, capture_output=True, text=True, env=environment())
    assert done.returncode == 0, done.stderr
    config.write_text(recorded)
    assert done.stdout.count("same probabilities") == 2

    import onnxruntime

    session = onnxruntime.InferenceSession(str(SEEDS[0] / "export" / "model.onnx"))
    metadata = session.get_modelmeta().custom_metadata_map
    assert tuple(json.loads(metadata["classes"])) == decision.classes
    assert json.loads(metadata["decision"])["temperature"] == 1.7
    assert "Not a medical device" in metadata["notice"]

    data = restore(SEEDS[0]).datamodule
    rows = data.table.index[data.table["split"] == "test"]
    pixels = data.gather(rows)["image"].mul(255).round().byte().permute(0, 2, 3, 1)
    probability, decided = session.run(None, {"pixels": pixels.numpy()})
    plain = torch.tensor(
        table(SEEDS[0]).filter(like="p_").loc[data.table.loc[rows, "image_id"]].to_numpy()
    )
    np.testing.assert_allclose(probability, decision.calibrated(plain), atol=1e-5)
    assert decided.tolist() == decision(plain).tolist()

    # Sets and abstention follow from the outputs, by the rules that the metadata state.
    kept = json.loads(metadata["sets"])
    assert "softmax(temperature * log(probability)) >= its minimum" in kept["rule"]
    p = (1.7 * torch.tensor(probability).log()).softmax(1)
    minimum = torch.tensor([kept["minimum"][name] for name in names])
    clear = (p - 0.14).abs() > 1e-5
    assert torch.equal((p >= minimum)[clear], sets(plain)[clear])
    assert "softmax(log(probability) + offsets)" in metadata["abstention"]
    rule = json.loads(metadata["decision"])
    q = (torch.tensor(probability).log() + torch.tensor(rule["offsets"])).softmax(1)
    confidence = q.gather(1, torch.tensor(decided)[:, None]).squeeze(1)
    torch.testing.assert_close(confidence, decision.confidence(plain).float(), atol=1e-4, rtol=1e-4)
    assert rule["threshold"] == 0.3


def environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def test_an_export_that_says_something_else_is_refused():
    p, file = torch.tensor([[0.5, 0.3, 0.2], [0.1, 0.1, 0.8]]), Path("model.onnx")
    export.check(export.Outputs(p[:1], torch.tensor([0])), p, 1 - p, file)
    with pytest.raises(
        RunError, match=r"model\.onnx was not kept: its probabilities differ by up to 1\.0e-01"
    ):
        export.check(export.Outputs(p[:1] - 0.1, torch.tensor([0])), p, 1 - p, file)
    with pytest.raises(RunError, match="probabilities differ"):
        export.check(export.Outputs(p * torch.nan, torch.tensor([0, 2])), p, 1 - p, file)
    with pytest.raises(RunError, match="decisions differ"):
        export.check(export.Outputs(p, torch.tensor([0, 0])), p, 1 - p, file)


@pytest.mark.usefixtures("trained")
def test_the_card_has_the_numbers_of_the_run_and_says_what_it_is_not(monkeypatch):
    names = tuple(restore(SEEDS[0]).datamodule.class_names)
    Decision(names, threshold=0.1).save(SEEDS[0])
    PredictionSets(names, "Marginal", 0.9, (0.14,) * 7).save(SEEDS[0])
    saved = [f"--config={SEEDS[0]}/config.yaml", f"--ckpt_path={SEEDS[0]}/best.ckpt"]
    run_command(["test", *saved])
    monkeypatch.setattr(sys, "argv", ["card", str(SEEDS[0])])
    card.main()
    text = (SEEDS[0] / "card.md").read_text()
    results = json.loads((SEEDS[0] / "results.json").read_text())
    shown = re.search(r"balanced accuracy \| ([\d.]+)", text)
    assert float(shown[1]) == pytest.approx(results["metrics"]["balanced_accuracy"], abs=6e-4)
    for said in (
        "Not a medical device",
        "SYNTHETIC IMAGES",
        "Intended use",
        "test_resnet",
        "seed 0",
    ):
        assert said in text
    assert f"| {len(pd.read_csv(SEEDS[0] / 'test_predictions.csv'))} |" in text
    for name, row in (("sets", ("coverage", "size")), ("abstention", ("share", "risk"))):
        shown = " | ".join(decimals(results[name][value]) for value in row)
        assert f"\n| all | {shown} |" in text
    assert "Marginal sets with a target coverage of 0.9" in text


def test_a_card_of_a_run_without_sets_has_no_section_on_them():
    assert card.uncertainty({}) == card.uncertainty({"sets": None, "abstention": None}) == ""


@pytest.mark.usefixtures("trained")
def test_overlays_and_a_submission_are_written_beside_predictions(lesions, tmp_path):
    photos = tmp_path / "photos" / "deeper"
    photos.mkdir(parents=True)
    Image.new("RGB", (50, 40), "tan").save(photos / "a.png")
    (photos / "b.jpg").write_bytes(b"no image")
    recorded = [f"--config={SEEDS[0]}/config.yaml", f"--ckpt_path={SEEDS[0]}/best.ckpt"]
    added = [f"--trainer.callbacks+=callbacks.{name}" for name in ("Overlays", "IsicSubmission")]
    run_command(["predict", *recorded, f"--data.predict_folder={tmp_path / 'photos'}", *added])
    found = list((SEEDS[0] / "overlays").rglob("*.png"))
    assert found == [SEEDS[0] / "overlays" / "deeper" / "a.png.png"]
    predicted = pd.read_csv(SEEDS[0] / "predictions.csv").set_index("image").filter(like="p_")
    submitted = pd.read_csv(SEEDS[0] / "isic_submission.csv").set_index("image")
    assert submitted.index.tolist() == ["a"]
    np.testing.assert_allclose(submitted, predicted.loc[["deeper/a.png"]], rtol=1e-6)


@pytest.mark.parametrize("verb", [export, card])
def test_a_run_that_is_not_there_is_named(verb, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["verb", "runs/nothing/seed0"])
    with pytest.raises(SystemExit, match="error: There is no run folder runs/nothing/seed0: list"):
        verb.main()


def test_a_codec_is_not_exported(lesions, monkeypatch):
    options = [
        "--config=codec_6x",
        f"--data.root={lesions}",
        "--data.size=32",
        "--data.batch_size=64",
        "--model.codec.width=8",
        "--data.mask=false",
        "--trainer.max_epochs=1",
        "--trainer.limit_train_batches=1",
        "--trainer.limit_val_batches=1",
        "--trainer.accelerator=cpu",
    ]
    run_command(["fit", *options])
    monkeypatch.setattr(sys, "argv", ["export", "runs/codec_6x/seed0"])
    with pytest.raises(SystemExit) as refused:
        export.main()
    assert refused.value.code == (
        "error: runs/codec_6x/seed0 trained a codec, which has no classes: use a classifier's run."
    )
    assert not Path("runs/codec_6x/seed0/export").exists()
