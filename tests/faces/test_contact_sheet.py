"""Contact sheets show what was rendered, dots where the landmarks are."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from mtlsearch.errors import InputError
from mtlsearch.faces.pictures.contact_sheet import VISIBLE, contact_sheet, draw_landmarks, save_image
from mtlsearch.faces.rendering.synthetic import SyntheticRecipe, render_sample

RECIPE = SyntheticRecipe(train=6, image_size=32)


def test_plain_cells_are_the_images_and_marked_cells_differ() -> None:
    sheet = contact_sheet(RECIPE, columns=3, plain_rows=1, marked_rows=1)
    assert sheet.shape == (80, 120, 3)
    np.testing.assert_array_equal(sheet[:40, 40:80], render_sample(RECIPE, "train", 1).image)
    assert (sheet[40:, 40:80] != render_sample(RECIPE, "train", 4).image).any()


def test_dots_lie_on_the_landmarks() -> None:
    for scale in (1, 4):
        dotted = draw_landmarks(np.zeros((40, 40, 3), np.uint8), np.array([[12.25, 30.5, 0.0]]), scale=scale)
        weight = dotted.astype(float).sum(-1)
        y, x = np.mgrid[: 40 * scale, : 40 * scale]
        centre = np.array([(x * weight).sum(), (y * weight).sum()]) / weight.sum()
        np.testing.assert_allclose((centre + 0.5) / scale - 0.5, [12.25, 30.5], atol=0.15)
        assert (dotted.max((0, 1)) <= VISIBLE).all()


def test_files_keep_colours(tmp_path: Path) -> None:
    image = np.zeros((8, 8, 3), np.uint8)
    image[..., 0] = 200  # red
    path = save_image(image, tmp_path / "new" / "sheet.png")
    np.testing.assert_array_equal(cv2.imread(str(path))[..., ::-1], image)


def test_errors_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="which has 6"):
        contact_sheet(RECIPE)
    with pytest.raises(InputError, match=r"\.png or \.jpg"):
        save_image(np.zeros((2, 2, 3), np.uint8), tmp_path / "sheet.gif")
