"""Random damage to inputs: ``python -m tests.fuzz [--mutations 200] [--seed 0]``.

Each mutation damages a copy of a small installation (tables, images, masks, options, run folders)
and runs a random command on it. The command must succeed or end with one
sentence, existing results must stay intact, and no other run may change.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import io
import json
import logging
import os
import random
import runpy
import shutil
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest.mock import patch

import pandas as pd
from PIL import Image

from datamodules.layout import IMAGE_FOLDERS, MASK_FOLDER, METADATA
from datamodules.synthetic import synthesize
from experiments.recipes import find

RECIPE = find("small_ce")
SMALL = (
    "--data.split.test_images=3",
    "--data.split.val_images=2",
    "--data.size=32",
    "--data.batch_size=16",
    "--trainer.max_epochs=1",
    "--trainer.limit_train_batches=2",
    "--trainer.accelerator=cpu",
    "--trainer.enable_progress_bar=false",
    "--trainer.logger.mode=disabled",
)
TABLES = ("results.json", "test_predictions.csv", "predictions.csv", "decision.json")
RUN, OTHER = Path("runs/mine/seed0"), Path("runs/other/seed0")
Mutation = Callable[[random.Random], str]


def prepare(folder: Path) -> None:
    """A synthetic release, photos, and two runs that were trained, tested and used."""
    with inside(folder):
        synthesize(Path("data"), images=240)
        photos = sorted(Path("data").glob(f"{IMAGE_FOLDERS[0]}/*.jpg"))[:4]
        Path("photos").mkdir()
        for photo in photos:
            shutil.copy(photo, "photos")
        for run in (RUN, OTHER):
            name = run.parent.name
            command = ["fit", f"--config={RECIPE}", f"--name={name}", "--data.root=data"]
            for more in ([*command, *SMALL], used("test", run), used("predict", run)):
                _, failure = carried_out("experiments", more)
                if failure:
                    raise RuntimeError(f"The installation cannot be made: {failure}")


def used(verb: str, run: Path) -> list[str]:
    folder = ["--data.predict_folder=photos"] if verb == "predict" else []
    return [verb, f"--config={run}/config.yaml", f"--ckpt_path={run}/best.ckpt", *folder]


@contextlib.contextmanager
def inside(folder: Path) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def carried_out(module: str, arguments: list[str]) -> tuple[str, str | None]:
    """Output of a command, and what is wrong with how it ended; None if nothing is."""
    said = io.StringIO()
    with (
        patch.object(sys, "argv", [module, *arguments]),
        contextlib.redirect_stdout(said),
        contextlib.redirect_stderr(said),
    ):
        try:
            runpy.run_module(module, run_name="__main__", alter_sys=False)
        except SystemExit as end:
            if isinstance(end.code, str):
                said.write(end.code)
        except BaseException:
            return said.getvalue(), traceback.format_exc()
    text = said.getvalue()
    return text, text if "Traceback (most recent call last)" in text else None


# Mutations. Each damages files in the current folder and returns a description.


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


def metadata(chance: random.Random) -> str:
    """Damage the table of images."""
    path = Path("data", METADATA)
    table = pd.read_csv(path, dtype=str)
    column, rows = chance.choice(list(table)), chance.sample(range(len(table)), 20)
    how = chance.choice(["drop", "rename", "blank", "double", "odd", "encode", "separate", "bytes"])
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
        table.loc[rows, column] = chance.choice(["", " ", "nan", "NV", "läsion", "0", "=1+1", "∞"])
    encoding = chance.choice(["utf-16", "latin-1", "utf-8-sig"]) if how == "encode" else "utf-8"
    separator = chance.choice([";", "\t", "|"]) if how == "separate" else ","
    table.to_csv(path, index=False, encoding=encoding, errors="replace", sep=separator)
    return f"{how} {column} of the metadata ({encoding}, {separator!r})"


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


def image(chance: random.Random) -> str:
    folder = Path("data", chance.choice([*IMAGE_FOLDERS, MASK_FOLDER]))
    return a_picture(chance.choice(sorted(folder.iterdir())), chance)


def photo(chance: random.Random) -> str:
    return a_picture(chance.choice(sorted(Path("photos").iterdir())), chance)


def run_folder(chance: random.Random) -> str:
    """Damage a file of the run, or move or copy the run."""
    how = chance.choice(["bytes", "remove", "move", "copy", "beside"])
    if how == "beside":
        shutil.copytree(OTHER, RUN.with_name("seed1"))
        return "copies another run beside it"
    if how in ("move", "copy"):
        target = Path("runs", "archived")
        shutil.copytree(RUN.parent, target)
        if how == "move":
            shutil.rmtree(RUN.parent)
            shutil.copytree(OTHER.parent, RUN.parent)  # another run has its name now
        return f"{how} the run to {target}"
    path = chance.choice(sorted(p for p in RUN.iterdir() if p.is_file() and p.stat().st_size))
    if how == "remove":
        path.unlink()
        return f"removes {path}"
    return some_bytes(path, chance)


OPTIONS = (
    "data.size", "data.batch_size", "data.num_workers", "data.split.test_images",
    "data.split.val_images", "data.split.seed", "seed_everything", "trainer.max_epochs",
    "trainer.max_steps", "trainer.max_time", "trainer.devices", "trainer.limit_train_batches",
    "trainer.limit_val_batches", "trainer.accumulate_grad_batches", "trainer.log_every_n_steps",
    "trainer.check_val_every_n_epoch", "trainer.val_check_interval", "trainer.gradient_clip_val",
    "trainer.precision", "trainer.logger", "trainer.strategy", "trainer.accelerator", "name",
    "model.network.name", "model.network.drop_rate", "model.network.weights",
    "model.optimizer.lr", "model.optimizer.weight_decay", "data.task", "data.mask", "data.root",
    "trainer.enable_checkpointing",
)  # fmt: skip
VALUES = (
    "0", "-1", "1", "2", "7", "0.5", "1e9", "4294967296", "true", "false", "null", "", "nan", "inf",
    "nothing", "a/b", "a:b#c?d", "../up", "melanoma", "test_vit", "vit_tiny_patch16_224", "bf16",
    "16-mixed", "64", "cpu", "gpu", "mps", "auto", "ddp", "00:00:00:05", "[1, 2]", "data", "runs",
)  # fmt: skip


def drawn_options(chance: random.Random) -> list[str]:
    chosen = chance.sample(OPTIONS, chance.choice([1, 1, 1, 2]))
    return [f"--{option}={chance.choice(VALUES)}" for option in chosen]


MUTATIONS: tuple[Mutation, ...] = (metadata, image, photo, run_folder)


def command(chance: random.Random, damaged: str) -> tuple[str, list[str], Path]:
    """A module, its arguments, and the only run folder it may write to."""
    archived, new = Path("runs/archived/seed0"), Path("runs/new/seed0")
    run = archived if archived.exists() and chance.random() < 0.7 else RUN
    train = ["fit", f"--config={RECIPE}", "--data.root=data", *SMALL]
    if damaged == "options":
        return "experiments", [*train, "--name=new", *drawn_options(chance)], new
    uses = [
        ("experiments", used("test", run), run),
        ("experiments", used("predict", run), run),
        ("experiments", [*train, "--name=new"], new),
        ("experiments", [*train, f"--name={RUN.parent.name}"], RUN),
    ]
    tools = [
        ("datamodules", ["verify", "--root=data"], new),
        ("experiments", ["compare", "runs/*", "--resamples=20"], new),
        ("experiments", ["status"], new),
        ("experiments", ["card", str(run)], run),
    ]
    return chance.choice(uses * 2 + tools)


def whole(path: Path) -> bool:
    """Whether a table or record can be read completely."""
    if path.suffix == ".json":
        json.loads(path.read_text())
        return True
    return not pd.read_csv(path).empty


def digests(but: Path) -> dict[str, str]:
    """Digests of the files of all run folders except one."""
    found = {}
    for folder in Path("runs").glob("*/seed*"):
        if folder != but:
            files = sorted(p for p in folder.rglob("*") if p.is_file() and p.name != ".lock")
            content = b"".join(str(p).encode() + p.read_bytes() for p in files)
            found[str(folder)] = hashlib.sha256(content).hexdigest()
    return found


def try_one(installation: Path, number: int, seed: int) -> str | None:
    """Damage a copy and run a command on it; return what went wrong, or None."""
    chance = random.Random(f"{seed}/{number}")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary, "copy")
        shutil.copytree(installation, folder, symlinks=True)
        with inside(folder):
            kind = chance.choice(["options", *MUTATIONS])
            did = "draws options" if isinstance(kind, str) else kind(chance)
            module, arguments, target = command(chance, kind if isinstance(kind, str) else "")
            results = [p for p in Path("runs").rglob("*") if p.name in TABLES and readable(p)]
            others = digests(target)
            said, failure = carried_out(module, arguments)
            what = f"{number}: {did}; {module} {' '.join(arguments)}"
            if failure:
                return f"{what}\nended in a traceback:\n{failure}"
            now = digests(target)
            if changed := [run for run in others if now.get(run) != others[run]]:
                return f"{what}\nchanged {', '.join(changed)}:\n{said}"
            if lost := [str(p) for p in results if not (p.exists() and readable(p))]:
                return f"{what}\nlost {', '.join(lost)}:\n{said}"
    return None


def readable(path: Path) -> bool:
    try:
        return whole(path)
    except (ValueError, OSError):
        return False


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mutations", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="number of the first mutation")
    options = parser.parse_args()
    os.environ.setdefault("WANDB_MODE", "disabled")
    logging.disable()
    failures = 0
    with tempfile.TemporaryDirectory() as installation:
        prepare(Path(installation))
        for number in range(options.first, options.first + options.mutations):
            if failure := try_one(Path(installation), number, options.seed):
                failures += 1
                print(f"FAIL {failure}\n", flush=True)
    print(f"{options.mutations} mutations, {failures} failed")
    sys.exit(failures > 0)


if __name__ == "__main__":
    main()
