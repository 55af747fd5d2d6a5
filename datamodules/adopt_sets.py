"""Layouts without an ISIC id: class folders, MedMNIST, PAD-UFES-20, Derm7pt, Fitzpatrick17k."""

from __future__ import annotations

import zipfile
from fnmatch import fnmatch
from functools import partial
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd
from PIL import Image

from datamodules.adopt_source import Adopted, Source, renamed
from datamodules.classes import HAM10000_CLASSES
from datamodules.errors import DataError
from datamodules.mappings import titled

SPLITS = {
    "train": {"train", "training"},
    "val": {"val", "valid", "validation", "dev"},
    "test": {"test", "testing"},
}
SPLIT_OF = {name: split for split, names in SPLITS.items() for name in names}
CODES_PAD = ["ACK", "BCC", "MEL", "NEV", "SCC", "SEK"]
# Labels 0 to 6 of DermaMNIST, https://github.com/MedMNIST/MedMNIST, medmnist/info.py.
DERMAMNIST = ["akiec", "bcc", "bkl", "df", "mel", "nv", "vasc"]


def class_folders(source: Source) -> Adopted | None:
    """A folder per class, also below folders of the training, validation and test images."""
    paths = [PurePosixPath(source.name(photo)) for photo in source.photos]
    levels = min((len(path.parts) - 1 for path in paths), default=0)
    depth = 0  # number of folders that hold everything, and so are neither splits nor classes
    while depth + 1 < levels and len({path.parts[depth] for path in paths}) == 1:
        depth += 1
    inner = [path.parts[depth:-1] for path in paths]
    splits = [SPLIT_OF.get(parts[0].lower(), "") if parts else "" for parts in inner]
    given = any(splits) and all(
        split or not parts for split, parts in zip(splits, inner, strict=True)
    )
    classes = [parts[given : given + 1] for parts in inner]
    table = pd.DataFrame(
        {"image": map(str, paths), "label": [name[0] if name else None for name in classes]},
        dtype=object,
    )
    if table["label"].nunique() < 2:
        return None
    assumed = ["The classes are the names of the folders."]
    if given:
        table["split"] = splits
        assumed.append("The split is that of the folders; --data.split=Official uses it.")
    if source.headers:
        assumed.append(f"The tables {', '.join(map(source.name, source.headers))} are not read.")
    return Adopted("a folder per class", table, assumed)


def dermamnist(source: Source) -> Adopted | None:
    """``dermamnist*.npz`` of MedMNIST: arrays of images, labels and a split."""
    archives = [file for file in source.files if fnmatch(file.name.lower(), "*dermamnist*.npz")]
    if not archives:
        return None
    if len(archives) > 1:
        raise DataError(
            f"{source.path} has {', '.join(map(source.name, archives))}: name one of them, such as "
            f"`adopt {archives[0]}`."
        )
    path = archives[0]
    try:
        with np.load(path, allow_pickle=False) as arrays:
            labels = {split: arrays[f"{split}_labels"].reshape(-1) for split in SPLITS}
    except (KeyError, OSError, ValueError, zipfile.BadZipFile) as error:
        raise DataError(f"{path} is not an archive of MedMNIST ({error}): replace it.") from error
    names = dict(enumerate(DERMAMNIST))
    rows = [
        (f"{split}-{i:05d}", names.get(int(label), str(label)), split)
        for split in SPLITS
        for i, label in enumerate(labels[split])
    ]
    return Adopted(
        "DermaMNIST",
        pd.DataFrame(rows, columns=["image", "label", "split"]).assign(kind="dermoscopic"),
        [
            "The images are written as PNG, and the archive's split is kept.",
            "The archive has no lesion ids, and DermaMNIST's own split is known to separate images "
            "of a lesion (Abhishek et al. 2025, https://arxiv.org/abs/2401.14497): a score on it "
            "also measures memory. HAM10000 (`make data`) has the same images with their lesions.",
        ],
        HAM10000_CLASSES,
        unpack=partial(_write_images, path),
    )


def _write_images(archive: Path, folder: Path) -> None:
    with np.load(archive, allow_pickle=False) as arrays:
        for split in SPLITS:
            for i, pixels in enumerate(arrays[f"{split}_images"]):
                Image.fromarray(pixels).save(folder / f"{split}-{i:05d}.png")


def pad_ufes_20(source: Source) -> Adopted | None:
    """PAD-UFES-20: ``metadata.csv`` and ``imgs_part_1`` to ``imgs_part_3``."""
    path = source.table("patient_id", "lesion_id", "img_id", "diagnostic")
    if path is None:
        return None
    table = source.read(path)
    names = {
        "image": "img_id",
        "label": source.labels(table, "diagnostic"),
        "patient": "patient_id",
    }
    known = {"age": "age", "sex": "gender", "site": "region", "tone": "fitspatrick"}
    adopted = renamed(table, **names, **known, biopsed="biopsed").assign(kind="clinical")
    # The lesions are numbered, and their documentation does not say whether across patients.
    adopted["lesion"] = table["patient_id"] + "-" + table["lesion_id"]
    for name in {"sex", "site"} & set(adopted):
        adopted[name] = adopted[name].str.lower()
    classes = None if source.label else titled("pad_ufes_20", CODES_PAD)
    assumed = ["A lesion's id is that of its patient and its own.", "`tone` is Fitzpatrick's type."]
    return Adopted("PAD-UFES-20", adopted, assumed, classes, names["label"])


def derm7pt(source: Source) -> Adopted | None:
    """Derm7pt: ``meta/meta.csv``, its lists of row numbers, and ``images``."""
    path = source.table("diagnosis", "derm", "clinic")
    if path is None:
        return None
    table = source.read(path)
    column = source.labels(table, "diagnosis")
    split = pd.Series("", table.index)
    for ours, theirs in (("train", "train"), ("val", "valid"), ("test", "test")):
        for rows in (f for f in source.headers if f.name == f"{theirs}_indexes.csv"):
            split.iloc[source.read(rows)["indexes"].astype(int).tolist()] = ours
    # Whether `case_num` identifies a case was not confirmed; a row of the table is one.
    lesion = pd.Series([f"row-{row}" for row in range(len(table))], table.index)
    cases = renamed(table, label=column, sex="sex", site="location", diagnosis="diagnosis").assign(
        lesion=lesion, split=split
    )
    assumed = [
        "A row of the table is a lesion. Patients are not listed.",
        f"The labels are the column {column}.",
    ]
    if column == "diagnosis":  # as in the authors' code, https://github.com/jeremykawahara/derm7pt
        cases["label"] = cases["label"].mask(cases["label"].str.startswith("melanoma "), "melanoma")
        assumed.append("Melanomas of all thicknesses, and metastases, are the class melanoma.")
    if any(split):
        assumed.append("The split is the release's; --data.split=Official uses it.")
    else:
        cases = cases.drop(columns="split")
    images = {"dermoscopic": table["derm"], "clinical": table["clinic"]}
    parts = [cases.assign(image=image, kind=kind) for kind, image in images.items()]
    both = pd.concat(parts).dropna(subset="image")
    return Adopted("Derm7pt", both, assumed, label_column=column)


def fitzpatrick17k(source: Source) -> Adopted | None:
    """Fitzpatrick17k, or its cleaned list Fitzpatrick17k-C of Abhishek et al."""
    cleaned = source.table("md5hash", "label", "partition")
    path = cleaned or source.table("md5hash", "label", "fitzpatrick_scale")
    if path is None:
        return None
    table = source.read(path)
    column = source.labels(table, "label")
    ids = [name for name in ("md5hash", "filename", "url_alphanum") if name in table]
    image = max(ids, key=lambda name: sum(bool(source.find(str(i))) for i in table[name].dropna()))
    tone = "fitzpatrick" if cleaned else "fitzpatrick_scale"
    adopted = renamed(table, image=image, label=column, tone=tone).assign(kind="clinical")
    if "tone" in adopted:
        adopted["tone"] = adopted["tone"].mask(adopted["tone"] == "-1")
    assumed = [
        f"The images are named by {image}, and the labels are the column {column}.",
        "`tone` is Fitzpatrick's type. Patients and lesions are not listed.",
    ]
    if cleaned:
        adopted["split"] = table["partition"].str.lower().map(SPLIT_OF).fillna("")
        assumed.append("The split is that of Fitzpatrick17k-C; --data.split=Official uses it.")
        return Adopted("Fitzpatrick17k-C", adopted, assumed, label_column=column)
    assumed.append(
        "The release has duplicates and wrong labels. Fitzpatrick17k-C, "
        "https://doi.org/10.5281/zenodo.11101337, lists them: put its CSV into the folder."
    )
    return Adopted("Fitzpatrick17k", adopted, assumed, label_column=column)
