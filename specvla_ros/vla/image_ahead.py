"""The next image, prepared by a thread of its own while another is decoded."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import suppress

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

KEPT = 2
"""Images: the one that is acted on, which may have been looked at before, and the next."""


class ImageAhead:
    """Keeps the newest images that were looked at, and their pixels once they are ready.

    Args:
        prepare: an (H, W, 3) uint8 image to pixels; its errors are raised where the pixels are taken.
    """

    def __init__(self, prepare: Callable[[NDArray[np.uint8]], Tensor]) -> None:
        self._prepare = prepare
        self._thread = ThreadPoolExecutor(1, "prepare", initializer=torch.set_num_threads, initargs=(1,))
        self._newest: deque[tuple[NDArray[np.uint8], Future[Tensor]]] = deque()

    def look(self, image: NDArray[np.uint8]) -> None:
        """Begin with this image; an older one that still waits for its turn is given up."""
        self._newest.append((image, self._thread.submit(self._prepare, image)))
        if len(self._newest) > KEPT:
            self._newest.popleft()[1].cancel()

    def take(self, image: NDArray[np.uint8]) -> Tensor:
        """The pixels of an image: those that are there or on their way, if it is one of the newest looked at."""
        for looked_at, pixels in tuple(self._newest):
            if looked_at is image:
                with suppress(CancelledError):  # it may be given up while it is waited for
                    return pixels.result()
        return self._prepare(image)
