"""Files of numbers: weights, states, maps, images, tables."""

from __future__ import annotations

import io
from dataclasses import fields
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn

from ditr.data.frame_files import read_image
from ditr.data.frame_view import FrameView, MapColours, Prediction, load_views, save_view
from ditr.data.info_pickle import FrameInfo, InfoFile, read_infos, write_infos
from ditr.data.scannet_sv import read_stored_pose
from ditr.evaluation.instance_facts import INSTANCES_SCHEMA, load_instances, save_instances
from ditr.evaluation.instances import Instances
from ditr.evaluation.match_table import MatchTable
from ditr.features.precomputed_maps import PrecomputedMaps
from ditr.features.store import FeatureStore, read_manifest
from ditr.spec.entries import PrecomputedEntry
from ditr.training.state import Ledger, TrainingState
from ditr.weights.file import read_weight_file
from ditr.weights.saving import save_weights
from tests.damage.kind import of_file

FRAME = "scene0000_01_200"
PLAN = {"seed": 0, "epochs": 4}
ENTRY = PrecomputedEntry(
    kind="precomputed", path="maps", channels=2, rows=3, columns=4, covers=(42, 56), licence="none"
)


def trained() -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    model(torch.randn(5, 3)).square().sum().backward()
    optimizer.step()
    return model, optimizer


def plain(value: object) -> object:
    """Tensors and arrays as what ``==`` compares bit by bit."""
    if isinstance(value, Tensor):
        return str(value.dtype), tuple(value.shape), value.detach().contiguous().numpy().tobytes()
    if isinstance(value, np.ndarray):
        return str(value.dtype), value.shape, value.tobytes()
    if isinstance(value, dict):
        return {name: plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    return value


def write_state(folder: Path) -> Path:
    state = TrainingState(folder / "state.pt")
    model, optimizer = trained()
    ledger = Ledger(epoch=2, step=1, sums={"loss": [1.5, 2.0]})
    state.save(ledger, model=model, optimizer=optimizer, plan=PLAN)
    return state.path


def read_state(path: Path) -> object:
    model, optimizer = trained()
    ledger = TrainingState(path).restore(model=model, optimizer=optimizer, plan=PLAN)
    return plain([vars(ledger), dict(model.state_dict()), optimizer.state_dict()])


def write_pth(folder: Path, *, zipped: bool = True) -> Path:
    model, _ = trained()
    content = {"state_dict": dict(model.state_dict()), "meta": {"epoch": 3}}
    torch.save(content, folder / "w.pth", _use_new_zipfile_serialization=zipped)
    return folder / "w.pth"


def read_weights(path: Path) -> object:
    return plain(dict(read_weight_file(path).tensors))


def write_own_weights(folder: Path) -> Path:
    save_weights(trained()[0], folder / "model.safetensors")
    return folder / "model.safetensors"


def write_foreign_weights(folder: Path) -> Path:
    save_file(trained()[0].state_dict(), folder / "w.safetensors")
    return folder / "w.safetensors"


def write_precomputed(folder: Path) -> Path:
    path = folder / "scene0000_01" / "200.pt"
    path.parent.mkdir(exist_ok=True)
    torch.save({"pix": torch.arange(24.0).reshape(1, 2, 3, 4)}, path)
    return path


def read_precomputed(path: Path) -> object:
    return plain(PrecomputedMaps(path.parent.parent, entry=ENTRY).read(FRAME))


def write_map(folder: Path) -> Path:
    store = FeatureStore(folder, shape=(2, 3, 4))
    store.write(FRAME, torch.arange(24.0).reshape(2, 3, 4))
    return store.path(FRAME)


def read_map(path: Path) -> object:
    return plain(FeatureStore(path.parent, shape=(2, 3, 4)).read(FRAME))


def write_manifest(folder: Path) -> Path:
    content = {"source": "dino", "weights_digest": "0" * 32, "weights_stamp": None, "computed_on": ["cpu"]}
    FeatureStore(folder, shape=(2, 3, 4)).write_manifest({**content, "shape": [2, 3, 4]})
    return folder / "manifest.json"


def write_info(folder: Path) -> Path:
    frames = tuple(
        FrameInfo(
            scene="scene0000_00",
            number=str(number),
            points_file=f"points/scene0000_00_{number}.bin",
            semantics_file=f"semantic_mask/scene0000_00_{number}.bin",
            instances_file=f"instance_mask/scene0000_00_{number}.bin",
            superpoints_file=f"super_points/scene0000_00_{number}.bin",
            image=f"2D/scene0000_00/color/{number}.jpg",
            pose_c2w=np.eye(4),
            axis_align=np.eye(4),
        )
        for number in (0, 20)
    )
    write_infos(folder / "infos.pkl", InfoFile(dataset="set", categories={"chair": 0}, frames=frames))
    return folder / "infos.pkl"


def write_pose(folder: Path) -> Path:
    np.save(folder / "0.npy", np.arange(16.0).reshape(4, 4))
    return folder / "0.npy"


def write_image(folder: Path, suffix: str) -> Path:
    noise = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)
    Image.fromarray(noise).save(folder / f"0.{suffix}")
    return folder / f"0.{suffix}"


def write_kept(folder: Path) -> Path:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (4, 5, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    view = FrameView(
        frame_id="kept",
        image=image,
        uv=rng.integers(0, 99, (12, 2)).astype(np.float32),
        uv_valid=np.ones(12, dtype=bool),
        instance_of_point=np.arange(12),
        prediction=Prediction(of_point=np.arange(12), scores=np.array([0.5], dtype=np.float32), partner=np.array([0])),
        features=MapColours(of_tokens=np.zeros((3, 4, 3), dtype=np.uint8), covers_hw=(8, 10)),
    )
    save_view(view, folder, image_file=file.getvalue())
    return folder / "kept.npz"


def read_kept(path: Path) -> object:
    (view,) = load_views(path.parent).values()
    assert view.features is not None
    arrays = [view.image, view.uv, view.uv_valid, view.instance_of_point, view.features.of_tokens]
    of_prediction = [getattr(view.predicted, field.name) for field in fields(view.predicted)]
    return [plain(array) for array in (*arrays, *of_prediction, np.array(view.features.covers_hw))]


def write_matches(folder: Path) -> Path:
    rng = np.random.default_rng(0)
    table = MatchTable(min_points=100)
    for number in range(3):
        instances = Instances(masks=rng.random((4, 50)) < 0.3, scores=np.linspace(1, 0, 4, dtype=np.float32))
        table.add(f"scene_{number}", instances, rng.integers(-1, 3, 50))
    table.save(folder / "matches.parquet")
    return folder / "matches.parquet"


def read_matches(path: Path) -> object:
    table = MatchTable.load(path)
    return [table.min_points, *(plain(list(vars(frame).values())) for frame in table.frames)]


def write_facts(folder: Path) -> Path:
    row = {"frame_id": "scene0000_00_0", "instance": 0, "n_points": 500, "size_m": 1.25, "distance_m": 2.5}
    row |= {"valid_ratio": 1.0, "class_name": "chair", "frequency": "head", "texture_only": None, "best_iou": 0.75}
    save_instances(folder / "instances.parquet", [row | {"instance": number} for number in range(5)])
    return folder / "instances.parquet"


def read_facts(path: Path) -> object:
    table = load_instances(path)
    assert isinstance(table, pa.Table)
    assert table.schema.equals(INSTANCES_SCHEMA)
    return table.to_pylist()


KINDS = {
    "training state": of_file(write_state, read_state),
    "torch weights": of_file(write_pth, read_weights),
    "torch weights before 1.6": of_file(lambda folder: write_pth(folder, zipped=False), read_weights, guarded=False),
    "weights of a run": of_file(write_own_weights, read_weights),
    "foreign safetensors": of_file(write_foreign_weights, read_weights, guarded=False),
    "precomputed map": of_file(write_precomputed, read_precomputed),
    "stored map": of_file(write_map, read_map),
    "map manifest": of_file(write_manifest, lambda path: read_manifest(path.parent), guarded=False),
    "info pickle": of_file(write_info, lambda path: repr(read_infos(path)), guarded=False),
    "stored pose": of_file(write_pose, lambda path: plain(read_stored_pose(path)), guarded=False),
    "jpeg": of_file(lambda folder: write_image(folder, "jpg"), lambda p: plain(read_image(p)), guarded=False),
    "png": of_file(lambda folder: write_image(folder, "png"), lambda p: plain(read_image(p)), guarded=False),
    "kept frame": of_file(write_kept, read_kept),
    "match table": of_file(write_matches, read_matches),
    "instance facts": of_file(write_facts, read_facts),
}
