"""HAM10000's table, its classes, and the dataset that serves cached pixels by the batch."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

# The order of the ISIC 2018 ground truth, which the published code of SPMix and CARE follows.
CLASSES = ("mel", "nv", "bcc", "akiec", "bkl", "df", "vasc")

METADATA = "HAM10000_metadata.csv"
OFFICIAL = {"val": "ISIC2018_Task3_Validation", "test": "ISIC2018_Task3_Test"}


class DataError(Exception):
    """What is wrong with the data, where, and what to do, in one sentence for the user."""
