"""The notebook runs from top to bottom, and is committed without outputs."""

import json
from pathlib import Path

NOTEBOOK = Path(__file__).parents[1] / "docs/notebooks/first_run.ipynb"
CELLS = [c for c in json.loads(NOTEBOOK.read_text())["cells"] if c["cell_type"] == "code"]


def test_no_outputs_are_committed():
    assert not any(cell["outputs"] or cell["execution_count"] for cell in CELLS)


def test_the_cells_run():
    namespace: dict = {}
    for cell in CELLS:
        exec("".join(cell["source"]), namespace)
    assert namespace["probability"].shape == (7, 7)
    assert namespace["probability"].sum(1).round(3).tolist() == [1] * 7
    assert len(namespace["run"].folder.predictions()) == 7 * 3
