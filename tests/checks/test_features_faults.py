"""How 2D features have gone wrong, or can: each planted where it would happen, and caught by a named check."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from ditr.checks.stages import run_stage
from ditr.data.scannet_sv import FrameSet
from ditr.errors import Code, DitrError
from ditr.features.precomputed_maps import PrecomputedMaps
from ditr.features.sources import FeatureSource
from ditr.features.store import FeatureStore
from ditr.progress import silent
from ditr.spec.entries import PrecomputedEntry, SeededWeights

if TYPE_CHECKING:
    from conftest import World

Fault = Callable[["World", pytest.MonkeyPatch], None]
GRID = (12, 16)
NOISE = torch.Generator()


def failed_of(world: World, names: set[str]) -> set[str]:
    """Which of the named checks fail; those after the last of them are not made."""
    left, failed = set(names), set()
    for check in run_stage(1, world.subject(), every_map=True, progress=silent):
        if check.name in left:
            left.remove(check.name)
            assert check.stage == 1
            assert check.passed or check.detail
            failed |= set() if check.passed else {check.name}
        if not left:
            break
    return failed


# Files and manifest


def missing_map(world: World, patch: pytest.MonkeyPatch) -> None:
    world.store.path(world.frames.ids[1]).unlink()


def no_map(world: World, patch: pytest.MonkeyPatch) -> None:
    for frame in world.frames.ids:
        world.store.path(frame).unlink()


def truncated_map(world: World, patch: pytest.MonkeyPatch) -> None:
    path = world.store.path(world.frames.ids[1])
    path.write_bytes(path.read_bytes()[:-100])


def flipped_bit(world: World, patch: pytest.MonkeyPatch) -> None:
    path = world.store.path(world.frames.ids[1])
    content = bytearray(path.read_bytes())
    content[-101] ^= 1
    path.write_bytes(content)


def files_swapped_on_disk(world: World, patch: pytest.MonkeyPatch) -> None:
    first, second = (world.store.path(frame) for frame in world.frames.ids[:2])
    shutil.move(first, first.with_suffix(".other"))
    shutil.move(second, first)
    shutil.move(first.with_suffix(".other"), second)


def map_copied_on_disk(world: World, patch: pytest.MonkeyPatch) -> None:
    first, second = (world.store.path(frame) for frame in world.frames.ids[:2])
    second.write_bytes(first.read_bytes())


def manifest_says(**changes: Any) -> Fault:
    def fault(world: World, patch: pytest.MonkeyPatch) -> None:
        manifest = world.store.manifest()
        assert manifest is not None
        world.store.write_manifest({**manifest, **changes})

    return fault


def no_manifest(world: World, patch: pytest.MonkeyPatch) -> None:
    (world.folder / "manifest.json").unlink()


def weights_changed_since(world: World, patch: pytest.MonkeyPatch) -> None:
    world.entry = world.entry.model_copy(update={"weights": SeededWeights(kind="seeded", seed=6)})


# Values, as an extraction without its own checks would write them and a reader without its own would read them


def reader_without_checks(world: World, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(FeatureStore, "read", lambda self, frame: torch.from_numpy(np.load(self.path(frame))))


def written_as(change: Callable[[np.ndarray], np.ndarray]) -> Fault:
    def fault(world: World, patch: pytest.MonkeyPatch) -> None:
        reader_without_checks(world, patch)
        path = world.store.path(world.frames.ids[2])
        np.save(path, change(np.load(path)))

    return fault


def with_nan(tokens: np.ndarray) -> np.ndarray:
    tokens[3, 2, 1] = np.nan
    return tokens


def rewritten(change: Callable[[dict[str, Tensor]], dict[str, Tensor]]) -> Fault:
    """Through the store, so that digests are those of the wrong maps."""

    def fault(world: World, patch: pytest.MonkeyPatch) -> None:
        maps = {frame: world.store.read(frame) for frame in world.frames.ids}
        for frame, tokens in change(maps).items():
            world.store.write(frame, tokens)

    return fault


def changed(change: Callable[[Tensor], Tensor]) -> Fault:
    return rewritten(lambda maps: {frame: change(tokens) for frame, tokens in maps.items()})


def transposed(tokens: Tensor) -> Tensor:
    """Rows taken for columns, in a grid of the right shape."""
    return tokens.transpose(1, 2).reshape(tokens.shape)


def one_for_all(maps: dict[str, Tensor]) -> dict[str, Tensor]:
    return dict.fromkeys(maps, next(iter(maps.values())))


def one_late(maps: dict[str, Tensor]) -> dict[str, Tensor]:
    """Every frame has the map of the frame before."""
    tokens = list(maps.values())
    return dict(zip(maps, tokens[-1:] + tokens[:-1], strict=True))


# The source


def gives(change: Callable[[FeatureSource, Tensor], list[Tensor]], *, extract: bool) -> Fault:
    """The network's tokens become a map in another way; with ``extract`` the stored maps are made so too."""

    def fault(world: World, patch: pytest.MonkeyPatch) -> None:
        patch.setattr(FeatureSource, "_intermediates", change)
        if extract:
            world.extract()

    return fault


def tokens_from(first: int) -> Callable[[FeatureSource, Tensor], list[Tensor]]:
    """As many tokens as there are patches, but beginning with class or register tokens."""

    def change(source: FeatureSource, pixels: Tensor) -> list[Tensor]:
        tokens = source.model.forward_features(pixels)[:, first : first + GRID[0] * GRID[1]]
        return [tokens.transpose(1, 2).reshape(len(tokens), -1, *GRID)]

    return change


def all_but_class_token(source: FeatureSource, pixels: Tensor) -> list[Tensor]:
    tokens = source.model.forward_features(pixels)[:, 1:]
    return [tokens.transpose(1, 2).reshape(len(tokens), -1, *GRID)]


def first_for_all(source: FeatureSource, pixels: Tensor) -> list[Tensor]:
    return [intermediates(source, pixels[:1]).expand(len(pixels), -1, -1, -1)]


def with_noise(source: FeatureSource, pixels: Tensor) -> list[Tensor]:
    maps = intermediates(source, pixels)
    return [maps + 0.1 * torch.randn(maps.shape, generator=NOISE)]


def with_batch_statistics(source: FeatureSource, pixels: Tensor) -> list[Tensor]:
    maps = intermediates(source, pixels)
    return [maps - maps.mean(dim=(0, 2, 3), keepdim=True)]


def transposed_source(source: FeatureSource, pixels: Tensor) -> list[Tensor]:
    maps = intermediates(source, pixels)
    return [maps.transpose(2, 3).reshape(maps.shape)]


def intermediates(source: FeatureSource, pixels: Tensor) -> Tensor:
    found: list[Tensor] = source.model.forward_intermediates(
        pixels, norm=True, indices=1, output_fmt="NCHW", intermediates_only=True
    )
    return found[-1]


def sees(change: Callable[[Tensor], Tensor], *, extract: bool = True) -> Fault:
    """The image is brought to the network's size in another way."""

    def fault(world: World, patch: pytest.MonkeyPatch) -> None:
        prepared = FeatureSource.prepared
        patch.setattr(FeatureSource, "prepared", lambda self, images: change(prepared(self, images)))
        if extract:
            world.extract()

    return fault


def middle_cut_out(pixels: Tensor) -> Tensor:
    """Both sides are cut off to keep another aspect, then what is left is resized."""
    return interpolate(pixels[..., 28:-28], size=pixels.shape[2:], mode="bilinear", align_corners=False)


def padded_instead(pixels: Tensor) -> Tensor:
    """The image is smaller, and black is below and to the right of it."""
    small = interpolate(pixels, size=(144, 192), mode="bilinear", align_corners=False)
    return torch.nn.functional.pad(small, (0, 32, 0, 24))


def does_not_load(world: World, patch: pytest.MonkeyPatch) -> None:
    def load() -> FeatureSource:
        raise DitrError("the weights are missing", code=Code.FEATURES, where="tiny_vit", fix="download them")

    world.load = load


# Frames


def image_unreadable(world: World, patch: pytest.MonkeyPatch) -> None:
    image = FrameSet.image

    def read(self: FrameSet, index: int) -> np.ndarray:
        if index == 1:
            raise DitrError("the image is damaged", code=Code.DATASET, where="1.jpg", fix="restore it")
        return image(self, index)

    patch.setattr(FrameSet, "image", read)


def images_of_next_frame(world: World, patch: pytest.MonkeyPatch) -> None:
    image = FrameSet.image
    patch.setattr(FrameSet, "image", lambda self, index: image(self, (index + 1) % len(self)))


def images_in_bgr(world: World, patch: pytest.MonkeyPatch) -> None:
    image = FrameSet.image
    patch.setattr(FrameSet, "image", lambda self, index: image(self, index)[..., ::-1].copy())


STORED: dict[str, tuple[Fault, str]] = {
    "a map is missing": (missing_map, "maps_present"),
    "no map is there": (no_map, "maps_present recomputed own_image"),
    "a map is cut off": (truncated_map, "map_digest maps_unreadable"),
    "one bit of a map is flipped": (flipped_bit, "map_digest maps_unreadable"),
    "files of two frames are swapped": (files_swapped_on_disk, "map_digest maps_unreadable"),
    "a file is copied over another": (map_copied_on_disk, "map_digest maps_unreadable"),
    "nobody says what the maps are": (no_manifest, "manifest"),
    "maps of other data": (manifest_says(dataset_digest="other"), "manifest"),
    "maps of another data set": (manifest_says(dataset="other"), "manifest"),
    "maps of another source": (manifest_says(source="other"), "manifest"),
    "maps of other weights by the manifest": (manifest_says(weights_digest="0" * 32), "manifest"),
    "maps of another size": (manifest_says(input_size=[224, 168]), "manifest"),
    "maps of padded images": (manifest_says(resize="pad"), "manifest"),
    "maps of another layer": (manifest_says(layers=[-2]), "manifest"),
    "other weights than when the maps were made": (weights_changed_since, "manifest recomputed"),
    "NaN was stored": (written_as(with_nan), "map_finite"),
    "float32 was stored": (written_as(lambda tokens: tokens.astype(np.float32)), "map_dtype"),
    "columns before rows were stored": (written_as(lambda tokens: tokens.transpose(0, 2, 1)), "map_shape"),
    "too few channels were stored": (written_as(lambda tokens: tokens[:-1]), "map_shape"),
    "maps of zeros": (changed(torch.zeros_like), "map_variation maps_distinct recomputed"),
    "maps that are constant": (changed(lambda tokens: tokens[:, :1, :1].expand(tokens.shape)), "map_variation"),
    "the map of one frame for all": (rewritten(one_for_all), "maps_distinct own_image recomputed"),
    "the map of the frame before": (rewritten(one_late), "own_image recomputed"),
    "transposed token grid": (changed(transposed), "own_image recomputed"),
    "rows from the bottom": (changed(lambda tokens: tokens.flip(1)), "own_image recomputed"),
    "columns from the right": (changed(lambda tokens: tokens.flip(2)), "own_image recomputed"),
    "turned by half": (changed(lambda tokens: tokens.flip(1, 2)), "own_image recomputed"),
    "tokens one row too low": (changed(lambda tokens: tokens.roll(1, dims=1)), "map_alignment recomputed"),
    "tokens five columns too late": (
        changed(lambda tokens: tokens.flatten(1).roll(5, 1).reshape(tokens.shape)),
        "own_image",
    ),
    "channels in another order": (changed(lambda tokens: tokens.roll(1, dims=0)), "recomputed"),
    "tokens without the final norm's scale": (changed(lambda tokens: tokens * 1.05), "recomputed"),
    "the source does not load": (does_not_load, "source_loads"),
    "an image is damaged": (image_unreadable, "images_unreadable"),
    "images of the next frame": (images_of_next_frame, "own_image recomputed"),
    "images in BGR since the extraction": (images_in_bgr, "recomputed"),
    "the first image for the whole batch": (gives(first_for_all, extract=False), "token_locality"),
    "register tokens are patches too": (gives(all_but_class_token, extract=False), "token_count"),
    "patches begin at the class token": (gives(tokens_from(0), extract=True), "token_locality own_image"),
    "patches begin at the registers": (gives(tokens_from(1), extract=True), "token_locality own_image"),
    "the source draws random numbers": (gives(with_noise, extract=True), "recomputed repeated"),
    "the source takes statistics of the batch": (gives(with_batch_statistics, extract=True), "repeated"),
    "the source transposes": (gives(transposed_source, extract=True), "token_locality own_image"),
    "images lose their sides": (sees(middle_cut_out), "map_alignment token_locality"),
    "images are padded and not resized": (sees(padded_instead), "map_alignment token_locality"),
    "images half a token too low": (sees(lambda pixels: pixels.roll(7, dims=2)), "map_alignment"),
    "images half a token too far left": (sees(lambda pixels: pixels.roll(-7, dims=3)), "map_alignment"),
    "images mirrored": (sees(lambda pixels: pixels.flip(3)), "token_locality own_image"),
    "channels in BGR since the extraction": (sees(lambda pixels: pixels.flip(1), extract=False), "recomputed"),
}


@pytest.mark.parametrize("what", STORED)
def test_a_fault_of_stored_maps_is_caught(what: str, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    fault, names = STORED[what]
    fault(world, monkeypatch)
    assert failed_of(world, set(names.split())) == set(names.split())


# Maps that somebody else computed: nothing can be computed again, and what they are shows in the images alone


def precomputed(world: World, *, covers: tuple[int, int] = (480, 640)) -> None:
    """The sound maps as files of another tool."""
    folder = world.folder.with_name("clip_feat")
    for frame in world.frames.ids:
        scene, _, number = frame.rpartition("_")
        (folder / scene).mkdir(parents=True, exist_ok=True)
        torch.save({"pix": world.store.read(frame)}, folder / scene / f"{number}.pt")
    world.entry = PrecomputedEntry(
        kind="precomputed", path=str(folder), channels=32, rows=GRID[0], columns=GRID[1], covers=covers, licence="none"
    )
    world.change(source="theirs", input_size=None)
    world.maps, world.load = PrecomputedMaps(folder, entry=world.entry, frame_ids=world.frames.ids), None


def precomputed_before(fault: Fault) -> Fault:
    """They come out of the fault."""

    def both(world: World, patch: pytest.MonkeyPatch) -> None:
        fault(world, patch)
        precomputed(world)

    return both


def theirs_missing(world: World, patch: pytest.MonkeyPatch) -> None:
    precomputed(world)
    assert world.maps is not None
    world.maps.path(world.frames.ids[0]).unlink()


def theirs_cut_off(world: World, patch: pytest.MonkeyPatch) -> None:
    precomputed(world)
    assert world.maps is not None
    path = world.maps.path(world.frames.ids[0])
    path.write_bytes(path.read_bytes()[:-500])


def theirs_covers_wrongly(world: World, patch: pytest.MonkeyPatch) -> None:
    precomputed(world, covers=(560, 720))


def pickle_names(file: Callable[[str, str], str]) -> Fault:
    """``clip_feat_path`` of every frame, from its scene and number."""

    def fault(world: World, patch: pytest.MonkeyPatch) -> None:
        precomputed(world)
        infos = world.frames.infos
        named = [replace(one, features_file=file(one.scene, one.number)) for one in infos.frames]
        world.frames = FrameSet(
            world.frames.root, infos=replace(infos, frames=tuple(named)), intrinsics=world.frames.intrinsics
        )

    return fault


def pickle_names_others(world: World, patch: pytest.MonkeyPatch) -> None:
    other = world.folder.with_name("other.pt")
    other.touch()
    pickle_names(lambda scene, number: os.path.relpath(other, world.frames.root))(world, patch)


PRECOMPUTED: dict[str, tuple[Fault, str]] = {
    "a map is missing": (theirs_missing, "maps_present"),
    "a map is cut off": (theirs_cut_off, "maps_unreadable"),
    "the info pickle names files that do not exist": (
        pickle_names(lambda *of: "no/{}/{}.pt".format(*of)),
        "path_agreement",
    ),
    "the info pickle names other files": (pickle_names_others, "path_agreement"),
    "the entry says that they cover more": (theirs_covers_wrongly, "map_alignment"),
    "the map of the frame before": (precomputed_before(rewritten(one_late)), "own_image"),
    "the map of one frame for all": (precomputed_before(rewritten(one_for_all)), "maps_distinct own_image"),
    "transposed token grid": (precomputed_before(changed(transposed)), "own_image"),
    "columns from the right": (precomputed_before(changed(lambda tokens: tokens.flip(2))), "own_image"),
    "maps of zeros": (precomputed_before(changed(torch.zeros_like)), "map_variation"),
    "patches begin at the registers": (precomputed_before(gives(tokens_from(1), extract=True)), "own_image"),
    "images of another aspect": (precomputed_before(sees(middle_cut_out)), "map_alignment"),
}


@pytest.mark.parametrize("what", PRECOMPUTED)
def test_a_fault_of_precomputed_maps_is_caught(what: str, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    fault, names = PRECOMPUTED[what]
    fault(world, monkeypatch)
    assert failed_of(world, set(names.split())) == set(names.split())


def test_sound_precomputed_maps_pass(world: World) -> None:
    precomputed(world)
    checks = list(run_stage(1, world.subject(), every_map=True, progress=silent))
    assert [check for check in checks if not check.passed] == []
    assert "path_agreement" in {check.name for check in checks}


# Maps that are computed in the step


ONLINE: dict[str, tuple[Fault, str]] = {
    "patches begin at the registers": (gives(tokens_from(1), extract=False), "token_locality own_image"),
    "the source draws random numbers": (gives(with_noise, extract=False), "repeated"),
    "the source takes statistics of the batch": (gives(with_batch_statistics, extract=False), "repeated"),
    "the source transposes": (gives(transposed_source, extract=False), "token_locality own_image"),
    "images lose their sides": (sees(middle_cut_out, extract=False), "map_alignment"),
    "the source does not load": (does_not_load, "source_loads"),
}


@pytest.mark.parametrize("what", ONLINE)
def test_a_fault_of_online_maps_is_caught(what: str, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    fault, names = ONLINE[what]
    world.go_online()
    fault(world, monkeypatch)
    assert failed_of(world, set(names.split())) == set(names.split())


def test_sound_online_maps_pass(world: World) -> None:
    world.go_online()
    checks = list(run_stage(1, world.subject(), every_map=False, progress=silent))
    assert [check for check in checks if not check.passed] == []
    assert {"own_image", "token_locality"} <= {check.name for check in checks}


def test_a_grid_too_small_to_compare_is_said_and_not_passed_over(world: World) -> None:
    world.change(input_size=(70, 70))
    world.extract()
    check = next(
        one for one in run_stage(1, world.subject(), every_map=False, progress=silent) if one.name == "own_image"
    )
    assert check.value is None
    assert "not measured" in check.detail


def test_nothing_is_said_of_maps_without_fusion(world: World) -> None:
    world.spec = world.spec.model_copy(update={"fusion": type(world.spec.fusion)()})
    assert list(run_stage(1, world.subject(), every_map=True, progress=silent)) == []
