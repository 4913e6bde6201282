"""The morphable model and the faces rendered from it."""

from __future__ import annotations

import numpy as np
import pytest

from mtlsearch.errors import InputError
from mtlsearch.faces import geometry, renderer, synthetic
from mtlsearch.faces.geometry import FLIP_68
from mtlsearch.faces.morphable_model import EXPRESSION_MODES, SHAPE_MODES, morphable_model
from mtlsearch.faces.synthetic import SyntheticRecipe, draw_angles, render_face, render_sample

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


def test_the_rendered_surface_lies_under_its_landmarks() -> None:
    """The point of the head that the rasteriser shows in a landmark's pixel is the landmark, to a pixel's
    rounding."""
    model, scene = morphable_model(), synthetic._scene()
    canonical = model.landmark_basis().mean[:, :2]
    size, measured = 200, 0
    for seed in range(6):
        rng = np.random.default_rng(seed)
        shape, expression = rng.standard_normal(SHAPE_MODES), synthetic.draw_expression(rng)
        angles = np.array([10.0, 20.0, 40.0]) * rng.standard_normal(3)
        pose = geometry.pose_matrix(angles, np.array(85.0), np.array([99.0, 110.0, 0.0]))
        pixels = np.empty((len(model.mean), 3))
        renderer.to_pixels(model.vertices(shape, expression), pose.reshape(3, 4), size, pixels)
        depth, owner = np.empty((size, size), np.float32), np.empty((size, size), np.int32)
        bary = np.empty((size, size, 2), np.float32)
        renderer.rasterise(pixels, scene.triangles, depth, owner, bary)
        landmarks = geometry.project(model.landmarks(shape, expression), pose, size)
        normals = np.empty((len(pixels), 3), np.float32)
        renderer.vertex_normals(pixels, scene.triangles, normals)
        facing = normals[model.mesh.landmark_vertices].mean(1)[:, 2]
        for k in range(17, 68):
            column, row = landmarks[k, :2].round().astype(int)
            hidden = depth[row, column] - landmarks[k, 2] > 3
            if facing[k] < 0.6 or hidden:
                continue
            corners = scene.triangles[owner[row, column]]
            w1, w2 = bary[row, column]
            shown = np.array([1 - w1 - w2, w1, w2]) @ scene.flat[corners]
            assert np.linalg.norm(shown - canonical[k]) * 85 < 2.0, (seed, k)
            measured += 1
    assert measured > 150


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
        ({"seed": 1.5}, "seed"), ({"generator_version": 99}, "version 99"), ({"yaw_uniform": True},
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
