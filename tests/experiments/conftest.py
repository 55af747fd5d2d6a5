"""Run folders as written by `make evaluate`, with invented predictions."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from datamodules.classes import HAM10000_CLASSES
from lightning_modules.metrics import DiagnosticMetrics

SEVEN = ["mel", "nv", "bcc", "akiec", "bkl", "df", "vasc"]
SITES = ["back", "trunk", "lower extremity"]


def invent(classes, images, skill, seed):
    """Predictions somewhat better than chance; every other lesion has two images."""
    draw, fixed = np.random.default_rng(seed), np.random.default_rng(99)
    lesion = np.arange(images) * 2 // 3
    label = fixed.integers(len(classes), size=images)[lesion]
    logits = draw.normal(size=(images, len(classes))) + skill * np.eye(len(classes))[label]
    probability = torch.tensor(logits).float().softmax(1)
    table = pd.DataFrame(
        {
            "image_id": [f"ISIC_{i:07d}" for i in range(images)],
            "lesion_id": [f"HAM_{i:07d}" for i in lesion],
            "dx": np.array(classes)[label],
            "age": np.where(label == 0, np.nan, fixed.integers(2, 17, size=images) * 5),
            "sex": fixed.choice(["female", "male"], size=images),
            "localization": fixed.choice(SITES, size=images),
            "dx_type": "histo",
        }
    )
    columns = [f"p_{name}" for name in classes]
    return pd.concat([table, pd.DataFrame(probability.numpy(), columns=columns)], axis=1)


def judged(table, classes):
    """Results of the predictions under the protocol."""
    metric = DiagnosticMetrics(classes, HAM10000_CLASSES.shots if classes == SEVEN else None)
    label = torch.tensor([classes.index(name) for name in table["dx"]])
    probability = torch.tensor(table[[f"p_{name}" for name in classes]].to_numpy())
    metric.update(probability.log(), label, torch.arange(len(table)))
    return metric.compute()


@pytest.fixture
def make_run(tmp_path):
    """Write ``runs/<name>/seed<seed>`` and return the folder."""

    def make(name="ce", seed=0, classes=SEVEN, images=90, skill=1.0, decide=False, **changes):
        folder = Path(tmp_path, "runs", name, f"seed{seed}")
        folder.mkdir(parents=True)
        table = invent(classes, images, skill, seed)
        computed = judged(table, classes)
        if decide:
            table["decision"] = classes[0]
        table.to_csv(folder / "test_predictions.csv", index=False)
        record = {
            "name": name,
            "seed": seed,
            "synthetic": False,
            "split": "597760c5abbe",
            "classes": classes,
            "metrics": {k: v.item() for k, v in computed.items() if v.ndim == 0},
            "confusion": computed["confusion"].tolist(),
            "parameters": 1234567,
        }
        (folder / "results.json").write_text(json.dumps(record | changes))
        config = {"seed_everything": seed, "name": name, "model": {"lr": len(name)}}
        (folder / "config.yaml").write_text(yaml.safe_dump(config))
        (folder / "metrics.jsonl").write_text("\n".join(map(json.dumps, history(seed))) + "\n")
        return folder

    return make


def write_test(folder, name, images=60, skill=0.5, absent=(), group="patient", decide=False):
    """Write the test of a run on another data set, ``<run>/on/<name>``, and return the folder."""
    record = json.loads((folder / "results.json").read_text())
    classes = record["classes"]
    table = invent(classes, images, skill, record["seed"] + 50)
    table = table[~table["dx"].isin(absent)]
    if decide:
        table["decision"] = classes[0]
    computed = judged(table, classes)
    sentences = ["3 images were left out."]
    record |= {
        "split": "0123456789ab",
        "metrics": {k: v.item() for k, v in computed.items() if v.ndim == 0},
        "confusion": computed["confusion"].tolist(),
        "on": {"name": name, "group": group, "sentences": sentences},
    }
    target = folder / "on" / name
    target.mkdir(parents=True)
    table.to_csv(target / "test_predictions.csv", index=False)
    (target / "results.json").write_text(json.dumps(record))
    return target


def history(seed, epochs=3):
    for epoch in range(epochs):
        head = {"attempt": 1, "step": 10 * epoch + 9, "epoch": epoch}
        resources = {"seconds": 2.0 + epoch, "images_per_second": 50.0, "memory_gb": 1.5}
        yield head | {"train/loss": 2.0 - epoch / 2 + seed / 10}
        yield head | {f"resources/{name}": value for name, value in resources.items()}
        yield head | {"val/balanced_accuracy": 0.2 + epoch / 10}
