"""What this process holds of a GPU's memory, and how it gives it back; torch may not even be loaded."""

from __future__ import annotations

import gc
import sys


def free_memory() -> None:
    """Give back what a policy that nobody holds any longer took; torch would keep its GPU memory for the next."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def gpu_memory() -> dict[str, str]:
    """GPU memory in use and reserved by this process, for the diagnostics; empty without a GPU in use."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return {}
    return {
        "GPU memory in use [MiB]": f"{torch.cuda.memory_allocated() / 2**20:.0f}",
        "GPU memory reserved [MiB]": f"{torch.cuda.memory_reserved() / 2**20:.0f}",
    }
