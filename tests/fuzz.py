"""Random damage to inputs: ``python -m tests.fuzz [--mutations 200] [--seed 0]``.

Each mutation damages a copy of a small installation (tables, images, masks, options, run folders,
another data set and its shards) and runs a random command on it. The command must succeed or end
with one sentence, existing results must stay intact, and no other run may change.
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
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple
from unittest.mock import patch

import pandas as pd
import yaml

from datamodules.layout import IMAGE_FOLDERS
from datamodules.synthetic import synthesize
from experiments.recipes import find
from tests.fuzz_mutations import (
    CLINIC,
    MAPPING,
    MUTATIONS,
    OTHER,
    RUN,
    SHARDS,
    USES,
    VALUES,
    Mutation,
    clinic,
    drawn_options,
    options,
    photo,
    shards,
)
from tests.own_data import draw

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
TABLES = ("results.json", "test_predictions.csv", "predictions.csv", "decision.json", "sets.json")
TABLES += ("isic_submission.csv",)
EVALUATE_ON = ("evaluate", f"--on={CLINIC}", f"--mapping={MAPPING}")
WRITE_SHARDS = ["shard", str(CLINIC), str(SHARDS), "--size=32", "--images=8"]
START = ("--trainer.callbacks+=callbacks.WarmStart",)


class Command(NamedTuple):
    """A command, and the only run folder that it may write to."""

    module: str
    arguments: Sequence[str]
    target: Path


def prepare(folder: Path) -> None:
    """A synthetic release, photos, another data set, and two runs that were used."""
    with inside(folder):
        synthesize(Path("data"), images=240)
        photos = sorted(Path("data").glob(f"{IMAGE_FOLDERS[0]}/*.jpg"))[:4]
        Path("photos").mkdir()
        for file in photos:
            shutil.copy(file, "photos")
        hospital()
        fit = ["fit", f"--config={RECIPE}", f"--name={RUN.parent.name}", "--data.root=data", *SMALL]
        for module, arguments in (
            ("experiments", fit),
            ("experiments", ["decide", str(RUN), "--rule=ArgMax", "--sets=Marginal"]),
            ("experiments", used("test", RUN)),
            ("experiments", ["predict", str(RUN), "--images=photos", "--format=isic"]),
            ("experiments", [*EVALUATE_ON, str(RUN)]),
            ("datamodules", WRITE_SHARDS),
        ):
            said, failure = carried_out(module, arguments)
            if failure:
                raise RuntimeError(f"The installation cannot be made: {failure}")
        if lacking := {*TABLES} - {file.name for file in RUN.rglob("*")}:
            raise RuntimeError(f"The installation lacks {', '.join(lacking)}: {said}")
        shutil.copytree(RUN, OTHER)
        record = yaml.safe_load((RUN / "config.yaml").read_text())
        record["name"] = OTHER.parent.name
        (OTHER / "config.yaml").write_text(yaml.safe_dump(record))


def hospital() -> None:
    """The data set of another hospital, and the classes of its labels."""
    draw(CLINIC, patients={"psoriasis": 8, "eczema": 7, "acne": 6}, masks="masks")
    table = pd.read_csv(CLINIC / "table.csv", dtype=str)
    boxes = ["1 2 9 9"] * len(table)
    table.assign(box=boxes, tone=3, split="").to_csv(CLINIC / "table.csv", index=False)
    MAPPING.write_text("label,class\npsoriasis,mel\neczema,nv\nacne,bcc\n")


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


def carried_out(module: str, arguments: Sequence[str]) -> tuple[str, str | None]:
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


def commands_for(kind: Mutation, run: Path) -> list[Command]:
    """The commands that a kind of damage can reach."""
    new = Path("runs/new/seed0")
    train = ["fit", f"--config={RECIPE}", *SMALL]
    on_clinic = [*train, "--name=new", "--data.split=Stratified", "--data.sampler=Natural"]
    first_stage = "--trainer.callbacks.run=runs/mine/seed{seed}"
    elsewhere = [
        Command("experiments", [*EVALUATE_ON, str(run)], run),
        Command("experiments", [*on_clinic, f"--data.root={CLINIC}", "--data.mask=true"], new),
        Command("datamodules", ["verify", f"--root={CLINIC}"], new),
        Command("datamodules", ["adopt", str(CLINIC), "--out=adopted"], new),
        Command("datamodules", ["shard", str(CLINIC), "again", "--size=16"], new),
    ]
    predict = ["predict", str(run), "--images=photos"]
    by_kind = {
        clinic: elsewhere,
        shards: [
            Command("experiments", [*on_clinic, f"--data.root={SHARDS}"], new),
            Command("datamodules", WRITE_SHARDS, new),
        ],
        photo: [
            Command("experiments", predict, run),
            Command("experiments", [*predict, "--format=isic"], run),
            Command("experiments", ["ensemble", str(run), "--folder=photos", "--name=new"], new),
        ],
    }
    train += ["--data.root=data"]
    of_the_run = [
        Command("experiments", used("test", run), run),
        Command("experiments", used("predict", run), run),
        Command("experiments", [*EVALUATE_ON, str(run)], run),
        Command("experiments", ["decide", str(run), "--sets=Marginal"], run),
        Command("experiments", ["ensemble", str(run), str(OTHER), "--name=new"], new),
        Command("experiments", ["aggregate", str(run), "--name=new"], new),
        Command("experiments", ["compare", "runs/*", "--resamples=20"], new),
        Command("experiments", ["status"], new),
        Command("experiments", ["card", str(run)], run),
        Command("experiments", ["export", str(run)], run),
        Command("experiments", [*train, f"--name={RUN.parent.name}"], RUN),
        Command("experiments", [*train, *START, first_stage, "--name=new"], new),
    ]
    return by_kind.get(kind) or [
        *of_the_run,
        *[Command("experiments", [*train, "--name=new"], new)] * 2,
        Command("datamodules", ["verify", "--root=data"], new),
    ]


def command(chance: random.Random, kind: Mutation) -> Command:
    """A command that the damage can reach."""
    archived, new = Path("runs/archived/seed0"), Path("runs/new/seed0")
    run = archived if archived.exists() and chance.random() < 0.7 else RUN
    if kind is not options:
        return chance.choice(commands_for(kind, run))
    if chance.random() < 0.6:
        train = ["fit", f"--config={RECIPE}", "--data.root=data", *SMALL, "--name=new"]
        return Command("experiments", [*train, *drawn_options(chance)], new)
    verb, option = chance.choice(USES)
    given = [verb, f"--{option}={chance.choice(VALUES)}"]
    if verb == "evaluate" and option not in ("on", "checkpoint"):
        given.append(f"--on={CLINIC}")
    return Command("experiments", [*given, "runs/*" if verb == "compare" else str(run)], run)


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
        if folder.resolve() != but.resolve():
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
            kind = chance.choice(MUTATIONS)
            did = kind(chance)
            module, arguments, target = command(chance, kind)
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
    given = parser.parse_args()
    os.environ.setdefault("WANDB_MODE", "disabled")
    logging.disable()
    failures = 0
    with tempfile.TemporaryDirectory() as installation:
        prepare(Path(installation))
        for number in range(given.first, given.first + given.mutations):
            if failure := try_one(Path(installation), number, given.seed):
                failures += 1
                print(f"FAIL {failure}\n", flush=True)
    print(f"{given.mutations} mutations, {failures} failed")
    sys.exit(failures > 0)


if __name__ == "__main__":
    main()
