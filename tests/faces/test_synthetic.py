"""The morphable model and the faces rendered from it."""

from __future__ import annotations

import hashlib
import subprocess
import sys

import numpy as np
import pytest

from mtlsearch.errors import InputError
from mtlsearch.faces import geometry
from mtlsearch.faces.geometry import FLIP_68
from mtlsearch.faces.metrics import nme
from mtlsearch.faces.morphable.morphable_model import EXPRESSION_MODES, EXPRESSIONS, SHAPE_MODES, SHUT, morphable_model
from mtlsearch.faces.rendering import renderer, strokes
from mtlsearch.faces.rendering.appearance import SKIN, draw_look
from mtlsearch.faces.rendering.hair import STYLES
from mtlsearch.faces.rendering.light_visibility import light_visibility
from mtlsearch.faces.rendering.synthetic import (
    SyntheticRecipe,
    draw_angles,
    draw_expression,
    render_face,
    render_sample,
)
from mtlsearch.faces.rendering.uv_masks import mask_bank

FLIP = list(FLIP_68)
MIRROR = np.array([-1.0, 1.0, 1.0])


def random_coefficients(seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.standard_normal(SHAPE_MODES), rng.standard_normal(EXPRESSION_MODES)


def test_mean_and_topology_are_mirror_symmetric() -> None:
    mesh = morphable_model().mesh
    np.testing.assert_array_equal(mesh.vertices[mesh.mirror], mesh.vertices * MIRROR)
    np.testing.assert_array_equal(mesh.mirror[mesh.mirror], np.arange(len(mesh.mirror)))
    triangles = {tuple(sorted(t)) for t in mesh.triangles.tolist()}
    assert {tuple(sorted(t)) for t in mesh.mirror[mesh.triangles].tolist()} == triangles


def test_mirroring_a_face_changes_the_signs_of_its_coefficients() -> None:
    model = morphable_model()
    assert set(model.shape_parity) == {1.0, -1.0} == set(model.expression_parity)
    for seed in range(3):
        shape, expression = random_coefficients(seed)
        signs = shape * model.shape_parity, expression * model.expression_parity
        mirrored = model.vertices(shape, expression)[model.mesh.mirror] * MIRROR
        np.testing.assert_allclose(model.vertices(*signs), mirrored, atol=1e-12)
        np.testing.assert_allclose(
            model.landmarks(*signs), model.landmarks(shape, expression)[FLIP] * MIRROR, atol=1e-12
        )


def test_landmarks_lie_on_the_surface_and_are_distinct() -> None:
    model = morphable_model()
    weights = model.mesh.landmark_weights
    np.testing.assert_allclose(weights.sum(1), 1, atol=1e-12)
    assert (weights > -1e-9).all()
    shape, expression = random_coefficients(5)
    vertices = model.vertices(shape, expression)
    on_surface = (vertices[model.mesh.landmark_vertices] * weights[..., None]).sum(1)
    np.testing.assert_allclose(model.landmarks(shape, expression), on_surface, atol=1e-12)
    mean = model.landmark_basis().mean
    distance = np.linalg.norm(mean[:, None] - mean, axis=-1) + 9 * np.eye(68)
    assert distance.min() > 0.015  # one percent of the width of the face


def test_landmarks_are_where_their_names_say() -> None:
    at = morphable_model().landmark_basis().mean
    assert at[8, 1] == at[:, 1].min() and at[30, 2] == at[:, 2].max()  # chin lowest, tip of the nose foremost
    assert (at[17:22, 0] < 0).all() and (at[17:27, 1] > at[36:48, 1].max()).all()  # brows above eyes
    assert at[33, 1] > at[51, 1] > at[62, 1] > at[66, 1] > at[57, 1]  # down the middle of nose and mouth
    assert (np.diff(at[:17, 0]) > 0).all()  # the contour runs from one ear to the other
    for eye in (at[36:42], at[42:48]):
        assert eye[1:3, 1].min() > eye[[0, 3], 1].max() > eye[4:6, 1].max()


def test_coefficients_only_deform_and_leave_pose_to_the_pose() -> None:
    basis = morphable_model().landmark_basis()
    x, y, z = basis.mean.T
    zero, one = np.zeros(68), np.ones(68)
    rigid = [
        (one, zero, zero),
        (zero, one, zero),
        (zero, zero, one),
        (zero, -z, y),
        (z, zero, -x),
        (-y, x, zero),
        (x, y, z),
    ]
    for field in rigid:
        np.testing.assert_allclose(np.einsum("lc,lck->k", np.stack(field, -1), basis.shape), 0, atol=1e-10)
    spread = np.sqrt((basis.shape**2).sum(-1)).mean()
    assert 0.02 < spread < 0.06  # a few percent of the face's width


def test_same_index_same_bytes_and_other_index_other_face() -> None:
    recipe = SyntheticRecipe(train=4, val=4, test=0, image_size=48)
    first, again = render_sample(recipe, "train", 3), render_sample(recipe, "train", 3)
    np.testing.assert_array_equal(first.image, again.image)
    np.testing.assert_array_equal(first.landmarks, again.landmarks)
    assert (render_sample(recipe, "val", 3).image != first.image).any()
    other = SyntheticRecipe(train=4, val=4, test=0, image_size=48, seed=1)
    assert (render_sample(other, "train", 3).image != first.image).any()


def test_labels_agree_with_each_other() -> None:
    recipe = SyntheticRecipe(train=30, image_size=64)
    model = morphable_model()
    for i in range(30):
        sample = render_sample(recipe, "train", i)
        assert sample.image.shape == (80, 80, 3) and sample.image.dtype == np.uint8
        points = geometry.project(
            model.landmarks(sample.shape, sample.expression), sample.pose, 80, sample.inverse_distance
        )
        np.testing.assert_allclose(points, sample.landmarks, atol=1e-10)
        rotation, _ = geometry.orthonormalize(sample.pose.reshape(3, 4)[:, :3])
        np.testing.assert_allclose(geometry.matrix_to_euler(rotation), sample.angles, atol=1e-9)
        # The nominal crop is the centre of the image, up to the jitter of place and size.
        crop = geometry.crop_from_landmarks(sample.landmarks) - (80 - 1) / 2
        np.testing.assert_allclose(crop, [-32, -32, 32, 32], atol=2 * 0.02 * 64 + 0.05 * 32)
        inside = (np.abs(sample.landmarks[:, :2] - 39.5) < 40.5).all(-1)
        assert not (sample.visible & ~inside).any()


def test_visibility_follows_the_turn_of_the_head() -> None:
    rng = np.random.default_rng(0)
    zero = np.zeros(SHAPE_MODES), np.zeros(EXPRESSION_MODES)
    inner = np.array([30, 33, 36, 39, 42, 45, 48, 54])
    seen = np.zeros((3, len(inner)))
    for _ in range(12):
        for k, yaw in enumerate((-75.0, 0.0, 75.0)):
            seen[k] += render_face(np.array([0, yaw, 0]), *zero, rng, 96, 120).visible[inner] / 12
    assert (seen[1] > 0.7).all()  # occluders and glasses apart, the frontal face shows them all
    left, right = [2, 3, 6], [4, 5, 7]  # on the image's left and right in a frontal view
    hidden, shown = (left, right) if seen[0][left].mean() < seen[0][right].mean() else (right, left)
    assert seen[0][hidden].mean() < 0.2 < 0.7 < seen[0][shown].mean()
    assert seen[2][shown].mean() < 0.2 < 0.7 < seen[2][hidden].mean()


def rasterised(
    shape: np.ndarray, expression: np.ndarray, pose: np.ndarray, inverse_distance: float, size: int
) -> tuple[np.ndarray, ...]:
    """The bare head's pixels, depth, owner and barycentric coordinates."""
    model = morphable_model()
    pixels = np.empty((len(model.mean), 3))
    vertices = model.vertices(shape, expression)
    renderer.to_pixels(vertices, pose.reshape(3, 4), inverse_distance, size, pixels)
    np.testing.assert_allclose(pixels, geometry.project(vertices, pose, size, inverse_distance), atol=1e-9)
    depth, owner = np.empty((size, size), np.float32), np.empty((size, size), np.int32)
    bary = np.empty((size, size, 2), np.float32)
    renderer.rasterise(pixels, model.mesh.triangles, depth, owner, bary)
    return pixels, depth, owner, bary


def random_face(seed: int, spread: tuple[float, float, float]) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(seed)
    shape, expression = rng.standard_normal(SHAPE_MODES), draw_expression(rng)
    angles = np.array(spread) * rng.standard_normal(3)
    return shape, expression, geometry.pose_matrix(angles, np.array(85.0), np.array([99.0, 100.0, 0.0]))


@pytest.mark.parametrize("inverse_distance", [0.0, 1 / 40, 1 / 8])
def test_the_rendered_surface_lies_under_its_landmarks(inverse_distance: float) -> None:
    """The point of the head that the rasteriser shows in a landmark's pixel is the landmark, to a pixel's rounding."""
    model, size, measured = morphable_model(), 200, 0
    flat, canonical = model.mean[:, :2], model.landmark_basis().mean[:, :2]
    for seed in range(6):
        shape, expression, pose = random_face(seed, (10.0, 20.0, 40.0))
        pixels, depth, owner, bary = rasterised(shape, expression, pose, inverse_distance, size)
        landmarks = geometry.project(model.landmarks(shape, expression), pose, size, inverse_distance)
        normals = np.empty(pixels.shape, np.float32)
        renderer.vertex_normals(pixels, model.mesh.triangles, normals)
        facing = normals[model.mesh.landmark_vertices].mean(1)[:, 2]
        for k in range(17, 68):
            column, row = landmarks[k, :2].round().astype(int)
            if facing[k] < 0.6 or depth[row, column] - landmarks[k, 2] > 3:
                continue
            w1, w2 = bary[row, column]
            shown = np.array([1 - w1 - w2, w1, w2]) @ flat[model.mesh.triangles[owner[row, column]]]
            assert np.linalg.norm(shown - canonical[k]) * 85 < 2.0, (seed, k)
            measured += 1
    assert measured > 150


def behind_a_triangle(point: np.ndarray, pixels: np.ndarray, triangles: np.ndarray, tolerance: float) -> bool:
    """Whether the ray from a point (3,) in pixels to the viewer meets a front face more than `tolerance` nearer."""
    a, b, c = (pixels[triangles[:, k]] for k in range(3))
    e1, e2, p = b - a, c - a, point - a
    area = e1[:, 0] * e2[:, 1] - e1[:, 1] * e2[:, 0]
    front = area < -1e-12
    safe = np.where(front, area, 1)
    w1 = (p[:, 0] * e2[:, 1] - p[:, 1] * e2[:, 0]) / safe
    w2 = (e1[:, 0] * p[:, 1] - e1[:, 1] * p[:, 0]) / safe
    z = a[:, 2] + w1 * e1[:, 2] + w2 * e2[:, 2]
    return bool((front & (w1 >= 0) & (w2 >= 0) & (w1 + w2 <= 1) & (z - point[2] > tolerance)).any())


def test_visibility_against_a_ray_through_every_triangle() -> None:
    model, size, agree, hidden = morphable_model(), 200, [], 0
    for seed in range(8):
        shape, expression, pose = random_face(seed, (15.0, 45.0, 20.0))
        pixels, depth, _, _ = rasterised(shape, expression, pose, 1 / 12, size)
        landmarks = geometry.project(model.landmarks(shape, expression), pose, size, 1 / 12)
        visible = np.empty(68, np.bool_)
        tolerance = 0.06 * 85
        strokes.visible_points(landmarks, depth, np.zeros((size, size), np.bool_), tolerance, visible)
        rays = np.array([not behind_a_triangle(p, pixels, model.mesh.triangles, tolerance) for p in landmarks])
        for k in np.flatnonzero(visible != rays):  # only where a pixel beside the point sees past an edge
            around = [landmarks[k] + [dx, dy, 0] for dx in (-1.5, 0, 1.5) for dy in (-1.5, 0, 1.5)]
            seen = [not behind_a_triangle(p, pixels, model.mesh.triangles, tolerance) for p in around]
            assert any(seen) and not all(seen), (seed, k)
        agree.append((visible == rays).mean())
        hidden += int((~rays).sum())
    assert np.mean(agree) > 0.95 and hidden > 60


def test_what_is_drawn_over_a_landmark_hides_it() -> None:
    points = np.array([[20.0, 20.0, 0.0], [44.0, 44.0, 0.0], [90.0, 5.0, 0.0]])
    light, key = np.ones((3, 9), np.float32), np.array([1, 1, 1, 0, 0, 1, 0.2], np.float32)
    nothing, no_radius, no_colour = np.zeros((0, 8, 3)), np.zeros(0, np.float32), np.zeros((0, 3), np.float32)
    line = np.stack([np.linspace(10, 30, 8), np.full(8, 20.0), np.full(8, 50.0)], -1)[None]
    one, grey = np.array([3.0], np.float32), np.full((1, 3), 0.5, np.float32)
    box = np.array([[1, 20.0, 20.0, 4.0, 4.0, 1.0, 0.0, 0.7, 0.1, 0.2, 0.3, 0.0]])

    def visible(lock: bool = False, shape: bool = False, finger: bool = False) -> list[bool]:
        out = np.empty(3, np.bool_)
        image, depth = np.zeros((64, 64, 3), np.float32), np.zeros((64, 64), np.float32)
        with_line, without = (line, one, grey), (nothing, no_radius, no_colour)
        strokes.draw_over(
            image, depth, light, key, *(with_line if lock else without), np.ones(int(lock), np.float32),
            np.zeros((0, 16, 3)), np.zeros(4, np.float32), *without, box if shape else box[:0],
            *(with_line if finger else without), points, 5.0, out,
        )  # fmt: skip
        return list(out)

    assert visible() == [True, True, False]  # the third lies outside the image
    for what in ("lock", "shape", "finger"):
        assert visible(**{what: True}) == [False, True, False], what


def test_pose_parameters_are_the_weak_perspective_of_the_camera() -> None:
    """What systems that decode landmarks from [sR | t] can reach at best: stated in the module's docstring."""
    recipe, model = SyntheticRecipe(train=60, image_size=48), morphable_model()
    errors = []
    for i in range(60):
        sample = render_sample(recipe, "train", i)
        weak = geometry.project(model.landmarks(sample.shape, sample.expression), sample.pose, sample.image.shape[0])
        errors.append(float(nme(weak[None], sample.landmarks[None])[0]))
    assert 0.2 < np.mean(errors) < 2.0 and max(errors) < 6


def test_eyes_shut_and_mouths_open() -> None:
    model = morphable_model()
    zero = np.zeros(SHAPE_MODES)

    def gaps(name: str, value: float) -> tuple[float, float]:
        expression = np.where(np.array(EXPRESSIONS) == name, value, 0.0)
        at = model.landmarks(zero, expression)
        return float((at[[37, 38], 1] - at[[41, 40], 1]).mean()), float(at[62, 1] - at[66, 1])

    eye, mouth = gaps("blink", 0.0)
    assert 0.07 < eye < 0.14 and 0.01 < mouth < 0.04
    assert 0 < gaps("blink", SHUT)[0] < 0.25 * eye
    assert gaps("jaw_open", 2.0)[1] > 0.12 and gaps("brow_raise", 2.0) == pytest.approx((eye, mouth), abs=0.02)


def test_the_contour_landmarks_lie_on_the_jaws_edge() -> None:
    mesh = morphable_model().mesh
    rows = mesh.landmark_grid[:17, 0]
    np.testing.assert_array_equal(rows[2:15], mesh.jaw_row)
    assert (rows[[0, 1, 15, 16]] > mesh.jaw_row).all()


def test_every_vertex_has_a_normal() -> None:
    mesh = morphable_model().mesh
    normals = np.empty(mesh.vertices.shape)
    renderer.vertex_normals(mesh.vertices * [1, -1, 1], mesh.triangles, normals)
    below = slice(0, len(normals) - mesh.grid[1])  # the crown's row is one point
    np.testing.assert_allclose(np.linalg.norm(normals[below], axis=1), 1, atol=1e-5)
    # Outwards, on the whole: the surface is closed but for ears, lips and lids, which fold.
    out = mesh.vertices * [1, 0.5, 1]
    assert ((normals * out).sum(1) > 0).mean() > 0.9


def test_looks_are_spread_over_the_stated_range() -> None:
    rng = np.random.default_rng(0)
    pupils, turn = np.array([[-0.31, 0.0], [0.31, 0.0]]), np.eye(3)
    looks = [draw_look(rng, 60.0, pupils, 0.03, turn) for _ in range(400)]
    tones = np.array([look.base.mean() for look in looks])
    assert tones.min() < 1.2 * SKIN[-1].mean() and tones.max() > 0.85 * SKIN[0].mean()
    assert len({look.hair for look in looks}) == len(STYLES) + 1
    assert 0.08 < np.mean([look.glasses >= 0 for look in looks]) < 0.25
    keys = np.stack([look.key[3:6] for look in looks])
    np.testing.assert_allclose(np.linalg.norm(keys, axis=1), 1, atol=1e-5)
    assert (keys[:, 0] < -0.3).any() and (keys[:, 0] > 0.3).any() and (keys[:, 2] < 0).any()


def test_blocks_say_where_a_layer_can_be_seen() -> None:
    bank, rng = mask_bank(), np.random.default_rng(0)
    planes = rng.choice(len(bank.levels[0]), 20, replace=False)
    for level, stack in enumerate(bank.levels):
        blocks = bank.layers_by_block(level, planes)
        rows, columns = (rng.integers(0, n - 1, 4000) for n in stack.shape[1:])
        for k, plane in enumerate(planes):
            taps = [stack[plane][rows + i, columns + j] for i in (0, 1) for j in (0, 1)]
            seen = (np.max(taps, axis=0) > 0) <= ((blocks[rows >> 3, columns >> 3] >> np.uint32(k)) & 1).astype(bool)
            assert seen.all()
        share = np.unpackbits(blocks.view(np.uint8)).mean() * 32 / 20
        assert share < 0.7  # the point of it


def test_shadows_fall_away_from_the_light() -> None:
    light, model = light_visibility(), morphable_model()
    assert light.visible.shape[1] == len(model.mean) and np.isfinite(light.open).all()
    under_chin = np.flatnonzero(
        (model.mesh.level < -8) & (np.abs(model.mesh.angle) < 0.5) & (model.mesh.vertices[:, 1] > -1.5)
    )
    forehead = np.flatnonzero((np.abs(model.mesh.level - 0.45) < 0.02) & (np.abs(model.mesh.angle) < 0.3))
    above = light.weights(np.array([0.0, 0.9, 0.436]))
    assert above.sum() == pytest.approx(1, abs=1e-5)
    lit = above @ light.visible / 255
    assert lit[forehead].mean() > 0.9 and lit[under_chin].mean() < 0.4
    assert light.open[under_chin].mean() < light.open[forehead].mean()


def test_another_process_renders_the_same_bytes() -> None:
    recipe = SyntheticRecipe(train=3, image_size=40)
    here = [render_sample(recipe, "train", i) for i in (2, 0)]
    program = (
        "import hashlib; from mtlsearch.faces.rendering.synthetic import *\n"
        "r = SyntheticRecipe(train=3, image_size=40)\n"
        "for i in (2, 0): s = render_sample(r, 'train', i); "
        "print(hashlib.sha256(s.image.tobytes() + s.landmarks.tobytes() + s.visible.tobytes()).hexdigest())"
    )
    there = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    ours = [hashlib.sha256(s.image.tobytes() + s.landmarks.tobytes() + s.visible.tobytes()).hexdigest() for s in here]
    assert there == ours


def test_angles_fill_the_published_bins() -> None:
    recipe = SyntheticRecipe()
    rng = np.random.default_rng(0)
    angles = np.stack([draw_angles(rng, recipe) for _ in range(3000)])
    yaw = np.abs(angles[:, 1])
    bins = [(yaw <= 30).mean(), ((yaw > 30) & (yaw <= 60)).mean(), ((yaw > 60) & (yaw <= 90)).mean()]
    assert sum(bins) == pytest.approx(1) and min(bins) > 0.2
    assert np.abs(angles[:, [0, 2]]).max() <= 60
    np.testing.assert_allclose(angles[:, [0, 2]].std(0), 15, rtol=0.1)
    assert abs(angles.mean(0)).max() < 3


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"image_size": 4}, "image_size"), ({"train": -1}, "train"), ({"margin": 5.0}, "margin"),
        ({"seed": 1.5}, "seed"), ({"min_distance": 9.0, "max_distance": 8.0}, "at most max_distance"),
        ({"generator_version": 99}, "version 99"), ({"yaw_uniform": True},
        "yaw_uniform"),
    ],
)  # fmt: skip
def test_recipes_say_what_is_wrong(fields: dict, named: str) -> None:
    with pytest.raises(InputError, match=named):
        SyntheticRecipe(**fields)


def test_recipe_round_trip_and_unknown_field() -> None:
    recipe = SyntheticRecipe(seed=5, image_size=120)
    assert SyntheticRecipe.from_dict(recipe.to_dict()) == recipe
    assert SyntheticRecipe(max_yaw=90).digest() == SyntheticRecipe(max_yaw=90.0).digest()
    assert recipe.digest() != SyntheticRecipe(seed=6, image_size=120).digest()
    assert recipe.stored_size == 150 and SyntheticRecipe().stored_size == 80
    with pytest.raises(InputError, match="did you mean 'image_size'"):
        SyntheticRecipe.from_dict({"imag_size": 64})
    with pytest.raises(InputError, match="index 7"):
        render_sample(SyntheticRecipe(train=7), "train", 7)
    with pytest.raises(InputError, match="split"):
        render_sample(SyntheticRecipe(train=7), "training", 0)
