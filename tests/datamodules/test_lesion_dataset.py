import numpy as np
import pandas as pd
import torch
from torch.utils.data import DataLoader

from datamodules.lesion_dataset import LesionDataset


def test_batch_is_indexed_at_once():
    generator = np.random.default_rng(0)
    image = generator.integers(0, 256, (5, 8, 6, 3), dtype=np.uint8)
    mask = generator.integers(0, 256, (5, 8, 6), dtype=np.uint8)
    table = pd.DataFrame({"row": [4, 1, 3], "label": [0, 1, 2]}, index=[14, 11, 13])
    dataset = LesionDataset({"image": image, "mask": mask}, table)
    batch = next(iter(DataLoader(dataset, batch_size=2, collate_fn=lambda batch: batch)))
    assert torch.equal(batch["image"], torch.from_numpy(image[[4, 1]]).permute(0, 3, 1, 2))
    assert torch.equal(batch["mask"][:, 0], torch.from_numpy(mask[[4, 1]]))
    assert batch["index"].tolist() == [14, 11]
    assert batch["label"].tolist() == [0, 1]
    assert torch.equal(dataset[2]["image"], torch.from_numpy(image[3]).permute(2, 0, 1))
