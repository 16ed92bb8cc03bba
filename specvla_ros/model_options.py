"""Options of the commands that load a checkpoint."""

from __future__ import annotations

from typing import Annotated

import typer

UnnormKey = Annotated[str, typer.Option(help="norm_stats key; may be left out when there is only one.")]
ImagePreparation = Annotated[
    str,
    typer.Option(
        help="What is done to an image first: libero, centre_crop (for a fine-tune with image augmentation), none, or "
        "auto: libero for libero keys, else none."
    ),
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
