"""What this process holds of a GPU's memory, and how it gives it back; torch may not even be loaded."""

from __future__ import annotations

import gc
import sys


def free_memory() -> None:
    """Give back what a policy that nobody holds any longer took; torch would keep its GPU memory for the next."""
    gc.collect()
    release_unused()


def release_unused() -> None:
    """Give back what torch keeps of tensors that are gone, for others as large."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def shortage(error: BaseException) -> str:
    """What torch says of a GPU whose memory is used up, less the advice on its allocator; empty for another error."""
    if type(error).__name__ != "OutOfMemoryError":
        return ""
    return str(error).partition(" Of the allocated memory")[0]


def gpu_memory() -> dict[str, str]:
    """GPU memory in use and reserved by this process, for the diagnostics; empty without a GPU in use.

    Of all GPUs: the policy's need not be the one that is current in the thread that asks.
    """
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return {}
    cuda, devices = torch.cuda, range(torch.cuda.device_count())
    return {
        "GPU memory in use [MiB]": f"{sum(map(cuda.memory_allocated, devices)) / 2**20:.0f}",
        "GPU memory reserved [MiB]": f"{sum(map(cuda.memory_reserved, devices)) / 2**20:.0f}",
    }
