"""Statistics, rules and charts of edge cases: absent classes, one image, one lesion."""

import json
import math
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from callbacks.atomic_files import write_json
from callbacks.console import in_words
from callbacks.errors import RunError
from callbacks.looking.charts import bars, curves
from callbacks.looking.collapse import lost_parts
from callbacks.recording.course import course
from callbacks.recording.decision import (
    DECISION_FILE,
    ArgMax,
    Decision,
    LogitAdjustment,
    MinimumCost,
    Sensitivity,
    Validation,
    fit_temperature,
    outcome,
)
from callbacks.recording.per_class import PerClass
from callbacks.recording.predictions import Predictions
from datamodules.classes import CLASSES, HAM10000_CLASSES
from experiments.compare import page, table
from experiments.compare.comparison import compare
from experiments.compare.runs import read_run
from experiments.use.card import measured
from lightning_modules.metrics import DiagnosticMetrics

SHOTS = HAM10000_CLASSES.shots
SEVEN, TWO = list(CLASSES), ["nv", "mel"]
# Classes and labels of the images.
TABLES = {
    "a class is absent": (SEVEN, [0, 1, 1, 2, 3, 4, 4, 5]),
    "one image per class": (SEVEN, [0, 1, 2, 3, 4, 5, 6]),
    "one lesion": (SEVEN, [1, 1, 1]),
    "a single image": (SEVEN, [6]),
    "all of one class": (TWO, [0, 0, 0, 0]),
    "all of the other": (TWO, [1, 1]),
}


@pytest.fixture(params=["differing", "equal"])
def odd(request, name):
    """Classes, labels, and probabilities that differ or are all equal."""
    classes, labels = TABLES[name]
    draw = torch.Generator().manual_seed(0)
    logits = torch.randn(len(labels), len(classes), generator=draw)
    if request.param == "equal":
        logits[:] = 0
    return classes, torch.tensor(labels), logits.softmax(1)


def computed(classes, label, probability):
    metric = DiagnosticMetrics(classes, SHOTS if classes == SEVEN else None)
    metric.update(probability.log(), label, torch.arange(len(label)))
    return metric


@pytest.mark.parametrize("name", TABLES)
def test_metrics_of_an_odd_part(odd, capsys):
    classes, label, probability = odd
    metric = computed(*odd)
    values = metric.compute()
    scalars = {key: v.item() for key, v in values.items() if v.ndim == 0}
    undefined = {key for key, value in scalars.items() if not math.isfinite(value)}
    assert undefined == ({"macro_auroc"} if len(set(label.tolist())) == 1 else set())
    assert in_words(scalars)
    curves(probability, label, classes)
    bars(values, classes, "recall")
    assert not [x for x in lost_parts(values) if len(set(label.tolist())) == 1]
    trainer = SimpleNamespace(
        is_global_zero=True, loggers=[], datamodule=SimpleNamespace(synthetic=True)
    )
    PerClass().show(trainer, SimpleNamespace(metrics={"test": metric}), "test", "Test")
    assert "nan" not in capsys.readouterr().out


@pytest.mark.parametrize("counts", ["seen", "unseen"])
@pytest.mark.parametrize("name", TABLES)
def test_rules_on_an_odd_part(odd, counts, tmp_path):
    classes, label, probability = odd
    # Training frequencies: as here, or of the other classes only.
    here = torch.bincount(label, minlength=len(classes))
    trained = (here if counts == "seen" else (here == 0) * 10).tolist()
    if not any(trained):
        return
    temperature = fit_temperature(probability, label, trained)
    assert 0.05 <= temperature <= 20
    seen = Validation(probability, label, classes, trained)
    costs = (1 - np.eye(len(classes))).tolist()
    for rule in (ArgMax(), LogitAdjustment(), Sensitivity(classes[1]), MinimumCost(costs)):
        if isinstance(rule, Sensitivity) and not here[1]:
            with pytest.raises(RunError, match="no image of"):
                rule.choose(seen)
            continue
        decision = Decision(tuple(classes), temperature, **rule.choose(seen))
        assert all(map(math.isfinite, decision.offsets))
        decision.save(tmp_path)
        kept = Decision.load(tmp_path)
        assert kept(probability).tolist() == decision(probability).tolist()
        cost = kept.expected_cost(probability)
        decided = cost.gather(1, kept(probability)[:, None]).squeeze(1)
        torch.testing.assert_close(decided, cost.amin(1))
        write_json(tmp_path / "outcome.json", outcome(kept(probability), label, classes))
        assert "NaN" not in (tmp_path / "outcome.json").read_text()


def test_a_class_that_was_never_trained_on_is_not_decided_for_every_image():
    label = torch.tensor([0, 1])
    probability = torch.tensor([[0.7, 0.29, 0.01], [0.3, 0.69, 0.01]])
    seen = Validation(probability, label, ["a", "b", "c"], [60, 40, 0])
    decision = Decision(("a", "b", "c"), **LogitAdjustment().choose(seen))
    assert decision.offsets[2] == 0
    assert decision(probability).tolist() == [0, 1]


def test_nothing_that_was_trained_on_is_nothing_to_calibrate_by():
    probability = torch.tensor([[0.9, 0.1]])
    assert fit_temperature(probability, torch.tensor([1]), [5, 0]) == 1.0


@pytest.mark.parametrize("text", ['{"offsets": [Infinity]', "[]", '{"classes": ["a"]}'])
def test_a_decision_that_is_none_is_refused(tmp_path, text):
    (tmp_path / DECISION_FILE).write_text(text)
    with pytest.raises(RunError, match="choose it again"):
        Decision.load(tmp_path)


def test_a_decision_with_an_infinite_offset_is_refused(tmp_path):
    kept = {"classes": ["a"], "temperature": 1.0, "offsets": [math.inf], "costs": None}
    (tmp_path / DECISION_FILE).write_text(json.dumps(kept))
    with pytest.raises(RunError, match="finite"):
        Decision.load(tmp_path)
    trainer = SimpleNamespace(world_size=1)
    Predictions(str(tmp_path)).setup(trainer, None, "validate")  # which chooses another
    with pytest.raises(RunError, match="finite"):
        Predictions(str(tmp_path)).setup(trainer, None, "predict")


def test_the_course_of_a_run_whose_validation_lacks_a_class(tmp_path):
    line = {"attempt": 1, "step": 9, "epoch": 0, "val/balanced_accuracy": 0.5, "val/recall_a": 0.5}
    (tmp_path / "metrics.jsonl").write_text(json.dumps(line) + "\n")
    assert course(tmp_path / "metrics.jsonl", {"a": 4, "b": 0})["remarks"] == []


@pytest.mark.parametrize("name", TABLES)
def test_a_comparison_of_runs_with_an_odd_test_part(odd, make_odd_run):
    classes, label, _ = odd
    runs = [read_run(make_odd_run(name, *odd)) for name in ("one", "two")]
    comparison = compare(runs, resamples=20, baseline="two")
    written = table.curves(comparison).to_csv(index=False, na_rep="NaN")
    for text in (table.markdown(comparison), page.render(comparison), written):
        assert "NaN" not in text
        assert "Infinity" not in text
    table.show(comparison)
    table.everything(comparison)
    card = measured(runs[0]).set_index("")
    for c, name in enumerate(classes):
        assert (card.at[name, "recall"] == "-") == (c not in label.tolist())


@pytest.fixture
def make_odd_run(tmp_path):
    """Write a run folder with the given labels and probabilities; each class is one lesion."""

    def make(name, classes, label, probability):
        folder = tmp_path / "runs" / name / "seed0"
        folder.mkdir(parents=True)
        values = computed(classes, label, probability).compute()
        predictions = pd.DataFrame(
            {
                "image_id": [f"ISIC_{i}" for i in range(len(label))],
                "lesion_id": [f"HAM_{c}" for c in label.tolist()],
                "dx": [classes[c] for c in label.tolist()],
                "age": np.nan,
                "sex": None,
                "decision": classes[0],
                "set": ["", " ".join(classes)][: len(label)] + [""] * (len(label) - 2),
            }
        )
        columns = [f"p_{c}" for c in classes]
        odds = pd.DataFrame(probability.numpy(), columns=columns)
        pd.concat([predictions, odds], axis=1).to_csv(folder / "test_predictions.csv", index=False)
        predictions.assign(split="test").to_csv(folder / "split.csv", index=False)
        record = {"seed": 0, "synthetic": False, "split": "0", "parameters": 1, "classes": classes}
        record["metrics"] = {k: v.item() for k, v in values.items() if v.ndim == 0}
        record["confusion"] = values["confusion"].tolist()
        write_json(folder / "results.json", record)
        (folder / "config.yaml").write_text(f"name: {name}\n")
        (folder / "metrics.jsonl").touch()
        return folder

    return make
