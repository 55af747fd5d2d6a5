"""Files are replaced atomically, whatever their name and the locale."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import torch

from callbacks.atomic_files import as_text, replacing, write_json, write_table, write_text
from callbacks.looking.overlays import Overlays
from callbacks.recording.predictions import Predictions

ROOT = Path(__file__).parents[2]
ODD = [b"l\xe9sion.png", "läsion 皮.png".encode(), b'a,"b"\n.png', b"\xff\xfe.png"]


def test_a_file_that_is_not_finished_leaves_the_one_before(tmp_path):
    target = tmp_path / "table.csv"
    target.write_text("whole")
    with pytest.raises(ZeroDivisionError), replacing(target) as partial:
        partial.write_text("hal")
        assert partial.suffix == target.suffix
        1 / 0  # noqa: B018
    assert target.read_text() == "whole"
    assert list(tmp_path.iterdir()) == [target]


def test_a_record_is_json_whatever_its_numbers_are(tmp_path):
    target = tmp_path / "results.json"
    write_json(target, {"a": float("nan"), "b": [1.5, float("inf")], "c": {"d": (-float("inf"),)}})

    def refuse(constant):
        raise AssertionError(constant)

    found = json.loads(target.read_text(), parse_constant=refuse)
    assert found == {"a": None, "b": [1.5, None], "c": {"d": [None]}}


@pytest.mark.parametrize("name", ODD)
def test_a_name_in_a_table_tells_its_bytes(tmp_path, name):
    write_table(tmp_path / "names.csv", pd.DataFrame({"image": [as_text(Path(os.fsdecode(name)))]}))
    written = pd.read_csv(tmp_path / "names.csv", encoding="utf-8")["image"].item()
    assert written.encode().decode("unicode_escape").encode("latin-1") == name
    write_text(tmp_path / "names.txt", os.fsdecode(name))  # without as_text, it is written still
    (tmp_path / "names.txt").read_text("utf-8")


def predicting(callback, folder):
    """Pass a callback one batch of predictions for all files in a folder."""
    files = sorted(folder.iterdir())
    trainer = SimpleNamespace(
        predict_dataloaders=SimpleNamespace(dataset=Photos(files=files, folder=folder, remark="")),
        datamodule=SimpleNamespace(class_names=["mel", "nv"]),
        world_size=1,
        ckpt_path=None,
    )
    batch = {
        "image": torch.rand(len(files), 3, 32, 32),
        "index": torch.arange(len(files)),
        "readable": torch.ones(len(files), dtype=torch.bool),
    }
    callback.setup(trainer, None, "predict")
    callback.on_predict_start(trainer, None)
    probability = torch.full((len(files), 2), 0.5)
    callback.on_predict_batch_end(trainer, Pooled(), probability, batch, 0)
    callback.on_predict_end(trainer, None)


class Photos(SimpleNamespace):
    def __len__(self):
        return len(self.files)


class Pooled(torch.nn.Module):
    def features(self, images):
        return images

    def forward(self, images):
        return self.features(images).mean((2, 3))[:, :2]


def odd_folder(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    try:
        for name in ODD:
            Path(os.fsdecode(os.fsencode(folder) + b"/" + name)).touch()
    except OSError:
        pytest.skip("This file system takes no such names.")
    return folder


def test_predictions_of_files_with_odd_names(tmp_path, capsys):
    folder = odd_folder(tmp_path)
    predicting(Predictions(str(tmp_path)), folder)
    table = pd.read_csv(tmp_path / "predictions.csv", encoding="utf-8")
    assert len(table) == len(ODD)
    assert r"l\xe9sion.png" in table["image"].to_list()
    assert f"{len(ODD)} predictions" in capsys.readouterr().out


def test_overlays_of_files_with_odd_names(tmp_path):
    folder = odd_folder(tmp_path)
    predicting(Overlays(str(tmp_path)), folder)
    drawn = {os.fsencode(path.name) for path in (tmp_path / "overlays").iterdir()}
    assert drawn == {name + b".png" for name in ODD}


@pytest.mark.parametrize(
    "locale",
    [{"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}],
    ids=["ascii", "C"],
)
def test_no_locale_ends_a_command(locale):
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("LC_", "LANG", "PYTHON"))}
    # Every command is a module of this package.
    done = subprocess.run(
        [sys.executable, "-c", r"import experiments; print('\xb1', '\udce9')"],
        env=kept | locale | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == b"\\xb1 \\udce9\n"
