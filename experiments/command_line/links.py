"""Arguments of the model that the data fill in."""

from __future__ import annotations

from pytorch_lightning.cli import LightningArgumentParser


def link_model_to_data(parser: LightningArgumentParser) -> None:
    """Give the model the classes, their groups and counts, and the image size of the data."""
    for source, target in (
        ("class_names", "class_names"),
        ("class_names", "network.init_args.class_names"),
        ("shots", "shots"),
        ("taxonomy", "network.init_args.taxonomy"),
        ("descriptions", "network.init_args.descriptions"),
        ("batches_per_epoch", "batches_per_epoch"),
        ("num_classes", "num_classes"),
        ("num_classes", "network.init_args.num_classes"),
        ("num_classes", "network.init_args.network.init_args.num_classes"),
        ("size", "network.init_args.size"),
        ("size", "network.init_args.encoder.init_args.size"),
        ("size", "network.init_args.network.init_args.size"),
        ("size", "network.init_args.network.init_args.encoder.init_args.size"),
        ("size", "network.init_args.towers.init_args.encoder.init_args.size"),
        ("num_classes", "mix.init_args.num_classes"),
        ("class_counts", "mix.init_args.class_counts"),
        ("class_counts", "criterion.init_args.class_counts"),
        ("class_counts", "contrastive.init_args.class_counts"),
        ("num_classes", "contrastive.init_args.num_classes"),
    ):
        model = f"model.init_args.{target}"
        parser.link_arguments(f"data.{source}", model, apply_on="instantiate")
