"""Small drawn copies of the layouts in which data sets of skin lesions are published."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from datamodules.classes import CLASSES

NEVI = "Benign melanocytic proliferations"
VASCULAR = "Benign soft tissue proliferations - Vascular"
LESIONS = 10  # per class; each layout has two classes


def photo(path: Path, number: int) -> Path:
    """Write an image that differs from those of other numbers."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(number).integers(0, 256, (12, 16, 3), np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def table(path: Path, rows: list[dict]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(rows).to_csv(path, index=False)


def class_folders(root: Path) -> None:
    for i in range(2 * LESIONS):
        photo(root / ("psoriasis", "eczema")[i % 2] / f"{i:03d}.jpg", i)


def split_folders(root: Path) -> None:
    for i in range(4 * LESIONS):
        split = ("train", "train", "valid", "test")[i // 2 % 4]
        # The names repeat across folders, as those of cameras do.
        photo(root / "data" / split / ("psoriasis", "eczema")[i % 2] / f"{i // 2:03d}.jpg", i)


def ham10000(root: Path) -> None:
    rows = []
    for i in range(4 * LESIONS):
        image, part = f"ISIC_{24306 + i:07d}", 1 + i % 2
        for name in ("HAM10000_images", "ham10000_images"):  # Kaggle's archive has both
            photo(root / f"{name}_part_{part}" / f"{image}.jpg", i)
        known = {"dx_type": "histo", "age": 45.0, "sex": "male", "localization": "back"}
        ids = {"lesion_id": f"HAM_{i // 2:07d}", "image_id": image}
        rows.append(ids | {"dx": ("nv", "mel")[i // 2 % 2]} | known)
    table(root / "HAM10000_metadata.csv", rows)
    (root / "hmnist_8_8_L.csv").write_text("pixel0000,pixel0001,label\n1,2,3\n")


def _one_hot(key: str, value: str, codes: str, code: str) -> dict:
    return {key: value} | {name: float(name == code) for name in codes.split()}


def isic2018(root: Path) -> None:
    for split, images in (
        ("Training", range(30)),
        ("Validation", range(30, 36)),
        ("Test", range(36, 48)),
    ):
        rows = []
        for i in images:
            name = f"ISIC_{i:07d}"
            photo(root / f"ISIC2018_Task3_{split}_Input" / f"{name}.jpg", i)
            rows.append(
                _one_hot("image", name, "MEL NV BCC AKIEC BKL DF VASC", ("NV", "BCC")[i % 2])
            )
        table(root / f"ISIC2018_Task3_{split}_GroundTruth.csv", rows)
    groups = [
        {
            "image": f"ISIC_{i:07d}",
            "lesion_id": f"HAM_{i // 4}-{i % 2}",
            "diagnosis_confirm_type": "x",
        }
        for i in range(30)
    ]
    table(root / "ISIC2018_Task3_Training_LesionGroupings.csv", groups)


def isic2019(root: Path) -> None:
    truth, known = [], []
    for i in range(2 * LESIONS):
        name = f"ISIC_{i:07d}" + "_downsampled" * (i % 3 == 0)
        photo(root / "ISIC_2019_Training_Input" / f"{name}.jpg", i)
        truth.append(
            _one_hot("image", name, "MEL NV BCC AK BKL DF VASC SCC UNK", ("SCC", "AK")[i % 2])
        )
        known.append(
            {
                "image": name,
                "age_approx": 55.0,
                "anatom_site_general": "anterior torso",
                "lesion_id": f"BCN_{i:07d}" if i % 4 else "",
                "sex": "female",
            }
        )
    table(root / "ISIC_2019_Training_GroundTruth.csv", truth)
    table(root / "ISIC_2019_Training_Metadata.csv", known)


def isic_archive(root: Path) -> None:
    """As `isic image download` writes it, here like HIBA: both kinds of images."""
    rows = []
    for i in range(8 * LESIONS):
        photo(root / f"ISIC_{i:07d}.jpg", i)
        nevus = i // 4 % 2 == 0
        rows.append(
            {
                "isic_id": f"ISIC_{i:07d}",
                "attribution": "Hospital Italiano de Buenos Aires",
                "copyright_license": "CC-BY",
                "age_approx": 60,
                "anatom_site_general": "head/neck",
                "diagnosis_1": "Benign",
                "diagnosis_2": NEVI if nevus else VASCULAR,
                "diagnosis_3": "Nevus" if nevus else "",
                "fitzpatrick_skin_type": "II",
                "image_type": ("dermoscopic", "clinical: close-up")[i % 2],
                "lesion_id": f"IL_{i // 2:07d}",
                "patient_id": f"IP_{i // 4:07d}" if i % 8 else "",
                "sex": "male",
            }
        )
    table(root / "metadata.csv", rows)


def milk10k(root: Path) -> None:
    codes = "AKIEC BCC BEN_OTH BKL DF INF MAL_OTH MEL NV SCCKA VASC"
    truth, known = [], []
    for lesion in range(2 * LESIONS):
        name = f"IL_{lesion:07d}"
        truth.append(_one_hot("lesion_id", name, codes, ("SCCKA", "BCC")[lesion % 2]))
        for k, kind in enumerate(("clinical: close-up", "dermoscopic")):
            image = f"ISIC_{2 * lesion + k:07d}"
            photo(root / "MILK10k_Training_Input" / name / f"{image}.jpg", 2 * lesion + k)
            known.append(
                {
                    "lesion_id": name,
                    "image_type": kind,
                    "isic_id": image,
                    "attribution": "MILK study team",
                    "copyright_license": "CC-BY-NC",
                    "image_manipulation": "instrument only",
                    "age_approx": 70,
                    "sex": "male",
                    "skin_tone_class": 3,
                    "site": "trunk",
                    "MONET_hair": 0.1,
                }
            )
    table(root / "MILK10k_Training_GroundTruth.csv", truth)
    table(root / "MILK10k_Training_Metadata.csv", known)
    table(
        root / "MILK10k_Test_Metadata.csv", [known[0] | {"lesion_id": "IL_9", "isic_id": "ISIC_9"}]
    )


def dermamnist(root: Path) -> None:
    root.mkdir(parents=True, exist_ok=True)
    draws, arrays = np.random.default_rng(0), {}
    for split, count in (("train", 28), ("val", 14), ("test", 14)):
        arrays[f"{split}_images"] = draws.integers(0, 256, (count, 28, 28, 3), np.uint8)
        arrays[f"{split}_labels"] = (np.arange(count) % 7).astype(np.uint8)[:, None]
    np.savez(root / "dermamnist.npz", **arrays)


def pad_ufes_20(root: Path) -> None:
    rows = []
    for i in range(8 * LESIONS):
        image = f"PAT_{i // 4}_{i // 2}_{i}.png"
        photo(root / "images" / f"imgs_part_{1 + i % 3}" / image, i)
        rows.append(
            {
                "patient_id": f"PAT_{i // 4}",
                "lesion_id": i // 2,
                "smoke": "",
                "age": 55,
                "gender": "FEMALE",
                "fitspatrick": 3.0,
                "region": "NECK",
                "diagnostic": ("NEV", "SEK")[i // 4 % 2],
                "img_id": image,
                "biopsed": False,
            }
        )
    table(root / "metadata.csv", rows)


def derm7pt(root: Path) -> None:
    rows = []
    for case in range(2 * LESIONS):
        images = {"derm": f"NEL/Nel{case:03d}.jpg", "clinic": f"NEL/Nel{100 + case:03d}.jpg"}
        for k, name in enumerate(images.values()):
            photo(root / "images" / name, 2 * case + k)
        diagnosis = (
            "clark nevus"
            if case % 2
            else ("melanoma (in situ)", "melanoma metastasis")[case // 2 % 2]
        )
        rows.append(
            {"case_num": case, "diagnosis": diagnosis, "location": "back", "sex": "male", **images}
        )
    table(root / "meta" / "meta.csv", rows)
    for name, cases in (("train", range(12)), ("valid", range(12, 16)), ("test", range(16, 20))):
        table(root / "meta" / f"{name}_indexes.csv", [{"indexes": case} for case in cases])


def fitzpatrick17k(root: Path) -> None:
    rows = []
    for i in range(2 * LESIONS):
        photo(root / "images" / f"{i:032x}.jpg", i)
        rows.append(
            {
                "md5hash": f"{i:032x}",
                "fitzpatrick_scale": -1 if i == 0 else 1 + i % 6,
                "fitzpatrick_centaur": 3,
                "label": ("psoriasis", "dermatofibroma")[i % 2],
                "nine_partition_label": "x",
                "qc": "",
                "three_partition_label": ("non-neoplastic", "benign")[i % 2],
            }
        )
    table(root / "fitzpatrick17k.csv", rows)


def fitzpatrick17k_c(root: Path) -> None:
    fitzpatrick17k(root)
    rows = pd.read_csv(root / "fitzpatrick17k.csv").iloc[2:].to_dict("records")
    cleaned = [
        {
            "filepath": f"ps_653/ps_f2_{i}.jpg",
            "fst": row["fitzpatrick_scale"],
            "partition": ("train", "train", "valid", "test")[i // 2 % 4],
            "md5hash": row["md5hash"],
            "fitzpatrick": row["fitzpatrick_scale"],
            "label": row["label"],
        }
        for i, row in enumerate(rows)
    ]
    table(root / "Fitzpatrick17k-C.csv", cleaned)


LAYOUTS: dict[str, tuple[Callable[[Path], None], int, list[str], str, int]] = {
    # what draws it; and the images, classes, column of groups and groups that adopting it gives
    "class_folders": (class_folders, 20, ["eczema", "psoriasis"], "", 20),
    "split_folders": (split_folders, 40, ["eczema", "psoriasis"], "", 40),
    "ham10000": (ham10000, 40, ["mel", "nv"], "lesion", 20),
    "isic2018": (isic2018, 48, ["nv", "bcc"], "lesion", 34),
    "isic2019": (isic2019, 20, ["AK", "SCC"], "lesion", 20),
    "isic_archive": (isic_archive, 80, [VASCULAR, "Nevus"], "patient", 20),
    "milk10k": (milk10k, 40, ["BCC", "SCCKA"], "lesion", 20),
    "dermamnist": (dermamnist, 56, list(CLASSES), "", 56),
    "pad_ufes_20": (pad_ufes_20, 80, ["NEV", "SEK"], "patient", 20),
    "derm7pt": (derm7pt, 40, ["clark nevus", "melanoma"], "lesion", 20),
    "fitzpatrick17k": (fitzpatrick17k, 20, ["dermatofibroma", "psoriasis"], "", 20),
    "fitzpatrick17k_c": (fitzpatrick17k_c, 18, ["dermatofibroma", "psoriasis"], "", 18),
}
SPLIT = {"split_folders", "isic2018", "dermamnist", "derm7pt", "fitzpatrick17k_c"}
