"""Which file a source's weights are taken from, and that each of them arrives in the model."""

from __future__ import annotations

import hashlib
import pickle
import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from ditr.errors import Code, DitrError
from ditr.features import weights as weights_module
from ditr.features.sources import FeatureSource, load_source
from ditr.spec.entries import ConvEntry, PretrainedWeights, VitEntry
from ditr.spec.models import FeatureSpec, FileWeights, HubWeights, OwnWeights
from ditr.spec.registry import Registry
from tests.reference.tiny_sources import RN50, VITS, random_model

CPU = torch.device("cpu")
PRETRAINED = PretrainedWeights(kind="pretrained", file="tiny.pth", url="https://example.org/tiny.pth")
REG4 = VITS["dinov2_reg4"].model_copy(update={"weights": PRETRAINED})
HUB = HubWeights(kind="hub")


def spec_of(entry: VitEntry, weights: OwnWeights | None = None) -> FeatureSpec:
    return FeatureSpec(source="tiny", input_size=(3 * entry.patch, 4 * entry.patch), weights=weights)


def images(entry: VitEntry) -> np.ndarray:
    shape = (2, 3 * entry.patch, 4 * entry.patch, 3)
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def maps_of(model: Any, entry: VitEntry) -> Tensor:
    return FeatureSource(model, spec=spec_of(entry), entry=entry, device=CPU).encode(images(entry))


@pytest.fixture
def weights_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DITR_WEIGHTS", str(tmp_path))
    return tmp_path


def as_dinov2_published(model: Any) -> dict[str, Tensor]:
    """A mask token; with registers, these under another name and a position of the class token."""
    state = {name: value.clone() for name, value in model.state_dict().items()}
    state["mask_token"] = torch.zeros(1, 32)
    if "reg_token" in state:
        class_position = torch.randn(1, 1, 32)
        state["register_tokens"] = state.pop("reg_token")
        state["cls_token"] = state["cls_token"] - class_position
        state["pos_embed"] = torch.cat([class_position, state["pos_embed"]], dim=1)
    return state


def as_dinov3_published(model: Any) -> dict[str, Tensor]:
    """Other names of registers and layer scales, the periods of positions, and biases that are zero."""
    state = {}
    for name, value in model.state_dict().items():
        renamed = name.replace("reg_token", "storage_tokens").replace("gamma_1", "ls1.gamma")
        state[renamed.replace("gamma_2", "ls2.gamma")] = value.clone()
    for block in range(3):
        state[f"blocks.{block}.attn.qkv.bias"] = torch.zeros(96)
        state[f"blocks.{block}.attn.qkv.bias_mask"] = torch.ones(96)
    return state | {"mask_token": torch.zeros(1, 32), "rope_embed.periods": torch.ones(4, dtype=torch.bfloat16)}


PUBLISHED = {
    "dinov2": as_dinov2_published,
    "dinov2_reg4": as_dinov2_published,
    "dinov3": as_dinov3_published,
}


@pytest.mark.parametrize("family", PUBLISHED)
def test_a_file_in_the_publishers_layout_gives_the_models_own_tokens(family: str, weights_folder: Path) -> None:
    entry = VITS[family].model_copy(update={"weights": PRETRAINED})
    model = random_model(entry)
    torch.save(PUBLISHED[family](model), weights_folder / "tiny.pth")
    source = load_source(spec_of(entry), entry=entry, device=CPU)
    torch.testing.assert_close(source.encode(images(entry)), maps_of(model, entry), atol=2e-3, rtol=2e-3)
    digest = hashlib.sha256((weights_folder / "tiny.pth").read_bytes()).hexdigest()
    assert source.weights_stamp == f"sha256 {digest}"


@pytest.mark.parametrize("family", VITS)
@pytest.mark.parametrize("name", ["own.safetensors", "own.pth"])
def test_a_file_with_timms_names_is_taken_before_that_of_the_entry(
    family: str, name: str, weights_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    entry = VITS[family].model_copy(update={"weights": PRETRAINED})
    torch.save(random_model(entry, seed=1).state_dict(), weights_folder / "tiny.pth")
    model, path = random_model(entry, seed=2), weights_folder / name
    save_file(model.state_dict(), path) if path.suffix == ".safetensors" else torch.save(model.state_dict(), path)
    own = FileWeights(kind="file", path=str(path), sha256=hashlib.sha256(path.read_bytes()).hexdigest())
    source = load_source(spec_of(entry, own), entry=entry, device=CPU)
    assert torch.equal(source.encode(images(entry)), maps_of(model, entry))
    assert capsys.readouterr() == ("", "")


def test_weights_lie_beside_the_entry_first(weights_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DITR_REGISTRY", str(weights_folder / "registry"))
    (weights_folder / "registry" / "features").mkdir(parents=True)
    beside = random_model(REG4, seed=2)
    torch.save(random_model(REG4, seed=1).state_dict(), weights_folder / "tiny.pth")
    torch.save(beside.state_dict(), weights_folder / "registry" / "features" / "tiny.pth")
    source = load_source(spec_of(REG4), entry=REG4, device=CPU)
    assert torch.equal(source.encode(images(REG4)), maps_of(beside, REG4))


def test_a_file_of_half_precision_gives_full_weights(weights_folder: Path) -> None:
    model = random_model(REG4).half().float()
    torch.save({name: value.half() for name, value in model.state_dict().items()}, weights_folder / "tiny.pth")
    source = load_source(spec_of(REG4), entry=REG4, device=CPU)
    assert {value.dtype for value in source.model.parameters()} == {torch.float32}
    assert torch.equal(source.encode(images(REG4)), maps_of(model, REG4))


def lacking(state: dict[str, Tensor]) -> object:
    del state["blocks.1.mlp.fc1.weight"]
    return state


def with_more(state: dict[str, Tensor]) -> object:
    return state | {"blocks.3.mlp.fc1.weight": torch.zeros(128, 32)}


def of_another_width(state: dict[str, Tensor]) -> object:
    return state | {"norm.weight": torch.zeros(48)}


class Exploit:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (Path.touch, (Path("exploited"),))  # type: ignore[return-value]


def write_damaged(path: Path, state: dict[str, Tensor]) -> None:
    torch.save(state, path)
    content = bytearray(path.read_bytes())
    content[content.index(state["norm.weight"].numpy().tobytes()) + 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("write", "reason"),
    [
        (write_damaged, "does not match its checksum"),
        (lambda path, state: torch.save(lacking(state), path), "it lacks 1 entries, such as blocks.1.mlp.fc1.weight"),
        (lambda path, state: torch.save(with_more(state), path), "beside the model's 1 entries, such as blocks.3"),
        (lambda path, state: torch.save(of_another_width(state), path), "size mismatch|Error"),
        (lambda path, state: torch.save([1, 2], path), "Error"),
        (lambda path, state: path.write_bytes(b"not a weight file"), "Error"),
        (lambda path, state: path.write_bytes(b""), "Error"),
        (lambda path, state: path.write_bytes(pickle.dumps(Exploit(), protocol=2)), "non-allowlisted"),
        (lambda path, state: torch.save({"model": Exploit()}, path), "non-allowlisted"),
        (lambda path, state: torch.save(state | {"x": Exploit()}, path), "non-allowlisted"),
    ],
    ids=["damaged", "lacking", "more", "width", "list", "garbage", "empty", "pickle", "torch pickle", "one bad entry"],
)
def test_a_file_that_is_no_weights_of_the_model_is_an_error_and_runs_nothing(
    write: Any, reason: str, weights_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(weights_folder)
    write(weights_folder / "tiny.pth", random_model(REG4).state_dict())
    with pytest.raises(DitrError, match=f"no weights of vit_small_patch14_reg4_dinov2 .*({reason})") as raised:
        load_source(spec_of(REG4), entry=REG4, device=CPU)
    assert raised.value.where == str(weights_folder / "tiny.pth")
    assert PRETRAINED.url in raised.value.fix
    assert not (weights_folder / "exploited").exists()


def test_biases_that_act_are_not_dropped_from_the_publishers_file(weights_folder: Path) -> None:
    entry = VITS["dinov3"].model_copy(update={"weights": PRETRAINED})
    state = as_dinov3_published(random_model(entry))
    state["blocks.1.attn.qkv.bias"][80] = 0.1  # of a value; those of keys are masked by the publisher
    torch.save(state, weights_folder / "tiny.pth")
    with pytest.raises(DitrError, match=r"blocks.1.attn.qkv.bias is not zero; .*_qkvb"):
        load_source(spec_of(entry), entry=entry, device=CPU)


@pytest.mark.parametrize("kind", ["entry", "spec"])
def test_a_file_that_is_not_the_pinned_one_is_refused(kind: str, weights_folder: Path) -> None:
    path = weights_folder / "tiny.pth"
    torch.save(random_model(REG4).state_dict(), path)
    pinned = "0" * 64
    entry = REG4.model_copy(update={"weights": PRETRAINED.model_copy(update={"sha256": pinned})})
    own = FileWeights(kind="file", path=str(path), sha256=pinned) if kind == "spec" else None
    with pytest.raises(DitrError, match=f"sha256 [0-9a-f]{{64}}, pinned {pinned}") as raised:
        load_source(spec_of(entry, own), entry=entry, device=CPU)
    assert raised.value.where == str(path)


def test_a_missing_file_of_the_spec_is_an_error_that_names_it(weights_folder: Path) -> None:
    own = FileWeights(kind="file", path="gone/tiny.pth")
    with pytest.raises(DitrError, match="no such weight file") as raised:
        load_source(spec_of(REG4, own), entry=REG4, device=CPU)
    assert raised.value.where.endswith("gone/tiny.pth")
    assert "features.weights.path" in raised.value.fix


@pytest.fixture
def published_by_timm(weights_folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[VitEntry, Path]:
    """An entry of a whole model of timm's, and the file that its hub gives."""
    entry = VITS["dinov2_reg4"].model_copy(
        update={"timm": "vit_small_patch14_reg4_dinov2.lvd142m", "timm_args": {}, "channels": 384}
    )
    path = weights_folder / "model.safetensors"
    save_file(random_model(entry).state_dict(), path)
    monkeypatch.setattr(weights_module, "_from_hub", lambda repository, *, names: path)
    return entry, path


def test_the_hub_is_asked_in_spite_of_a_file_here(
    published_by_timm: tuple[VitEntry, Path], weights_folder: Path
) -> None:
    entry, path = published_by_timm
    entry = entry.model_copy(update={"weights": PRETRAINED})
    (weights_folder / "tiny.pth").write_bytes(b"another")
    source = load_source(spec_of(entry, HUB), entry=entry, device=CPU)
    assert source.weights_stamp == f"sha256 {hashlib.sha256(path.read_bytes()).hexdigest()}"


def test_a_download_that_is_not_the_pinned_file_is_refused(published_by_timm: tuple[VitEntry, Path]) -> None:
    entry, path = published_by_timm
    for pinned in (hashlib.sha256(path.read_bytes()).hexdigest(), "0" * 64):
        weights = PRETRAINED.model_copy(update={"sha256": pinned})
        if pinned != "0" * 64:
            assert weights_module.weights_file(weights, entry=entry) == path
            continue
        with pytest.raises(DitrError, match="and the entry pins 000") as raised:
            weights_module.weights_file(weights, entry=entry)
        assert PRETRAINED.url in raised.value.fix


@pytest.fixture
def asked(weights_folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Hosts that were looked up, on a machine without a network."""
    import huggingface_hub.constants

    hosts: list[str] = []

    def no_network(host: str, *_args: object, **_options: object) -> None:
        hosts.append(host)
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", no_network)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(weights_folder / "hub"))
    return hosts


@pytest.mark.parametrize("name", ["dinov2_vitl14_reg4", "dinov3_vitb16", "siglip2_so400m14", "clip_rn50_s8"])
def test_without_network_the_error_comes_at_the_first_request_and_says_what_to_do(
    name: str, asked: list[str], weights_folder: Path
) -> None:
    entry = Registry().features(name)
    assert isinstance(entry, VitEntry | ConvEntry)
    with pytest.raises(DitrError, match="could not be downloaded") as raised:
        load_source(FeatureSpec(source=name, input_size=(480, 640)), entry=entry, device=CPU)
    assert 1 <= len(asked) <= 2  # one request, which may look the host up twice
    assert raised.value.code == Code.FEATURES
    weights = entry.weights
    assert isinstance(weights, PretrainedWeights)
    for needed in (weights.file, weights.url, str(weights_folder), "DITR_WEIGHTS", "features.weights", "specs/"):
        assert needed in str(raised.value)
    if name.startswith("dinov3"):
        assert "accept the terms (dinov3-license) at https://ai.meta.com/" in raised.value.fix


def test_a_model_of_changed_size_is_not_looked_for_on_the_network(asked: list[str]) -> None:
    with pytest.raises(DitrError, match="timm has none to download") as raised:
        load_source(spec_of(REG4), entry=REG4, device=CPU)
    assert not asked
    assert "tiny.pth" in raised.value.fix


def test_the_convolutional_sources_weights_are_all_set_and_heads_do_not_matter(weights_folder: Path) -> None:
    entry = RN50.model_copy(update={"weights": PRETRAINED})
    spec = FeatureSpec(source="rn50", input_size=(64, 64))
    drawn = load_source(spec, entry=RN50, device=CPU)
    state = {name: value for name, value in drawn.model.state_dict().items() if not name.startswith("head.")}
    state["head.proj.weight"] = torch.zeros(1024, 2048)
    torch.save(state, weights_folder / "tiny.pth")
    source = load_source(spec, entry=entry, device=CPU)
    image = np.random.default_rng(0).integers(0, 256, (1, 64, 64, 3), dtype=np.uint8)
    assert torch.equal(source.encode(image), drawn.encode(image))
    del state["stages.1.0.conv2_kxk.bn.running_mean"]
    torch.save(state, weights_folder / "tiny.pth")
    with pytest.raises(DitrError, match=r"it lacks 1 entries, such as stages.1.0.conv2_kxk.bn.running_mean"):
        weights_module.set_weights(drawn.model, weights_folder / "tiny.pth", entry=entry)
