"""Matplotlib, which the runtime does without and an installation may lack."""

from __future__ import annotations

from specvla_ros.errors import ConfigurationError


def require_matplotlib(plot: str) -> None:
    """So that what is drawn at the end of a long work is refused at its start.

    Args:
        plot: what is to be drawn, as the sentence begins.

    Raises:
        ConfigurationError: matplotlib cannot be imported.
    """
    try:
        # More than the package's name: an installation beside another numpy fails here.
        import matplotlib.figure  # noqa: F401
    except ImportError as error:
        raise ConfigurationError(
            f"{plot} needs matplotlib, which cannot be imported ({error}); pip install matplotlib"
        ) from error
