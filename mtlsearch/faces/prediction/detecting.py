"""Where the faces of a photograph are, by OpenCV's FaceDetectorYN and a network file that the user brings."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from mtlsearch.errors import InputError
from mtlsearch.faces.arrays import Bytes, Floats

#: OpenCV's own defaults
_SCORE, _OVERLAP, _KEPT = 0.9, 0.3, 5000
#: a larger image is shrunk to this side before detection: what is missed then is smaller than a face worth reading
_LONGEST_SIDE = 1280


class FaceDetector:
    """FaceDetectorYN ("YuNet", Wu et al., "YuNet: A Tiny Millisecond-level Face Detector", MIR 2023).

    file: its ONNX file, which OpenCV's model zoo publishes as face_detection_yunet_*.onnx; this library carries none.
    score: the least that counts as a face. Raises InputError where the file is missing or no such network.
    """

    def __init__(self, file: Path, score: float = _SCORE) -> None:
        if not file.is_file():
            raise InputError(
                f"--detector: no file {file}. It takes a network for OpenCV's FaceDetectorYN, for example "
                f"face_detection_yunet_2023mar.onnx of OpenCV's model zoo; without one, give --box, or photographs "
                f"that show one face each"
            )
        level = cv2.utils.logging.getLogLevel()
        # OpenCV would print what is said below, and warnings that mean nothing here
        cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
        try:
            self._detector = cv2.FaceDetectorYN.create(str(file), "", (320, 320), score, _OVERLAP, _KEPT)
            self.detect(np.zeros((320, 320, 3), np.uint8))
        except (cv2.error, ValueError) as error:
            raise InputError(
                f"--detector: {file} is no network for FaceDetectorYN ({' '.join(str(error).split())[:200]})"
            ) from None
        finally:
            cv2.utils.logging.setLogLevel(level)

    def detect(self, image: Bytes) -> list[Floats]:
        """The boxes (4,) left, top, right, bottom, in pixels of an image (H, W, 3) RGB, the surest first."""
        height, width = image.shape[:2]
        shrink = min(1.0, _LONGEST_SIDE / max(height, width))
        size = max(1, round(width * shrink)), max(1, round(height * shrink))
        small = image if shrink == 1 else cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        self._detector.setInputSize(size)
        _, found = self._detector.detect(np.ascontiguousarray(small[..., ::-1]))
        if found is None:
            return []
        scale = np.array([width / size[0], height / size[1]])
        return [np.concatenate([face[:2] * scale, (face[:2] + face[2:4]) * scale]).astype(float) for face in found]
