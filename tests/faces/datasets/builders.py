"""Small data sets in the published layouts, made of our own rendered faces."""

from __future__ import annotations

import pickle
import sqlite3
import zipfile
from pathlib import Path

import cv2
import numpy as np

from mtlsearch.faces.geometry import euler_to_matrix
from mtlsearch.faces.metrics import to_21_points
from mtlsearch.faces.packs.exporting import export_pack, save_landmark_basis
from mtlsearch.faces.packs.pack import Pack, ensure_pack
from mtlsearch.faces.rendering.synthetic import SyntheticRecipe

#: a camera so far away that the pose parameters give the landmarks exactly
FAR = {"min_distance": 1e6, "max_distance": 1e6}
RECIPE = SyntheticRecipe(train=0, val=0, test=6, image_size=120, margin=1.0, seed=5, **FAR)


def rendered(folder: Path, recipe: SyntheticRecipe = RECIPE) -> Pack:
    return ensure_pack(recipe, folder=folder, workers=1)


def exported(pack: Pack, folder: Path, layout: str) -> Path:
    export_pack(pack, "test", folder, layout)
    return folder


def jpeg(image: np.ndarray) -> bytes:
    return cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()


def three_ddfa(pack: Pack, folder: Path, *, zipped: bool = True) -> Path:
    """The first four faces for training, the others for validation, whitened with a made-up mean and spread."""
    folder.mkdir()
    split = pack.split("test")
    assert split.images.shape[1] == 120
    rng = np.random.default_rng(0)
    mean, std = rng.normal(size=62), rng.uniform(0.5, 2, 62)
    pose = split.labels["pose"].astype(np.float64)
    pose[:, [3, 7]] += 1
    parameters = np.concatenate([pose, split.labels["shape"], split.labels["expression"]], 1)
    whitened = ((parameters - mean) / std).astype(np.float32)
    names = [f"AFW_AFW_{i:06d}_1_0_{i}.jpg" for i in range(len(split))]
    for part, rows, file in (
        ("train", slice(0, 4), "param_all_norm.pkl"),
        ("val", slice(4, None), "param_all_norm_val.pkl"),
    ):
        (folder / f"train_aug_120x120.list.{part}").write_text("\n".join(names[rows]) + "\n")
        (folder / file).write_bytes(pickle.dumps(whitened[rows], 2))
    np.savetxt(folder / "param_mean.txt", mean, fmt="%.17g")
    np.savetxt(folder / "param_std.txt", std, fmt="%.17g")
    if zipped:
        with zipfile.ZipFile(folder / "train_aug_120x120.zip", "w") as archive:
            for name, image in zip(names, split.images):
                archive.writestr(f"train_aug_120x120/{name}", jpeg(image))
    else:
        (folder / "train_aug_120x120").mkdir()
        for name, image in zip(names, split.images):
            (folder / "train_aug_120x120" / name).write_bytes(jpeg(image))
    basis = pack.basis
    assert basis is not None
    save_landmark_basis(basis, folder / "basis")
    return folder


AFLW_TABLES = """
    CREATE TABLE Faces (face_id INTEGER PRIMARY KEY, file_id TEXT, db_id TEXT);
    CREATE TABLE FaceImages (image_id INTEGER, db_id TEXT, file_id TEXT, filepath TEXT, bw INT, width INT, height INT);
    CREATE TABLE FacePose (face_id INTEGER, roll REAL, pitch REAL, yaw REAL, annot_type_id INT, upsidedown INT);
    CREATE TABLE FaceRect (face_id INTEGER, x INT, y INT, w INT, h INT, annot_type_id INT);
    CREATE TABLE FeatureCoords (face_id INTEGER, feature_id INTEGER, x REAL, y REAL, annot_type_id INT);
"""


def aflw(pack: Pack, folder: Path) -> Path:
    """The faces two to a photograph's name, hidden points left out of the table, roll with AFLW's sign."""
    split = pack.split("test")
    (folder / "flickr" / "0").mkdir(parents=True)
    with sqlite3.connect(folder / "aflw.sqlite") as database:
        database.executescript(AFLW_TABLES)
        for i, image in enumerate(split.images):
            face, file = 39341 + i, f"image{i:05d}.jpg"
            (folder / "flickr" / "0" / file).write_bytes(jpeg(image))
            points = split.labels["landmarks"][i : i + 1, :, :2].astype(float)
            visible = to_21_points(split.labels["visible"][i : i + 1, :, None].astype(float))[0, :, 0] == 1
            pitch, yaw, roll = np.radians(split.labels["angles"][i].astype(float)).tolist()
            low, high = points[0].min(0).round(), points[0].max(0).round()
            rows = {
                "Faces": (face, file, "flickr"),
                "FaceImages": (i, "flickr", file, f"0/{file}", 0, *image.shape[1::-1]),
                "FacePose": (face, -roll, pitch, yaw, 1, 0),
                "FaceRect": (face, *low.tolist(), *(high - low).tolist(), 1),
            }
            for table, values in rows.items():
                database.execute(f"INSERT INTO {table} VALUES ({', '.join('?' * len(values))})", values)
            for k, point in enumerate(to_21_points(points)[0].tolist()):
                if visible[k]:
                    database.execute("INSERT INTO FeatureCoords VALUES (?, ?, ?, ?, 1)", (face, k + 1, *point))
    database.close()
    return folder


def aflw_3ddfa(pack: Pack, folder: Path) -> Path:
    """Crops said to come from photographs three times as large, 40 pixels from their left and 60 from their top."""
    split = pack.split("test")
    (folder / "AFLW_GT_crop").mkdir(parents=True)
    names = [f"image{i:05d}_{i}.jpg" for i in range(len(split))]
    for name, image in zip(names, split.images):
        (folder / "AFLW_GT_crop" / name).write_bytes(jpeg(image))
    (folder / "AFLW_GT_crop.list").write_text("\n".join(names))
    side = split.images.shape[1]
    boxes = np.tile([40, 60, 40 + 3 * side, 60 + 3 * side], (len(split), 1)).astype(np.float32)
    points = (split.labels["landmarks"].astype(float)[..., :2] + 1) * 3 + [40, 60]
    visible = to_21_points(split.labels["visible"][..., None].astype(float))[..., 0] == 1
    points21 = np.where(visible[..., None], to_21_points(points), -1)
    np.save(folder / "AFLW_GT_crop_roi_box.npy", boxes)
    np.save(folder / "AFLW_GT_crop_yaws.npy", split.labels["angles"][:, 1])
    np.save(folder / "AFLW_GT_pts21.npy", points21.transpose(0, 2, 1))
    np.save(folder / "AFLW_GT_pts68.npy", points.transpose(0, 2, 1))
    return folder


def reannotated(aflw2000: Path, shift: float) -> None:
    """The second ground truth beside the first: every x moved by `shift` pixels."""
    import scipy.io

    points = [scipy.io.loadmat(path)["pt3d_68"] for path in sorted(aflw2000.glob("*.mat"))]
    np.save(aflw2000 / "AFLW2000-3D-Reannotated.pts68.npy", np.stack(points)[:, :2] + [[shift], [0]])


def rotation_error(angles: np.ndarray, others: np.ndarray) -> float:
    return float(np.abs(euler_to_matrix(angles) - euler_to_matrix(others)).max())
