"""`--json FILE`, where a command measures something."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from specvla_ros.errors import ConfigurationError


def writable(file: Path | None) -> Path | None:
    """Refuse a file that cannot be written before the work whose figures it is for."""
    if file is not None and str(file) != "-":
        is_new = not file.exists()
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.open("a").close()
        except OSError as error:
            raise ConfigurationError(f"{file} cannot be written: {error.strerror}") from error
        if is_new:
            file.unlink()
    return file


Json = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option("--json", callback=writable, help="Write the figures to this file; - is standard output."),
]


def write_json(content: Any, file: Path | None) -> None:
    """To a file, or to standard output for "-"."""
    if file is None:
        return
    text = json.dumps(content, indent=2)
    if str(file) == "-":
        print(text)
    else:
        file.write_text(text + "\n")
