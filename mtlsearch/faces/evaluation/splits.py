"""Scoring predictions on a packed split: what training validates with, and what `python -m mtlsearch.evaluate` prints.

Errors are measured in the pixels of the original photograph, whatever the crops' size, since an NME with z, or of
resized crops, is only then that of the protocol.
"""

from __future__ import annotations

import torch
from torch import nn

from mtlsearch.errors import InputError
from mtlsearch.faces import geometry
from mtlsearch.faces.augmentation import Augmentation, augment, centre_crop, scaled
from mtlsearch.faces.evaluation.accumulator import FaceScores, GroundTruth
from mtlsearch.faces.metrics import box_size, to_21_points
from mtlsearch.faces.packs.batches import DeviceSplit
from mtlsearch.faces.packs.pack import Pack
from mtlsearch.faces.targets import Prediction

#: pixels at a time: 256 images of 64×64, 16 of 256×256, where a cascade takes 50 MB for each
_BATCH_PIXELS = 1 << 20


def predict_split(
    model: nn.Module, images: DeviceSplit, pack: Pack, image_size: int, shown: int | None = None
) -> Prediction:
    """What a system predicts of every image of a split, on the CPU; without the dense points, which no metric reads.

    images: a split of `pack`; image_size: side of the network's input, to which the pack's crops are brought; shown:
    side to which they are then scaled, of a network that is trained on smaller ones for now.
    """
    landmarks, angles = [], []
    for rows in torch.arange(len(images)).split(max(1, _BATCH_PIXELS // image_size**2)):
        stored, _ = images.batch(rows)
        crops, _ = augment(stored, {}, Augmentation.off(), pack.image_size, image_size)
        crops = scaled(crops, shown).contiguous(memory_format=torch.channels_last)
        prediction = model.decode(model(crops))  # type: ignore[operator]
        landmarks.append(prediction.landmarks.cpu())
        angles.append(prediction.angles.cpu())
    return Prediction(torch.cat(landmarks), torch.cat(angles))


def mean_face(pack: Pack, split: str, image_size: int, points: int | None = None) -> Prediction:
    """The face that a constant prediction gives: the mean landmarks (1, K, d), in pixels of the network's input, and
    mean angles (1, 3) of a split. What the data do not give, points and angles, is left out of the means.

    points: 21 for AFLW's of a pack with 68, as a system predicts them that it is compared with.
    """
    labels = pack.split(split).labels
    landmarks = torch.from_numpy(labels["landmarks"])
    if landmarks.shape[1] == 21:  # what is hidden there has no coordinates
        seen = torch.from_numpy(labels["visible"])[..., None]
        mean = torch.where(seen, landmarks, torch.nan).nanmean(0, dtype=torch.float64)
    else:
        mean = landmarks.mean(0, dtype=torch.float64)
    if points == 21 and len(mean) == 68:
        mean = to_21_points(mean[None])[0]
    mean = geometry.transform_points(mean, centre_crop(pack.stored_size, pack.image_size, image_size))
    angles = torch.from_numpy(labels["angles"]).nanmean(0, dtype=torch.float64)
    return Prediction(mean[None], angles[None])


def score_split(prediction: Prediction, pack: Pack, split: str, image_size: int) -> FaceScores:
    """Predictions of a whole split, in pixels of the network's input, against its labels.

    Raises InputError where the system gives other landmarks than the split has.
    """
    labels = {name: torch.from_numpy(values) for name, values in pack.split(split).labels.items() if name != "name"}
    predicted, known = prediction.landmarks.shape[1], labels["landmarks"].shape[1]
    if predicted != known and {predicted, known} != {68, 21}:
        raise InputError(f"the system gives {predicted} landmarks and the {pack.source} faces have {known}")
    whole = torch.eye(2, 3, dtype=torch.float64).expand(len(prediction.landmarks), -1, -1)
    to_stored = labels.get("crop", whole)
    from_stored = geometry.invert_affine(to_stored)
    to_input = centre_crop(pack.stored_size, pack.image_size, image_size)
    from_input = geometry.compose_affines(from_stored, geometry.invert_affine(to_input))
    size = None
    if "box" in labels:
        corners = geometry.transform_points(labels["box"].double().view(-1, 2, 2), from_stored)
        size = box_size(corners.view(-1, 4))
    truth = GroundTruth(
        geometry.transform_points(labels["landmarks"].double(), from_stored),
        labels["angles"],
        # a rendered landmark counts wherever it is, as those of AFLW2000-3D do
        labels["visible"] if known == 21 else None,
        size,
    )
    scores = FaceScores(pack.manifest.get("pose_limit"))
    scores.update(
        geometry.transform_points(prediction.landmarks.cpu().double(), from_input), prediction.angles.cpu(), truth
    )
    return scores
