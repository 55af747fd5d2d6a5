"""Run folders as objects, and trained runs used from Python without their data."""

import os
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from callbacks.errors import RunError
from callbacks.recording.decision import Decision
from callbacks.run_folder import read_csv
from datamodules.classes import CLASSES
from experiments import RunFolder, load
from experiments.use.apply import recorded
from tests.test_command_line import RUN, fit, use

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def used(lesions, tmp_path_factory):
    """A run that was evaluated and has predicted photos; its data have been removed."""
    place = tmp_path_factory.mktemp("used")
    here = Path.cwd()
    os.chdir(place)
    try:
        shutil.copytree(lesions, "data")
        photos = Path("photos")
        photos.mkdir()
        for file in sorted(Path("data/HAM10000_images_part_1").glob("*.jpg"))[:5]:
            shutil.copy(file, photos)
        with Image.open(sorted(photos.iterdir())[0]) as image:
            image.resize((70, 90)).convert("RGBA").save(photos / "other.png")
        fit("data")
        use("test")
        use("predict", "--data.predict_folder=photos")
        shutil.rmtree("data")
    finally:
        os.chdir(here)
    return place


@pytest.fixture
def run(used, tmp_path):
    """A copy of the run that a test may change."""
    shutil.copytree(used / RUN, tmp_path / "copy/demo/seed0")
    return tmp_path / "copy/demo/seed0"


@pytest.fixture
def photos(used):
    return sorted((used / "photos").iterdir())


def test_probabilities_are_those_of_predict(run, photos):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        loaded = load(run)
        probability = loaded.probabilities(photos)
    assert not caught, [str(warning.message) for warning in caught]
    table = pd.read_csv(RunFolder(run).new_predictions)
    assert table["image"].tolist() == [photo.name for photo in photos]
    assert loaded.class_names == list(CLASSES)
    np.testing.assert_allclose(
        probability, table[[f"p_{name}" for name in CLASSES]], rtol=0, atol=1e-6
    )
    assert probability.dtype == np.float32
    assert probability.shape == (len(photos), 7)
    assert loaded.decide(photos) == table["decision"].tolist()
    assert not loaded.model.training


def test_files_arrays_and_pillow_images_are_the_same(run, photos):
    loaded = load(str(run))
    opened = [Image.open(photo) for photo in photos]
    arrays = [np.asarray(image.convert("RGB")) for image in opened]
    expected = loaded.probabilities([str(photo) for photo in photos])
    np.testing.assert_array_equal(loaded.probabilities(opened), expected)
    np.testing.assert_array_equal(loaded.probabilities(arrays), expected)
    stacked = np.stack(arrays[:-1])
    np.testing.assert_allclose(loaded.probabilities(stacked), expected[:-1], atol=1e-6)
    loaded.batch_size = 2
    np.testing.assert_allclose(loaded.probabilities(arrays), expected, atol=1e-6)
    assert loaded.probabilities([]).shape == (0, 7)


def test_the_decision_of_the_run_calibrates_and_decides(run, photos):
    plain = torch.from_numpy(load(run).probabilities(photos))
    decision = Decision(CLASSES, temperature=2.5, offsets=(0.0,) * 6 + (99.0,))
    decision.save(run)
    loaded = load(run)
    np.testing.assert_allclose(
        loaded.probabilities(photos), decision.calibrated(plain).numpy(), atol=1e-6
    )
    assert loaded.decide(photos) == [CLASSES[6]] * len(photos)


def test_loading_leaves_random_state_and_folder_alone(run):
    before = sorted(run.rglob("*"))
    state = torch.random.get_rng_state()
    load(run)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert sorted(run.rglob("*")) == before


def test_a_script_elsewhere_prints_nothing_else(used, photos):
    script = (
        "from experiments import load\n"
        f"run = load({str(used / RUN)!r})\n"
        f"print(run.probabilities([{str(photos[0])!r}]).shape, len(run.folder.predictions()))"
    )
    done = subprocess.run(
        [sys.executable, "-W", "always::UserWarning", "-c", script],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert (done.stdout, done.stderr) == ("(1, 7) 21\n", "")


def test_importing_experiments_is_light():
    script = (
        "import sys, experiments\n"
        "folder = experiments.RunFolder('runs/a/seed3')\n"
        "print(folder.seed, *({'torch', 'pandas', 'pytorch_lightning'} & set(sys.modules)))"
    )
    command = [sys.executable, "-c", script]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert (done.stdout, done.stderr) == ("3\n", "")


def test_what_is_no_image_is_refused(run, tmp_path):
    loaded = load(run)
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no image")
    with pytest.raises(RunError, match=r"broken.jpg cannot be read \(not an image"):
        loaded.probabilities([broken])
    with pytest.raises(RunError, match=r"missing.jpg cannot be read \(No such file"):
        loaded.probabilities(["missing.jpg"])
    with pytest.raises(RunError, match=r"put it into a list, \[image\]"):
        loaded.probabilities("photo.jpg")
    with pytest.raises(RunError, match=r"array \(8, 3\) of uint8: give RGB images"):
        loaded.probabilities(np.zeros((8, 8, 3), np.uint8))
    with pytest.raises(RunError, match=r"array \(8, 8, 3\) of float64"):
        loaded.probabilities(np.zeros((1, 8, 8, 3)))


def test_a_folder_that_is_no_trained_classifier_is_refused(run):
    with pytest.raises(RunError, match="no run folder missing: list the runs with `make status`"):
        load("missing")
    (run / "members.txt").touch()
    with pytest.raises(RunError, match="is an ensemble: load its members"):
        load(run)
    (run / "members.txt").unlink()
    RunFolder(run).best.rename(run / "other.ckpt")
    with pytest.raises(RunError, match=r"has no best.ckpt: train it with `make train`"):
        load(run)


def test_options_of_other_code_are_refused(run):
    record = RunFolder(run).config
    record.write_text(record.read_text().replace("drop_rate", "drop_pace"))
    with pytest.raises(RunError, match="drop_pace.*use the commit that trained the run"):
        load(run)


def test_a_run_folder_reads_its_files(run):
    folder = RunFolder(run)
    assert (folder.name, folder.seed) == ("demo", 0)
    assert folder.settings()["name"] == "demo"
    assert folder.results()["classes"] == list(CLASSES)
    assert len(folder.predictions()) == 21
    assert set(folder.split()["split"]) == {"train", "val", "test"}
    assert "val/balanced_accuracy" in folder.history()
    renamed = RunFolder(run.rename(run.with_name("favorite")))
    assert renamed.seed == 0


def test_what_a_run_folder_lacks_is_said_with_the_command(run):
    folder = RunFolder(run)
    with pytest.raises(RunError, match=r"no last_results.json: .*evaluate .*/seed0 --checkpoint=l"):
        folder.results(last=True)
    folder.results_file().write_text("{")
    with pytest.raises(RunError, match=r"results.json cannot be read .* experiments evaluate"):
        folder.results()
    folder.predictions_file().unlink()
    with pytest.raises(RunError, match=r"no test_predictions.csv: evaluate it with `python -m"):
        folder.predictions()
    folder.split_file.unlink()
    with pytest.raises(RunError, match=r"no split.csv: train it with `make train`"):
        folder.split()
    folder.config.write_text("- no options")
    with pytest.raises(RunError, match="cannot be read: restore it from a copy"):
        folder.settings()


@pytest.mark.parametrize(
    "damage",
    [
        lambda file: file.write_text(file.read_text().replace(",", ";").replace(": ", ";")),
        lambda file: file.write_bytes(file.read_text().encode("utf-16")),
        lambda file: file.write_bytes(b""),
        lambda file: (file.unlink(), file.mkdir()),
    ],
)
def test_a_damaged_table_or_record_is_named(run, damage):
    folder = RunFolder(run)
    damage(folder.split_file)
    with pytest.raises(RunError, match=r"split.csv cannot be read \(.*: restore it from a copy"):
        folder.split()
    damage(folder.predictions_file())
    with pytest.raises(RunError, match=r"test_predictions.csv cannot be read .* evaluate it with"):
        folder.predictions()
    damage(folder.config)
    with pytest.raises(RunError, match=r"config.yaml cannot be read: restore it from a copy"):
        list(recorded(run))


def test_a_folder_of_seeds_is_no_run(run):
    with pytest.raises(RunError, match=r"several seeds: name one, such as .*demo/seed0"):
        list(recorded(run.parent))
    RunFolder(run).best.unlink()
    with pytest.raises(RunError, match=r"score its last epoch with `make evaluate CKPT=last`"):
        list(recorded(run))
    assert list(recorded(run, "last"))[1] == f"--ckpt_path={run}/last.ckpt"


def test_the_folder_of_a_name_and_a_seed():
    folder = RunFolder.of("vgg_ce", 3)
    assert folder.path == Path("runs/vgg_ce/seed3")
    assert repr(folder) == "RunFolder('runs/vgg_ce/seed3')"
    assert (folder.name, folder.seed) == ("vgg_ce", 3)


def test_ids_and_classes_are_text_and_the_rest_is_not(tmp_path):
    table = "image_id,dx,set,age,p_NA\n0012,NA,,nan,0.5\n0013,None,NA None,40,\n"
    (tmp_path / "x.csv").write_text(table)
    found = read_csv(tmp_path / "x.csv", {"p_NA": "float32", "missing": "float32"})
    assert found["image_id"].tolist() == ["0012", "0013"]
    assert found["dx"].tolist() == ["NA", "None"]
    assert found["set"].tolist() == ["", "NA None"]
    assert found["age"].isna().tolist() == [True, False]
    assert str(found["p_NA"].dtype) == "float32"
