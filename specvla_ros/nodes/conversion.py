"""Image messages to RGB arrays and back, through cv_bridge where it is installed and OpenCV where not."""

from __future__ import annotations

import array
from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray
from sensor_msgs.msg import CompressedImage, Image

from specvla_ros.errors import ImageError

try:
    from cv_bridge import CvBridge, CvBridgeError
except ImportError:
    CvBridge, CvBridgeError = None, ImageError

RGB = NDArray[np.uint8]

CHANNELS = {"rgb8": 3, "bgr8": 3, "rgba8": 4, "bgra8": 4, "mono8": 1}
_TO_RGB = {
    "bgr8": cv2.COLOR_BGR2RGB,
    "rgba8": cv2.COLOR_RGBA2RGB,
    "bgra8": cv2.COLOR_BGRA2RGB,
    "mono8": cv2.COLOR_GRAY2RGB,
}


def image_to_rgb(message: Image) -> RGB:
    """A raw image to an (H, W, 3) uint8 RGB array.

    Raises:
        ImageError: an encoding other than rgb8, bgr8, rgba8, bgra8, mono8, or data that does not fit the stated size.
    """
    check_image(message)
    return _convert(message)


def check_image(message: Image) -> None:
    """Refuse what cannot be a picture, naming encoding and size."""
    what = f"image {message.encoding!r} of {message.width} x {message.height}, step {message.step}"
    if message.encoding not in CHANNELS:
        raise ImageError(f"{what}: the encoding is not supported; expected one of {', '.join(CHANNELS)}")
    if message.width == 0 or message.height == 0:
        raise ImageError(f"{what}: it has no pixels")
    if message.step < message.width * CHANNELS[message.encoding]:
        raise ImageError(f"{what}: a row needs at least {message.width * CHANNELS[message.encoding]} bytes")
    if len(message.data) < message.step * message.height:
        raise ImageError(f"{what}: {len(message.data)} bytes of data, expected {message.step * message.height}")


def opencv_to_rgb(message: Image) -> RGB:
    """A checked message by OpenCV alone. Eight-bit channels have no byte order, whatever `is_bigendian` says."""
    channels = CHANNELS[message.encoding]
    rows = np.frombuffer(message.data, np.uint8, count=message.step * message.height)
    pixels = rows.reshape(message.height, message.step)[:, : message.width * channels]
    pixels = np.ascontiguousarray(pixels).reshape(message.height, message.width, channels)
    if message.encoding == "rgb8":
        return pixels
    return np.asarray(cv2.cvtColor(pixels, _TO_RGB[message.encoding]), np.uint8)


def cv_bridge_to_rgb(message: Image) -> RGB:
    """A checked message by cv_bridge.

    Raises:
        ImageError: cv_bridge refuses it.
    """
    try:
        return CvBridge().imgmsg_to_cv2(message, desired_encoding="rgb8")
    except (CvBridgeError, cv2.error) as error:
        raise ImageError(f"image {message.encoding!r}: cv_bridge cannot convert it: {error}") from error


_convert: Callable[[Image], RGB] = opencv_to_rgb if CvBridge is None else cv_bridge_to_rgb


def compressed_to_rgb(message: CompressedImage) -> RGB:
    """A JPEG or PNG to an (H, W, 3) uint8 RGB array.

    Raises:
        ImageError: the data cannot be decoded.
    """
    data = np.frombuffer(message.data, np.uint8)
    try:
        decoded = cv2.imdecode(data, cv2.IMREAD_COLOR) if len(data) else None
    except cv2.error:  # a header that promises more pixels than OpenCV takes
        decoded = None
    if decoded is None:
        raise ImageError(
            f"compressed image {message.format!r} of {len(data)} bytes cannot be decoded; expected JPEG or PNG"
        )
    return np.asarray(cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB), np.uint8)


def rgb_to_image(image: RGB) -> Image:
    """An (H, W, 3) uint8 RGB array to a raw message, its header left empty."""
    height, width, channels = image.shape
    message = Image(height=height, width=width, encoding="rgb8", step=width * channels)
    # An array.array is taken over as it is; a list or an ndarray would be checked byte by byte (43 to 150 ms).
    data = array.array("B")
    data.frombytes(np.ascontiguousarray(image).data.cast("B"))
    message.data = data
    return message


def rgb_to_compressed(image: RGB, quality: int) -> CompressedImage:
    """An (H, W, 3) uint8 RGB array to a JPEG of quality 1 to 100, its header left empty."""
    _, encoded = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])
    data = array.array("B")
    data.frombytes(encoded.data.cast("B"))
    return CompressedImage(format="jpeg", data=data)
