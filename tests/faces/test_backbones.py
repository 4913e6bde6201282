"""The adapter from timm's layouts to a map, fixed sizes, and what cannot serve."""

from __future__ import annotations

import pytest
import torch

from mtlsearch.errors import InputError
from mtlsearch.faces.backbones import Backbone, to_map


def test_layouts_become_one() -> None:
    """Every position keeps its place: a map, the same map with channels last, and as tokens behind two others."""
    features = torch.randn(2, 5, 3, 3)
    torch.testing.assert_close(to_map(features, 5), features)
    torch.testing.assert_close(to_map(features.permute(0, 2, 3, 1), 5), features)
    tokens = torch.cat([torch.randn(2, 2, 5), features.flatten(2).transpose(1, 2)], dim=1)
    torch.testing.assert_close(to_map(tokens, 5, prefix_tokens=2), features)
    assert to_map(tokens, 5) is None and to_map(features.flatten(1), 5) is None


@pytest.mark.parametrize(
    ("name", "size", "shape"),
    [
        ("test_resnet", 64, (96, 2, 2)),
        ("test_vit", 160, (64, 10, 10)),
        ("test_vit", 96, (64, 6, 6)),  # built for 160, resized
        ("mobilevit_xxs", 64, (320, 2, 2)),
    ],
)
def test_a_map_and_its_gradient(name: str, size: int, shape: tuple[int, ...]) -> None:
    backbone = Backbone(name, pretrained=False, image_size=size)
    features = backbone(torch.randn(2, 3, size, size))
    assert features.shape[1:] == shape and backbone.channels == shape[0]
    features.square().sum().backward()
    assert next(p for p in backbone.parameters() if p.requires_grad).grad is not None


def test_channels_last_maps_are_told_from_maps() -> None:
    backbone = Backbone("swin_s3_tiny_224", pretrained=False, image_size=224)
    assert backbone.channels == 768
    with torch.no_grad():
        assert backbone(torch.zeros(1, 3, 224, 224)).shape == (1, 768, 7, 7)


def test_a_model_without_a_map_is_refused() -> None:
    with pytest.raises(InputError, match="'crossvit_tiny_240' gives features list, which are no map"):
        Backbone("crossvit_tiny_240", pretrained=False, image_size=240)


def test_a_model_of_another_size_says_which() -> None:
    with pytest.raises(InputError, match=r"does not take images of 64×64 .* made for 224×224: set data.image_size=224"):
        Backbone("efficientformer_l1", pretrained=False, image_size=64)


def test_unavailable_weights_are_said_clearly(monkeypatch: pytest.MonkeyPatch) -> None:
    import timm

    def offline(name: str, pretrained: bool, **_: object) -> None:
        assert pretrained
        raise OSError("no route to host")

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(InputError, match=r"model\.pretrained: the weights of 'resnet18' cannot be had here"):
        Backbone("resnet18", pretrained=True, image_size=64)
