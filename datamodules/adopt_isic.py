"""Layouts of the ISIC archive and its challenges: HAM10000, ISIC 2018 and 2019, MILK10k."""

from __future__ import annotations

from itertools import chain
from pathlib import Path

import pandas as pd

from datamodules.adopt_source import Adopted, Source, kinds, renamed
from datamodules.classes import HAM10000_CLASSES
from datamodules.errors import DataError
from datamodules.layout import MASK_FOLDER, METADATA
from datamodules.mappings import titled
from datamodules.metadata import SAME_LESION, join_lesions

CODES_2018 = ["MEL", "NV", "BCC", "AKIEC", "BKL", "DF", "VASC"]
CODES_2019 = ["MEL", "NV", "BCC", "AK", "BKL", "DF", "VASC", "SCC", "UNK"]
CODES_MILK = [
    "AKIEC",
    "BCC",
    "BEN_OTH",
    "BKL",
    "DF",
    "INF",
    "MAL_OTH",
    "MEL",
    "NV",
    "SCCKA",
    "VASC",
]
SETS = {"train": "train", "valid": "val", "test": "test"}  # in the names of the challenge's tables
PATIENT = {"age": "age_approx", "sex": "sex", "site": "anatom_site_general"}


def ham10000(source: Source) -> Adopted | None:
    """HAM10000 as on the Dataverse and Kaggle: ``HAM10000_metadata.csv`` and folders of images."""
    tables = source.tables("lesion_id", "image_id", "dx")
    if not tables:
        return None
    path = next((table for table in tables if table.stem == METADATA.split(".")[0]), tables[0])
    table = source.read(path)
    pairs = pd.read_csv(SAME_LESION, comment="#").itertuples(index=False, name=None)
    table["lesion_id"] = table["lesion_id"].fillna(table["image_id"])  # as the release is read
    table = join_lesions(table, pairs)
    names = {"image": "image_id", "label": "dx", "lesion": "lesion_id", "site": "localization"}
    masks = any(file.parent.name == MASK_FOLDER for file in source.files)
    return Adopted(
        "HAM10000",
        renamed(table, **names, age="age", sex="sex", dx_type="dx_type").assign(
            kind="dermoscopic", **({"mask": table["image_id"] + "_segmentation"} if masks else {})
        ),
        [
            f"The rows are those of {source.name(path)}.",
            "Lesions that the release lists under two ids (datamodules/same_lesion.csv) have one.",
            "`make data SRC=FOLDER` installs the same images in the publishers' layout, which all "
            "results of this repository use.",
        ],
        HAM10000_CLASSES,
        masks=MASK_FOLDER if masks else "",
    )


def challenge(source: Source) -> Adopted | None:
    """The one-hot ground truth of ISIC 2018 Task 3 and ISIC 2019, and their metadata."""
    truths = source.tables("image", "MEL", "NV", "BCC", "BKL", "DF", "VASC")
    if not truths:
        return None
    years = {"AKIEC" in source.headers[truth] for truth in truths}
    if len(years) > 1:
        raise DataError(f"{source.path} has tables of ISIC 2018 and 2019: adopt one folder each.")
    codes = CODES_2018 if years == {True} else CODES_2019
    parts = []
    for truth in truths:
        name = next((SETS[part] for part in SETS if part in truth.stem.lower()), "")
        parts.append(_decoded(source.read(truth), "image", codes).assign(split=name))
    table = pd.concat(parts, ignore_index=True)
    assumed = [f"The labels are those of {', '.join(map(source.name, truths))}."]
    if len(truths) == 1:
        table = table.drop(columns="split")
    else:
        assumed.append("The split is that of the tables' names; --data.split=Official uses it.")
    known = [path for path in source.tables("image") if path not in truths]
    if known:
        details = pd.concat([source.read(path) for path in known], ignore_index=True)
        details = details.groupby("image", as_index=False).first()
        names = renamed(details, image="image", lesion="lesion_id", **PATIENT)
        table = table.merge(names, on="image", how="left")
        assumed.append(f"Lesions, age, sex and site are those of {_listed(source, known)}.")
    if codes == CODES_2018:  # HAM10000's classes, whose codes it writes in lower case
        table["label"] = table["label"].str.lower()
        return Adopted("ISIC 2018", table.assign(kind="dermoscopic"), assumed, HAM10000_CLASSES)
    classes = titled("isic2019", codes)
    return Adopted("ISIC 2019", table.assign(kind="dermoscopic"), assumed, classes)


def milk10k(source: Source) -> Adopted | None:
    """MILK10k: one-hot ground truth by lesion, and a table of the lesion's two images."""
    truth = source.table("lesion_id", *CODES_MILK)
    images = source.tables("lesion_id", "isic_id", "image_type")
    if truth is None or not images:
        return None
    labels = _decoded(source.read(truth), "lesion_id", CODES_MILK)
    table = pd.concat([source.read(path) for path in images], ignore_index=True)
    table = table.drop_duplicates("isic_id").merge(labels, on="lesion_id", how="left")
    names = {"image": "isic_id", "label": "label", "lesion": "lesion_id"}
    known = {"age": "age_approx", "sex": "sex", "site": "site", "tone": "skin_tone_class"}
    return Adopted(
        "MILK10k",
        renamed(table, **names, **known).assign(kind=kinds(table["image_type"])),
        [
            f"The labels of the lesions are those of {source.name(truth)}.",
            "`tone` is the release's skin_tone_class, which is not Fitzpatrick's scale.",
        ],
        titled("milk10k", CODES_MILK),
    )


def archive(source: Source) -> Adopted | None:
    """``metadata.csv`` of ``isic-cli``, as for HIBA, BCN20000 and other collections."""
    wanted = {"diagnosis", "diagnosis_1", "diagnosis_3", source.label}
    tables = [table for table in source.tables("isic_id") if wanted & set(source.headers[table])]
    if not tables:
        return None
    if len(tables) > 1:
        raise DataError(
            f"{source.path} has several tables of isic_id and diagnosis: "
            f"{_listed(source, tables)}. Adopt the folder of one of them."
        )
    table = source.read(tables[0])
    old = "diagnosis" in table and table["diagnosis"].notna().any()
    column = source.labels(table, "diagnosis" if old else "diagnosis_3")
    label = table[column]
    assumed = [f"The labels are the column {column}; --label chooses another."]
    if column == "diagnosis_3" and "diagnosis_2" in table:
        label = label.fillna(table["diagnosis_2"])
        assumed.append("Images without a diagnosis_3 have their diagnosis_2 as label.")
    names = {"image": "isic_id", "lesion": "lesion_id", "patient": "patient_id"}
    adopted = renamed(table, **names, **PATIENT, tone="fitzpatrick_skin_type").assign(label=label)
    if "image_type" in table:
        adopted["kind"] = kinds(table["image_type"])
    if "copyright_license" in table:
        licenses = table["copyright_license"].value_counts()
        told = ", ".join(f"{name} ({count:,} images)" for name, count in licenses.items())
        assumed.append(f"The licenses are {told}; the table names whom to attribute.")
    return Adopted("ISIC archive", adopted, assumed, label_column=column)


def _decoded(table: pd.DataFrame, key: str, codes: list[str]) -> pd.DataFrame:
    """A label per row of a one-hot table, missing if none is 1, and a row each if several are."""
    hot = (
        table[[code for code in codes if code in table]].apply(pd.to_numeric, errors="coerce") == 1
    )
    labels = [list(hot.columns[row]) or [None] for row in hot.to_numpy()]
    rows = hot.index.repeat(list(map(len, labels)))
    return pd.DataFrame({key: table.loc[rows, key].to_numpy(), "label": list(chain(*labels))})


def _listed(source: Source, tables: list[Path]) -> str:
    return ", ".join(map(source.name, tables))
