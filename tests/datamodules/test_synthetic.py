import numpy as np
import pandas as pd
import pytest
from PIL import Image

from datamodules import drawing, synthetic
from datamodules.classes import CLASSES
from datamodules.errors import DataError
from datamodules.layout import METADATA, SYNTHETIC, image_files, mask_files
from datamodules.metadata import read_table
from datamodules.splits import Balanced
from datamodules.synthetic import synthesize


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("synthetic") / "demo"
    synthesize(root, images=60, width=64)
    return root


def contents(root):
    return {path.relative_to(root): path.read_bytes() for path in root.rglob("*.*")}


def pixels(file):
    with Image.open(file) as image:
        return np.array(image)


def plan(images):
    rows = synthetic._plan(images, seed=0)
    return pd.DataFrame(
        [
            {"lesion_id": str(number), "dx": CLASSES[label], "image_id": image}
            for number, (label, shown) in enumerate(rows)
            for image in shown
        ]
    )


def test_layout_is_the_release(root):
    table = read_table(root)
    assert len(table) == 60
    assert list(pd.read_csv(root / METADATA)) == [
        *["lesion_id", "image_id", "dx", "dx_type", "age", "sex", "localization"]
    ]
    assert set(table["image_id"]) == set(image_files(root)) == set(mask_files(root))
    parts = [len(list((root / part).glob("ISIC_*.jpg"))) for part in synthetic.IMAGE_FOLDERS]
    assert parts == [30, 30]


def test_pictures(root):
    for image_id, file in image_files(root).items():
        image, mask = pixels(file), pixels(mask_files(root)[image_id])
        assert image.shape == (48, 64, 3)
        assert mask.shape == (48, 64)
        assert set(np.unique(mask)) <= {0, 255}
        assert mask[18:30, 24:40].any()  # the lesion is near the middle


@pytest.mark.parametrize("images", [40, 100, 1000, 10015])
def test_counts_are_long_tailed_with_a_floor(images):
    table = plan(images)
    assert sorted(table["image_id"]) == list(range(images))
    counts = table["dx"].value_counts()
    assert set(counts.index) == set(CLASSES)
    assert counts.idxmax() == "nv"
    assert counts.min() >= round(0.8 * images**0.5)


def test_each_class_of_a_thousand_can_be_split():
    table = plan(1000)
    per_lesion = table.groupby("dx")["lesion_id"].value_counts()
    assert table["dx"].value_counts().min() >= 24
    assert per_lesion.groupby("dx").size().min() >= 16
    assert 0.2 < (per_lesion > 1).mean() < 0.3
    assert per_lesion.max() == 3
    part = Balanced(test_images=8, val_images=4)(table.assign(source="ham10000"))
    assert part.groupby(table["dx"]).value_counts().unstack()["test"].eq(8).all()


def test_order_says_nothing_about_the_class():
    classes = plan(1000)["dx"].map(CLASSES.index)
    assert abs(np.corrcoef(classes, np.arange(1000))[0, 1]) < 0.1


def test_bytes_do_not_depend_on_the_number_of_cores(root, tmp_path, monkeypatch):
    monkeypatch.setattr(synthetic.os, "cpu_count", lambda: 1)
    synthesize(tmp_path / "again", images=60, width=64)
    assert contents(tmp_path / "again") == contents(root)


def test_another_seed_draws_other_lesions(root, tmp_path):
    synthesize(tmp_path / "other", images=60, width=64, seed=1)
    ours, others = contents(root), contents(tmp_path / "other")
    assert ours.keys() == others.keys()
    assert not any(ours[name] == others[name] for name in ours if name.suffix == ".jpg")


def test_is_not_drawn_twice(root, monkeypatch, capsys):
    monkeypatch.setattr(synthetic, "_draw", None)
    synthesize(root, images=60, width=64)
    assert "already contains" in capsys.readouterr().out


def test_other_arguments_replace_the_drawings(tmp_path):
    root = tmp_path / "demo"
    synthesize(root, images=40, width=32)
    (root / "cache").mkdir()
    synthesize(root, images=41, width=32)
    assert len(read_table(root)) == len(image_files(root)) == 41
    assert not (root / "cache").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["demo"]


@pytest.mark.parametrize(
    ("drawn", "name"),
    [(False, METADATA), (False, "notes.txt"), (True, "notes.txt"), (True, "ISIC2018_Task3_Test")],
)
def test_never_replaces_what_it_did_not_draw(tmp_path, drawn, name):
    if drawn:
        synthesize(tmp_path, images=40, width=32)
    (tmp_path / name).write_text("precious")
    before = contents(tmp_path)
    with pytest.raises(DataError, match=name):
        synthesize(tmp_path, images=41, width=32)
    assert contents(tmp_path) == before
    assert (tmp_path / name).read_text() == "precious"


def test_marker_says_what_the_pictures_are(root):
    assert "not patients" in (root / SYNTHETIC).read_text()


def test_too_few_images(tmp_path):
    with pytest.raises(DataError, match="set 40 or more"):
        synthesize(tmp_path / "demo", images=39)
    assert not list(tmp_path.iterdir())


def test_an_interruption_leaves_nothing_behind(tmp_path, monkeypatch):
    monkeypatch.setattr(drawing.Artist, "draw", lambda _: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        synthesize(tmp_path / "demo", images=40, width=32)
    assert not list(tmp_path.iterdir())
