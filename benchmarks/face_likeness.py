"""How well a network trained on photographs reads the synthetic faces: python benchmarks/face_likeness.py

The network is MediaPipe's Face Mesh (Kartynnik et al., https://arxiv.org/abs/1907.06724), which has never seen a face
of ours. Needs `pip install "mediapipe==0.10.14"`, best in an environment of its own: render first, then measure.

    python benchmarks/face_likeness.py render faces.npz        # here
    python benchmarks/face_likeness.py measure faces.npz       # where mediapipe is; needs nothing of mtlsearch
"""

from __future__ import annotations

import argparse

import numpy as np

FACE_MESH = {
    17: 70, 19: 105, 21: 107, 22: 336, 24: 334, 26: 300, 27: 168, 30: 1, 33: 2, 31: 98, 35: 327, 36: 33, 37: 160,
    38: 158, 39: 133, 40: 153, 41: 144, 42: 362, 43: 385, 44: 387, 45: 263, 46: 373, 47: 380, 48: 61, 51: 0, 54: 291,
    57: 17, 62: 13, 66: 14,
}  # fmt: skip
"""Of the 68 landmarks, those that Face Mesh has too: brows, nose, eyes and mouth. Contours differ by definition."""
BORDER = 64


def render(path: str, count: int) -> None:
    from mtlsearch.faces.rendering.synthetic import SyntheticRecipe, render_sample

    recipe = SyntheticRecipe(seed=21, train=count, image_size=160, margin=1.6)
    samples = [render_sample(recipe, "train", i) for i in range(count)]
    names = ("image", "landmarks", "angles")
    np.savez(path, **{name: np.stack([getattr(sample, name) for sample in samples]) for name in names})
    print(f"{count} faces in {path}")


def measure(path: str) -> None:
    import mediapipe

    faces = np.load(path)
    mesh = mediapipe.solutions.face_mesh.FaceMesh(static_image_mode=True, max_num_faces=1, min_detection_confidence=0.3)
    ours, theirs = list(FACE_MESH), list(FACE_MESH.values())
    errors = []
    for image, landmarks in zip(faces["image"], faces["landmarks"][..., :2]):
        padded = np.pad(image, ((BORDER, BORDER), (BORDER, BORDER), (0, 0)), mode="edge")
        found = mesh.process(np.ascontiguousarray(padded)).multi_face_landmarks
        if not found:
            errors.append(np.nan)
            continue
        points = np.array([[p.x, p.y] for p in found[0].landmark]) * len(padded) - BORDER - 0.5
        size = np.sqrt(np.prod(np.ptp(landmarks, axis=0)))
        errors.append(100 * np.linalg.norm(points[theirs] - landmarks[ours], axis=1).mean() / size)
    error, yaw = np.array(errors), np.abs(faces["angles"][:, 1])
    print("yaw     faces  found  NME of the inner landmarks, mean and median, % of the ground truth's box")
    for low, high in ((0, 30), (30, 60), (60, 90)):
        here = error[(yaw >= low) & (yaw <= high)]
        seen = here[~np.isnan(here)]
        print(f"{low:2}–{high}  {len(here):6}  {len(seen) / len(here):5.1%}  {seen.mean():.2f} {np.median(seen):.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", choices=("render", "measure"))
    parser.add_argument("path", help="the .npz between the two steps")
    parser.add_argument("--count", type=int, default=400)
    options = parser.parse_args()
    if options.step == "render":
        render(options.path, options.count)
    else:
        measure(options.path)


if __name__ == "__main__":
    main()
