"""The seven diagnoses of HAM10000: the codes of its metadata and their full names."""

from __future__ import annotations

# The order of the ISIC 2018 ground truth, which the published code of SPMix and CARE follows.
CLASS_TITLES = {
    "mel": "melanoma",
    "nv": "melanocytic nevus",
    "bcc": "basal cell carcinoma",
    "akiec": "actinic keratosis / intraepithelial carcinoma",
    "bkl": "benign keratosis",
    "df": "dermatofibroma",
    "vasc": "vascular lesion",
}
CLASSES = tuple(CLASS_TITLES)
