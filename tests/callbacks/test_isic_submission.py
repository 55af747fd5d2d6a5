"""Submissions to the ISIC 2018 challenge, and our metrics against those of its official scorer."""

import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from callbacks.errors import RunError
from callbacks.recording.decision import Decision
from callbacks.recording.isic_submission import IsicSubmission, confidence
from experiments.compare.metrics import auroc, average_precision
from experiments.use import apply
from lightning_modules.metrics import DiagnosticMetrics

NAMES = ("mel", "nv", "bcc", "akiec", "bkl", "df", "vasc")
IMAGES = 210
IDS = [f"ISIC_{i:07d}" for i in range(IMAGES)]
# Printed by isic-challenge-scoring 5.8.0 (https://pypi.org/project/isic-challenge-scoring) for the
# file that `submission` writes: Python 3.13, pandas 3.1.1, scikit-learn 1.9.1. The scorer is no
# dependency: its last version for Python 3.11 cannot read a file with pandas 3.
OFFICIAL_BALANCED_ACCURACY = 0.659047619047619
OFFICIAL_MACRO_AUC = 0.9094761905
OFFICIAL = pd.DataFrame(
    {
        "auc": [0.9225, 0.9073333333, 0.942, 0.9485, 0.8215, 0.9425, 0.882],
        "ap": [
            *(0.6573156498, 0.9604279317, 0.7582388200, 0.7151172425),
            *(0.4099188154, 0.5848401367, 0.5031684542),
        ],
    },
    index=NAMES,
)


class Photos(SimpleNamespace):
    def __len__(self):
        return len(self.files)

    def why_unreadable(self, item):
        return "broken"


def drawn() -> tuple[torch.Tensor, torch.Tensor]:
    """Probabilities (N, K) and labels (N,), from integers alone so that they are the same anywhere.

    Two thirds are nevi. No two probabilities of an image or of a class are equal.
    """
    i, k = np.arange(IMAGES)[:, None], np.arange(len(NAMES))[None]
    label = np.where(i[:, 0] % 3 > 0, 1, i[:, 0] // 3 % 7)
    mixed = 1 + (370 * i + 101 * k + 13 * i * k + 7 * i * i) % 997
    weight = (mixed + 500 * (k == label[:, None])) ** 3
    return torch.tensor(weight / weight.sum(1, keepdims=True)), torch.tensor(label)


def predict(folder, probability, files=None, readable=None, names=NAMES) -> Path:
    """Run the callback on the predictions of one batch."""
    files = [folder / f"{name}.jpg" for name in IDS[: len(probability)]] if files is None else files
    photos = Photos(folder=folder, files=files, remark="")
    trainer = SimpleNamespace(
        world_size=1,
        ckpt_path=None,
        datamodule=SimpleNamespace(class_names=names),
        predict_dataloaders=SimpleNamespace(dataset=photos),
    )
    callback = IsicSubmission(str(folder))
    readable = [True] * len(files) if readable is None else readable
    batch = {"index": torch.arange(len(files)), "readable": torch.tensor(readable)}
    callback.setup(trainer, None, "predict")
    callback.on_predict_start(trainer, None)
    callback.on_predict_batch_end(trainer, None, probability.float(), batch, 0)
    callback.on_predict_end(trainer, None)
    return folder / "isic_submission.csv"


def test_a_submission_has_the_form_that_the_scorer_reads(tmp_path, capsys):
    probability, _ = drawn()
    text = predict(tmp_path, probability).read_text().splitlines()
    assert text[0] == "image,MEL,NV,BCC,AKIEC,BKL,DF,VASC"
    assert [line.split(",")[0] for line in text[1:]] == IDS
    values = torch.tensor([[float(cell) for cell in line.split(",")[1:]] for line in text[1:]])
    assert ((values >= 0) & (values <= 1)).all()
    assert torch.equal(values, probability.float())
    assert all("." in cell for cell in text[1].split(",")[1:])  # the scorer refuses integers
    said = capsys.readouterr().out
    assert "210 rows in" in said
    assert "decision rule" not in said
    assert "not in it" not in said


def test_certain_predictions_are_floats_too(tmp_path):
    text = predict(tmp_path, torch.eye(7)).read_text().splitlines()
    assert text[1] == "ISIC_0000000,1.0,0.0,0.0,0.0,0.0,0.0,0.0"


def test_metrics_are_those_of_the_official_scorer():
    probability, label = drawn()
    metrics = DiagnosticMetrics(NAMES)
    metrics.update(probability.log(), label, torch.arange(IMAGES))
    found = metrics.compute()
    eps = torch.finfo(torch.float32).eps
    assert found["balanced_accuracy"].item() == pytest.approx(OFFICIAL_BALANCED_ACCURACY, abs=eps)
    # A sum over 210 thresholds in float32; one swapped pair of images would differ by 7e-5.
    assert found["macro_auroc"].item() == pytest.approx(OFFICIAL_MACRO_AUC, abs=IMAGES * eps)
    for c, name in enumerate(NAMES):
        pair = probability[:, c].numpy(), (label == c).numpy(), np.ones((1, IMAGES))
        assert auroc(*pair)[0] == pytest.approx(OFFICIAL.loc[name, "auc"], abs=1e-9)
        assert average_precision(*pair)[0] == pytest.approx(OFFICIAL.loc[name, "ap"], abs=1e-9)


def test_the_official_numbers_are_of_a_class_order_that_matters():
    """Sanity of the frozen numbers: another order of the classes has others."""
    probability, label = drawn()
    metrics = DiagnosticMetrics(NAMES)
    metrics.update(probability.flip(1).log(), label, torch.arange(IMAGES))
    assert metrics.compute()["balanced_accuracy"].item() < OFFICIAL_BALANCED_ACCURACY - 0.1


def test_classes_of_another_order_are_sorted(tmp_path):
    probability, _ = drawn()
    table = pd.read_csv(predict(tmp_path, probability.flip(1), names=NAMES[::-1]))
    assert list(table.columns[1:]) == [name.upper() for name in NAMES]
    np.testing.assert_allclose(table.iloc[:, 1:], probability.float())


def test_images_that_cannot_be_read_are_left_out(tmp_path, capsys):
    probability, _ = drawn()
    table = pd.read_csv(predict(tmp_path, probability[:3], readable=[True, False, True]))
    assert table["image"].tolist() == [IDS[0], IDS[2]]
    said = capsys.readouterr().out
    assert "2 rows in" in said
    assert "1 of 3 images are not in it" in said
    assert "official scorer refuses" in said


@pytest.mark.parametrize("names", [("nv", "mel"), (*NAMES[:6], "scc")])
def test_other_classes_are_refused(tmp_path, names):
    with pytest.raises(RunError, match=f"this run has {', '.join(names)}: choose a run"):
        predict(tmp_path, torch.full((2, len(names)), 0.5), names=names)


def test_two_images_of_one_name_are_refused(tmp_path):
    files = [tmp_path / "ISIC_1.jpg", tmp_path / "more" / "ISIC_1.png"]
    with pytest.raises(RunError, match="ISIC_1 is the name of ISIC_1.jpg and more/ISIC_1.png"):
        predict(tmp_path, torch.full((2, 7), 1 / 7), files=files)
    assert not (tmp_path / "isic_submission.csv").exists()


COSTS = tuple(tuple(float((3 * j + 5 * k) % 7 - (j == k)) for k in range(7)) for j in range(7))
DECISIONS = {
    "temperature": Decision(NAMES, 2.0),
    "offsets": Decision(NAMES, 1.5, (3.0, 0.0, 1.0, 2.0, 0.5, 4.0, 4.0)),
    "costs": Decision(NAMES, 0.7, (), COSTS),
    "equal costs": Decision(NAMES, 1.0, (), ((2.0,) * 7,) * 7),
}


@pytest.mark.parametrize("decision", DECISIONS.values(), ids=DECISIONS.keys())
def test_the_most_confident_class_is_the_decision(decision):
    probability, _ = drawn()
    found = confidence(probability, decision)
    assert ((found >= 0) & (found <= 1)).all()
    if decision is not DECISIONS["equal costs"]:
        assert torch.equal(found.argmax(1), decision(probability))


def test_confidences_of_offsets_are_probabilities():
    probability, _ = drawn()
    decision = DECISIONS["offsets"]
    adjusted = probability ** (1 / 1.5) * torch.tensor(decision.offsets).double().exp()
    expected = adjusted / adjusted.sum(1, keepdim=True)
    torch.testing.assert_close(confidence(probability, decision), expected)


def test_a_submission_follows_the_rule_of_its_run(tmp_path, capsys):
    probability, _ = drawn()
    decision = DECISIONS["offsets"]
    decision.save(tmp_path)
    table = pd.read_csv(predict(tmp_path, probability)).iloc[:, 1:]
    assert table.to_numpy().argmax(1).tolist() == decision(probability.float()).tolist()
    assert (table.to_numpy().argmax(1) != probability.argmax(1).numpy()).any()
    assert "follow the decision rule" in capsys.readouterr().out


@pytest.mark.parametrize("format_", [[], ["--format", "isic"]])
def test_the_command_adds_the_submission(format_, monkeypatch):
    monkeypatch.setattr(apply, "recorded", lambda *_: [])
    monkeypatch.setattr("experiments.command_line.cli.main", lambda: None)
    monkeypatch.setattr(sys, "argv", ["predict", "runs/x/seed0", "--images", "photos", *format_])
    apply.predict()
    added = "--trainer.callbacks+=callbacks.IsicSubmission" in sys.argv
    assert added == bool(format_)
    assert "--data.predict_folder=photos" in sys.argv
