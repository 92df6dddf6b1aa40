"""Sets of images with objects in them, by name."""

from __future__ import annotations

from pathlib import Path

from graphattn.data import manifest as manifests
from graphattn.data.scenes import SceneSet
from graphattn.data.shapes import shapes
from graphattn.record import one_of


def load_scenes(name: str | Path, *, split: str | None = None) -> SceneSet:
    """Load the set called `name` (see `names()`): so many images train, validate and are tested as its split says.

    Raises:
        ValueError: an unknown set or split, one of another kind, or sizes other than the manifest's.
    """
    manifest = manifests.read(name)
    split = manifest.default_split if split is None else split
    one_of(manifest.format, manifests.SCENE_FORMATS, f"format of sets of objects in {manifest.name}:")
    recipe, sizes = manifest.splits[one_of(split, manifest.splits, f"split of {manifest.name}")], manifest.sizes
    val = recipe.val or 0
    loaded = shapes(train=sizes.images - sizes.tested - val, val=val, test=sizes.tested)
    found = (*loaded.train.images.shape[1:], loaded.num_classes)
    if found != (*sizes.shape, sizes.classes):
        raise ValueError(
            f"{manifest.name}: found images of {list(found[:3])} and {found[3]} classes, needed {list(sizes.shape)} "
            f"and {sizes.classes} (the manifest's [sizes])"
        )
    return loaded
