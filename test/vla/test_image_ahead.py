from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from specvla_ros.errors import ImageError
from specvla_ros.vla.image_ahead import ImageAhead

IMAGES = list(np.arange(5, dtype=np.uint8)[:, None, None, None] * np.ones((1, 2, 2, 3), np.uint8))


class Preparation:
    """Counts, and can be made to wait."""

    def __init__(self) -> None:
        self.prepared: list[int] = []
        self.threads: set[str] = set()
        self.go = threading.Event()
        self.go.set()

    def __call__(self, image: np.ndarray) -> torch.Tensor:
        assert self.go.wait(5.0)
        self.prepared.append(int(image[0, 0, 0]))
        self.threads.add(threading.current_thread().name)
        return torch.from_numpy(image.copy())


def test_an_image_that_was_looked_at_is_prepared_once_and_by_another_thread() -> None:
    preparation = Preparation()
    ahead = ImageAhead(preparation)
    ahead.look(IMAGES[1])
    ahead.look(IMAGES[2])
    assert torch.equal(ahead.take(IMAGES[1]), torch.from_numpy(IMAGES[1]))
    assert torch.equal(ahead.take(IMAGES[2]), torch.from_numpy(IMAGES[2]))
    assert preparation.prepared == [1, 2]
    assert threading.current_thread().name not in preparation.threads


def test_an_equal_image_that_nobody_looked_at_is_prepared_on_the_spot() -> None:
    preparation = Preparation()
    ahead = ImageAhead(preparation)
    ahead.look(IMAGES[1])
    assert torch.equal(ahead.take(IMAGES[1].copy()), torch.from_numpy(IMAGES[1]))
    ahead.take(IMAGES[3])
    assert sorted(preparation.prepared) == [1, 1, 3]


def test_images_that_were_superseded_before_their_turn_are_not_prepared() -> None:
    preparation = Preparation()
    preparation.go.clear()
    ahead = ImageAhead(preparation)
    for image in IMAGES:
        ahead.look(image)
    preparation.go.set()
    ahead.take(IMAGES[4])
    assert preparation.prepared[-2:] == [3, 4] and len(preparation.prepared) <= 3
    assert torch.equal(ahead.take(IMAGES[1]), torch.from_numpy(IMAGES[1])), "and still answered for"


def test_an_image_that_is_given_up_while_it_is_waited_for_is_prepared_on_the_spot() -> None:
    preparation = Preparation()
    preparation.go.clear()
    ahead = ImageAhead(preparation)
    ahead.look(IMAGES[1])
    ahead.look(IMAGES[2])
    waiting = ThreadPoolExecutor(1).submit(ahead.take, IMAGES[2])
    time.sleep(0.1)
    ahead.look(IMAGES[3])
    ahead.look(IMAGES[4])
    preparation.go.set()
    assert torch.equal(waiting.result(timeout=5.0), torch.from_numpy(IMAGES[2]))


def test_what_is_wrong_with_an_image_is_said_when_it_is_taken() -> None:
    def refuse(image: np.ndarray) -> torch.Tensor:
        raise ImageError("no image")

    ahead = ImageAhead(refuse)
    ahead.look(IMAGES[0])
    with pytest.raises(ImageError, match="no image"):
        ahead.take(IMAGES[0])
