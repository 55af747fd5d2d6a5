"""Time and memory of large tables: ``make bench ARGS="rows --rows 1100000"``."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import yaml

from datamodules import LesionData, samplers, splits
from datamodules.cache import cached_arrays, digest_of
from datamodules.shards import shard
from datamodules.table_folder import TableFolder
from tests.benchmarks.loading import Data
from tests.benchmarks.timing import peak_memory

CLASSES = {"nv": 6705, "mel": 1113, "bkl": 1099, "bcc": 514, "akiec": 327, "vasc": 142, "df": 115}
LINKS = 50_000  # to one file; ext4 allows 65,000
SIZE = 32


def draw_rows(root: Path, rows: int) -> Path:
    """Draw a table with the class frequencies of HAM10000, and as many names of few files."""
    draws = np.random.default_rng(0)
    (root / "images").mkdir(parents=True)
    for row in range(rows):
        if row % LINKS == 0:
            file = root / f"{row}.jpg"
            cv2.imwrite(str(file), draws.integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8))
        os.link(file, root / "images" / f"ISIC_{row:07d}.jpg")
    lesion = draws.integers(0, rows * 3 // 4, rows)
    frequency = np.array(list(CLASSES.values()))
    dx = draws.choice(list(CLASSES), len(lesion), p=frequency / frequency.sum())
    columns = {
        "image": [f"ISIC_{row:07d}" for row in draws.permutation(rows)],
        "label": dx[lesion],
        "lesion": [f"IL_{number:07d}" for number in lesion],
        "age": draws.integers(2, 18, rows) * 5,
        "sex": draws.choice(["male", "female"], rows),
        "site": draws.choice(["back", "face", "lower extremity", "trunk"], rows),
    }
    pd.DataFrame(columns).to_csv(root / "table.csv", index=False)
    (root / "dataset.yaml").write_text(yaml.safe_dump({"classes": list(CLASSES)}))
    for path in (root / "table.csv", root / "dataset.yaml", root / "images"):
        os.utime(path, (time.time() - 60,) * 2)  # tables that have just changed are not kept
    return root


def private_memory() -> float:
    """Megabytes of this process that no other process shares."""
    lines = [line.split() for line in Path("/proc/self/smaps_rollup").read_text().splitlines()]
    return sum(int(line[1]) for line in lines if line[0].startswith("Private_")) / 1e3


def start(root: Path) -> list[dict]:
    """The start of one process of a run, step by step; memory is beyond that of the imports."""
    before = private_memory()
    measured = []

    def step(name: str, work: Callable[[], object]) -> object:
        began, cpu = time.perf_counter(), time.process_time()
        result = work()
        measured.append(
            {
                "step": name,
                "s": round(time.perf_counter() - began, 2),
                "CPU s": round(time.process_time() - cpu, 2),
                "private MB": round(private_memory() - before),
            }
        )
        return result

    data = LesionData(root, splits.Stratified(), size=SIZE, batch_size=256, num_workers=0)
    step("table", lambda: data.folder.table)
    step("split and labels", lambda: data.table)
    step("class counts", lambda: (data.class_counts, data.shots, data.batches_per_epoch))
    step("unused files", lambda: data.folder.report_unused(data.table))
    files = data.folder.locate("image", data.folder.table)
    step("times of all files", lambda: digest_of("image", files))
    train = data.table.loc[data.table["split"] == "train", "label"].to_numpy()
    for name in ("Natural", "ClassBalanced"):
        sampler = getattr(samplers, name)(train)
        step(f"order of an epoch: {name}", lambda sampler=sampler: next(iter(sampler)))
    return [*measured, {"step": "peak with imports", "private MB": peak_memory()}]


def bench_rows(data: Data) -> list[dict]:
    """The first process of a run, then another one; and each split in this process."""
    with tempfile.TemporaryDirectory() as folder:
        root = draw_rows(Path(folder) / "rows", data.rows)
        results = []
        for process in ("first", "another"):
            command = [sys.executable, "-m", "tests.benchmarks.rows", str(root)]
            output = subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout
            steps = json.loads(output.splitlines()[-1])
            results += [{"process": process} | step for step in steps]
        table = TableFolder(root).table
        for split in (splits.Balanced(), splits.Stratified(), splits.KFold()):
            cpu = time.process_time()
            split(table)
            spent = round(time.process_time() - cpu, 2)
            results.append({"process": "any", "step": type(split).__name__, "CPU s": spent})
    return results


def bench_shards(data: Data) -> list[dict]:
    """Decoding of tiny images into the cache and into shards, and an epoch from each."""
    with tempfile.TemporaryDirectory() as folder:
        root = draw_rows(Path(folder) / "rows", data.rows)
        shards = str(Path(folder) / "shards")
        make = partial(LesionData, split=splits.Stratified(), size=SIZE, batch_size=256)
        before = private_memory()

        def measure(name: str, work: Callable[[], object]) -> dict:
            cpu = time.process_time()
            work()
            return {
                "work": name,
                "CPU s": round(time.process_time() - cpu, 2),
                "private MB": round(private_memory() - before),
            }

        return [
            measure("cache", lambda: cached_arrays(TableFolder(root), "table", SIZE)),
            measure("shards", lambda: shard(root, shards, SIZE, split=splits.Stratified())),
            measure("epoch, cache", lambda: epoch(make(root))),
            measure("epoch, shards", lambda: epoch(make(Path(shards)))),
            measure("epoch, window of 8", lambda: epoch(make(Path(shards), window=8))),
        ]


def epoch(data: LesionData) -> int:
    return sum(len(batch["label"]) for batch in data.train_dataloader())


if __name__ == "__main__":
    print(json.dumps(start(Path(sys.argv[1]))))
