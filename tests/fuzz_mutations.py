"""Damage to the inputs in the current folder; each function returns what it did."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from PIL import Image

from datamodules.labeled_images import open_folder
from datamodules.layout import IMAGE_FOLDERS, MASK_FOLDER, METADATA

RUN, OTHER = Path("runs/mine/seed0"), Path("runs/other/seed0")
CLINIC, SHARDS, MAPPING = Path("clinic"), Path("shards"), Path("map.csv")
Mutation = Callable[[random.Random], str]

OPTIONS = (
    "data.size", "data.batch_size", "data.num_workers", "data.split.test_images",
    "data.split.val_images", "data.split.seed", "seed_everything", "trainer.max_epochs",
    "trainer.max_steps", "trainer.max_time", "trainer.devices", "trainer.limit_train_batches",
    "trainer.limit_val_batches", "trainer.accumulate_grad_batches", "trainer.log_every_n_steps",
    "trainer.check_val_every_n_epoch", "trainer.val_check_interval", "trainer.gradient_clip_val",
    "trainer.precision", "trainer.logger", "trainer.strategy", "trainer.accelerator", "name",
    "model.network.name", "model.network.drop_rate", "model.network.weights",
    "model.optimizer.lr", "model.optimizer.weight_decay", "data.task", "data.mask", "data.root",
    "trainer.enable_checkpointing", "data.window", "data.on_device", "data.encoded",
    "data.cache_dir", "model.optimizer", "model.lr_scheduler", "model.criterion", "data.sampler",
    "data.train_transform", "data.split", "finite_loss.patience", "preemption.every_n_steps",
)  # fmt: skip
VALUES = (
    "0", "-1", "1", "2", "7", "0.5", "1e9", "4294967296", "true", "false", "null", "", "nan", "inf",
    "nothing", "a/b", "a:b#c?d", "../up", "melanoma", "test_vit", "vit_tiny_patch16_224", "bf16",
    "16-mixed", "64", "cpu", "gpu", "mps", "auto", "ddp", "00:00:00:05", "[1, 2]", "data", "runs",
    "torch.optim.LBFGS", "torch.nn.MSELoss", "datamodules.samplers.Paired", "None",
)  # fmt: skip
# Options of the commands that use a run.
USES = (
    ("decide", "rule"), ("decide", "sets"), ("decide", "coverage"), ("decide", "risk"),
    ("decide", "share"), ("evaluate", "on"), ("evaluate", "mapping"), ("evaluate", "checkpoint"),
    ("evaluate", "name"), ("evaluate", "split"), ("predict", "images"), ("predict", "format"),
    ("ensemble", "views"), ("ensemble", "name"), ("ensemble", "folder"), ("aggregate", "name"),
    ("compare", "resamples"), ("compare", "baseline"), ("compare", "positive"), ("compare", "out"),
)  # fmt: skip
SETTINGS: tuple[Any, ...] = (
    None, True, 0, -3, 2.5, "", "x", "no such/folder", ["a", "b"], [1], {"a": 1}, {"a": ["acne"]},
    {"many": ["acne"], "medium": ["eczema"], "few": ["psoriasis"]}, {"many": 5, "few": 2},
)  # fmt: skip
CELLS = (
    "", " ", "nan", "NV", "läsion", "0", "=1+1", "∞", "-5", "1e999", "../x", "a,b", "[red]", "test",
    "0 0 32 24", "1 1 99 2", "inf 0 1 1",
)  # fmt: skip


def some_bytes(path: Path, chance: random.Random) -> str:
    """Change, truncate or empty a file."""
    content = bytearray(path.read_bytes())
    how = chance.choice(["flips bytes of", "cuts off", "empties", "doubles"])
    if how == "flips bytes of":
        for _ in range(chance.randint(1, 20)):
            content[chance.randrange(len(content))] = chance.randrange(256)
    elif how == "cuts off":
        del content[chance.randrange(len(content)) :]
    elif how == "empties":
        content.clear()
    else:
        content += bytes(content)
    path.write_bytes(bytes(content))
    return f"{how} {path}"


def a_table(path: Path, chance: random.Random) -> str:
    """Damage a table."""
    table = pd.read_csv(path, dtype=str)
    column = chance.choice(list(table))
    rows = chance.sample(range(len(table)), min(20, len(table) // 2))
    how = chance.choice(
        ["drop", "rename", "blank", "double", "odd", "encode", "separate", "bytes", "few", "clash"]
    )
    if how == "bytes":
        return some_bytes(path, chance)
    if how == "drop":
        table = table.drop(columns=column)
    elif how == "rename":
        table = table.rename(columns={column: column.upper()})
    elif how == "blank":
        table.loc[rows, column] = None
    elif how == "double":
        table = pd.concat([table, table.loc[rows]])
    elif how == "odd":
        table.loc[rows, column] = chance.choice(CELLS)
    elif how == "few":
        table = table.head(chance.choice([0, 1, 2]))
    elif how == "clash":
        table[chance.choice(["dx", "label", "source", "row", "p_mel", "set", "split"])] = "x"
    encoding = chance.choice(["utf-16", "latin-1", "utf-8-sig"]) if how == "encode" else "utf-8"
    separator = chance.choice([";", "\t", "|"]) if how == "separate" else ","
    table.to_csv(path, index=False, encoding=encoding, errors="replace", sep=separator)
    return f"{how} {column} of {path} ({encoding}, {separator!r})"


def a_picture(path: Path, chance: random.Random) -> str:
    """Damage an image, or store it in another format."""
    how = chance.choice(["bytes", "mode", "size", "remove", "link", "folder", "hidden", "name"])
    if how == "bytes":
        return some_bytes(path, chance)
    if how == "mode":
        mode = chance.choice(["L", "P", "CMYK", "RGBA", "LA", "I;16", "F", "1"])
        image = Image.open(path).convert("L" if mode in ("I;16", "F") else "RGB").convert(mode)
        image.save(path, format="PNG" if mode != "CMYK" and mode != "F" else "TIFF")
        return f"stores {path} as {mode}"
    if how == "size":
        Image.new("RGB", (chance.choice([1, 2, 5000]), chance.choice([1, 3]))).save(path, "PNG")
    elif how == "hidden":
        shutil.copy(path, path.with_name(f"._{path.name}"))
    elif how == "name":
        path.rename(path.with_name(chance.choice(["a b.jpg", "ä.JPG", "x.heic", "%s,1.jpg"])))
    else:
        path.unlink()
        if how == "link":
            path.symlink_to("nowhere")
        elif how == "folder":
            path.mkdir()
    return f"{how} {path}"


def metadata(chance: random.Random) -> str:
    return a_table(Path("data", METADATA), chance)


def image(chance: random.Random) -> str:
    folder = Path("data", chance.choice([*IMAGE_FOLDERS, MASK_FOLDER]))
    return a_picture(chance.choice(sorted(folder.iterdir())), chance)


def photo(chance: random.Random) -> str:
    return a_picture(chance.choice(sorted(Path("photos").iterdir())), chance)


def run_folder(chance: random.Random) -> str:
    """Damage a file of the run, or move or copy the run."""
    how = chance.choice(["bytes", "table", "remove", "move", "copy", "beside", "linked"])
    if how == "beside":
        shutil.copytree(OTHER, RUN.with_name("seed1"))
        return "copies another run beside it"
    if how == "linked":
        RUN.with_name("seed1").symlink_to("seed0")
        return "links the run beside it"
    if how in ("move", "copy"):
        target = Path("runs", "archived")
        shutil.copytree(RUN.parent, target)
        if how == "move":
            shutil.rmtree(RUN.parent)
            shutil.copytree(OTHER.parent, RUN.parent)  # another run has its name now
        return f"{how} the run to {target}"
    files = sorted(p for p in RUN.rglob("*") if p.is_file() and p.stat().st_size)
    if how == "table":
        tables = [p for p in files if p.suffix == ".csv" and p.name != "near_duplicates.csv"]
        return a_table(chance.choice(tables), chance)
    path = chance.choice(files)
    if how == "remove":
        path.unlink()
        return f"removes {path}"
    return some_bytes(path, chance)


def clinic(chance: random.Random) -> str:
    """Damage the other hospital's data set, its description or the table of its labels."""
    how = chance.choice(["table", "description", "picture", "mapping", "kept"])
    if how == "picture":
        folder = CLINIC / chance.choice(["pictures", "masks"])
        return a_picture(chance.choice(sorted(folder.iterdir())), chance)
    if how == "mapping":
        return a_table(MAPPING, chance)
    if how == "kept":
        _ = open_folder(CLINIC).table
        kept = sorted(p for p in CLINIC.glob("cache/*") if p.is_file() and p.stat().st_size)
        return some_bytes(chance.choice(kept), chance) if kept else "reads the table"
    if how == "table":
        return a_table(CLINIC / "table.csv", chance)
    path = CLINIC / "dataset.yaml"
    if chance.random() < 0.2:
        return some_bytes(path, chance)
    keys = ("classes", "images", "masks", "table", "group", "columns", "shots", "tasks", "taxonomy")
    key, value = chance.choice(keys), chance.choice(SETTINGS)
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | {key: value}))
    return f"sets {key} of {path} to {value!r}"


def shards(chance: random.Random) -> str:
    """Damage the clinic's data set in shards."""
    files = sorted(p for p in SHARDS.rglob("*") if p.is_file())
    path = chance.choice([*files, SHARDS / "dataset.yaml"])
    if path.suffix == ".yaml" and chance.random() < 0.7:
        record = yaml.safe_load(path.read_text())
        key, value = chance.choice(sorted(record["shards"])), chance.choice(SETTINGS)
        record["shards"][key] = value
        path.write_text(yaml.safe_dump(record))
        return f"sets {key} of {path} to {value!r}"
    if chance.random() < 0.3:
        path.unlink()
        return f"removes {path}"
    return some_bytes(path, chance)


def options(chance: random.Random) -> str:
    """Damage nothing; the options are drawn with the command."""
    return "draws options"


def drawn_options(chance: random.Random) -> list[str]:
    chosen = chance.sample(OPTIONS, chance.choice([1, 1, 1, 2]))
    return [f"--{option}={chance.choice(VALUES)}" for option in chosen]


MUTATIONS: tuple[Mutation, ...] = (options, metadata, image, photo, run_folder, clinic, shards)
