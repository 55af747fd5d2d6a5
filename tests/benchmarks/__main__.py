"""Measure speed and memory: ``make bench``. Alternatives take turns in one process."""

import argparse
import json
import platform
import tempfile
from pathlib import Path

import pandas as pd
import torch

from callbacks.console import print_table
from datamodules.memory import keep_freed_memory
from tests.benchmarks import (
    codecs,
    commands,
    comparison,
    loading,
    methods,
    pairs,
    phases,
    processes,
    rows,
    step,
)
from tests.benchmarks.timing import regressions

BENCHMARKS = {
    "cache": loading.bench_cache,
    "loader": loading.bench_loader,
    "augmentation": loading.bench_augmentation,
    "files": loading.bench_files,
    "pairs": pairs.bench_pairs,
    "step": step.bench_step,
    "training": step.bench_training,
    "methods": methods.bench_methods,
    "losses": methods.bench_losses,
    "saliency": methods.bench_saliency,
    "encoding": codecs.bench_encoding,
    "decoding": codecs.bench_decoding,
    "memory": step.bench_memory,
    "phases": phases.bench_phases,
    "processes": processes.bench_processes,
    "rows": rows.bench_rows,
    "shards": rows.bench_shards,
    "compare": comparison.bench_compare,
    "commands": commands.bench_commands,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", choices=[*BENCHMARKS, []], help="all if none is named")
    parser.add_argument("--images", type=int, default=1024, help="drawn images to work on")
    parser.add_argument("--rows", type=int, default=100_000, help="rows of the large tables")
    parser.add_argument("--runs", type=int, default=50, help="runs to compare")
    args = parser.parse_args()
    keep_freed_memory()  # as the command line does
    print(f"{platform.processor()}, torch {torch.__version__}, {torch.get_num_threads()} threads")
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        data = loading.draw(Path(folder), args.images)
        data.rows = args.rows
        data.runs = args.runs
        for name in args.names or BENCHMARKS:
            results[name] = BENCHMARKS[name](data)
            print_table(pd.DataFrame(results[name]), name, summary=False)
    print(json.dumps(results))
    for line in regressions(results, torch.get_num_threads()):
        print(line)


if __name__ == "__main__":
    main()
