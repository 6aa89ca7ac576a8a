"""How fast 2D features are extracted: the device alone, from images to stored maps, and the loop that people write.

    python -c "from benchmarks.extraction import main; main()" [--images 4000] [--naive 60] [--out extraction.json]

Everything is measured in one run, beside the machine's own ceilings: its bf16 matrix product, its decoding and its
writing. Images are generated JPEGs of 640x480, weights are seeded with layer scales and biases that matter. ``--tiny``
takes a source of 2 layers, to rehearse. Started by ``-m``, each decoding worker would import this whole script too,
as none of the command's does.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from benchmarks.devices import add_device
from ditr.data.dataset import Dataset
from ditr.data.frame_files import read_image
from ditr.data.info_pickle import FrameInfo, InfoFile
from ditr.data.scannet_sv import FrameSet
from ditr.features import fused_vit as fast
from ditr.features.decoding import ImageRequest, decoded
from ditr.features.extract import extract
from ditr.features.fused_vit import FusedVit, shifted_norm
from ditr.features.pipeline import CUDA_BATCH
from ditr.features.sources import FeatureSource, load_source
from ditr.features.store import FeatureStore
from ditr.geometry.camera import Intrinsics
from ditr.spec.entries import SeededWeights, VitEntry
from ditr.spec.feature_maps import map_shape
from ditr.spec.models import FeatureSpec
from ditr.spec.registry import Registry

SEEDED = SeededWeights(kind="seeded", seed=0)
HEIGHT, WIDTH = 480, 640


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", default="dinov2_vitl14_reg4")
    parser.add_argument("--size", type=int, nargs=2, default=(420, 560))
    parser.add_argument("--images", type=int, default=4000)
    parser.add_argument("--naive", type=int, default=60, help="images of the loop")
    add_device(parser)
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--out", type=Path, default=Path("extraction.json"))
    options = parser.parse_args()
    entry = Registry().features(options.source)
    assert isinstance(entry, VitEntry)
    entry = entry.model_copy(update={"weights": SEEDED})
    if options.tiny:
        small = {"timm_args": {"embed_dim": 64, "depth": 2, "num_heads": 2}, "channels": 64}
        entry = entry.model_copy(update=small)
    spec = FeatureSpec(source=options.source, input_size=tuple(options.size), dtype="bfloat16")
    with tempfile.TemporaryDirectory(prefix="ditr-extraction-") as work:
        os.environ["DITR_CACHE"] = f"{work}/cache"
        bench = Bench(spec, entry, options.device, options.out)
        bench.run(Path(work), images=options.images, naive=options.naive)
    print(bench.table())


class Bench:
    """One run; what is known is written to the file after every part."""

    def __init__(self, spec: FeatureSpec, entry: VitEntry, device: torch.device, out: Path) -> None:
        self.spec, self.entry, self.device, self.out = spec, entry, device, out
        self.cuda = device.type == "cuda"
        self.found: dict[str, Any] = {"source": entry.model_dump(mode="json"), "spec": spec.model_dump(mode="json")}

    def run(self, work: Path, *, images: int, naive: int) -> None:
        self.keep("machine", self.machine())
        dataset = make_images(work / "data", images)
        self.keep("end_to_end", [])
        forms = {"norms plain": 10**9, "norms plain, again": 10**9, "norms compiled": 0, "norms compiled, again": 0}
        for name, compiled_from in forms.items():
            self.end_to_end(name, dataset, compiled_from)
        self.keep("same_bits", self.same_bits(dataset))
        self.keep("decoding_images_s", self.decoding(dataset))
        self.keep("writing_maps_s", self.writing(work))
        in_float32 = self.spec.model_copy(update={"dtype": "float32"})
        exact = load_source(in_float32, entry=self.entry, device=torch.device("cpu"))
        enliven(exact)
        self.keep("naive", self.naive(dataset, exact, work, count=naive))
        self.keep("ceilings", self.ceilings())
        self.keep("tflop_an_image", tflop(exact, self.entry))
        batch = torch.from_numpy(np.stack([dataset.train.image(index) for index in range(32)]))
        truth = self.on_device(exact).encode(batch).float()
        self.keep("device_only", [])
        self.device_only(exact, batch, truth)
        self.compiled(exact, batch, truth)

    def keep(self, name: str, value: Any, *, added: Any = None) -> None:
        self.found[name] = value
        self.out.write_text(json.dumps(self.found, indent=2) + "\n")
        print(f"{time.strftime('%H:%M:%S')} {name}: {value if added is None else added}", flush=True)

    def add(self, name: str, value: dict[str, Any]) -> None:
        self.keep(name, [*self.found[name], value], added=value)

    def machine(self) -> dict[str, Any]:
        device = torch.cuda.get_device_name(self.device) if self.cuda else "cpu"
        return {"device": device, "torch": torch.__version__, "cores": len(os.sched_getaffinity(0))}

    def ceilings(self) -> dict[str, float]:
        """TFLOP/s of matrix products and of attention at the source's own sizes; GB/s of a copy."""
        side, rows = (8192, CUDA_BATCH * 1205) if self.cuda else (256, 512)
        found = {"matmul_8192": self.product(side, side, side)}
        # For two seconds, in which the card may lower its clock to keep to its power.
        found["matmul_8192_sustained"] = self.product(side, side, side, repeat=1500 if self.cuda else 5)
        for inner, outer in ((1024, 3072), (1024, 1024), (1024, 4096), (4096, 1024)):
            found[f"matmul_{rows}x{inner}x{outer}"] = self.product(rows, inner, outer)
        qkv = torch.randn(CUDA_BATCH, 1205 if self.cuda else 65, 3, 16, 64).to(self.device, torch.bfloat16)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        flop = 4 * q.shape[0] * q.shape[1] * q.shape[2] ** 2 * q.shape[3]
        for backend in (SDPBackend.CUDNN_ATTENTION, SDPBackend.FLASH_ATTENTION):
            with sdpa_kernel([backend, SDPBackend.MATH], set_priority=True):
                seconds = self.seconds(lambda: scaled_dot_product_attention(q, k, v))
            found[f"attention_{backend.name.split('_')[0].lower()}"] = flop / seconds / 1e12
        big = torch.empty(2**30 if self.cuda else 2**20, dtype=torch.bfloat16, device=self.device)
        found["copy_gb_s"] = 4 * big.numel() / self.seconds(big.clone) / 1e9
        return found

    def product(self, m: int, k: int, n: int, *, repeat: int = 20) -> float:
        a = torch.randn(m, k, device=self.device, dtype=torch.bfloat16)
        b = torch.randn(n, k, device=self.device, dtype=torch.bfloat16)
        return 2 * m * k * n / self.seconds(lambda: a @ b.t(), repeat=repeat) / 1e12

    def seconds(self, work: Callable[[], Any], *, warm: int = 3, repeat: int = 10) -> float:
        """Median."""
        with torch.inference_mode():
            for _ in range(warm):
                work()
            if not self.cuda:
                return median([_timed(work) for _ in range(repeat)])
            marks = [torch.cuda.Event(enable_timing=True) for _ in range(repeat + 1)]
            marks[0].record()
            for mark in marks[1:]:
                work()
                mark.record()
            torch.cuda.synchronize()
        return median([a.elapsed_time(b) / 1e3 for a, b in pairwise(marks)])

    def on_device(self, exact: FeatureSource, dtype: str = "float32") -> FeatureSource:
        spec = self.spec.model_copy(update={"dtype": dtype})
        return FeatureSource(copy.deepcopy(exact.model), spec=spec, entry=self.entry, device=self.device)

    def device_only(self, exact: FeatureSource, batch: Tensor, truth: Tensor) -> None:
        """From decoded images on the device to maps on the device."""
        source = self.on_device(exact, "float32")
        self.variant("timm, float32", source, batch[:8], truth)
        source = self.on_device(exact, "bfloat16")
        self.variant("timm, bfloat16", source, batch, truth)
        plain = source.model
        source.model = FusedVit(plain)
        batch = torch.cat([batch, batch])
        self.variant("fused, norms plain", source, batch[:CUDA_BATCH], truth)
        for size in (16, 32, 64, CUDA_BATCH):
            torch._dynamo.reset()
            source.model = FusedVit(plain, norm=torch.compile(shifted_norm, dynamic=False))
            self.variant("fused, norms compiled", source, batch[:size], truth)
        batch = batch[:CUDA_BATCH]
        self.keep("kernels_ms", self.kernels(source, batch))
        kept, fast._ATTENTION = fast._ATTENTION, fast._ATTENTION[1:]
        self.variant("fused, norms compiled, flash attention", source, batch, truth)
        fast._ATTENTION = kept

    def compiled(self, exact: FeatureSource, batch: Tensor, truth: Tensor) -> None:
        for name in ("timm, blocks compiled", "timm, whole model compiled"):
            torch._dynamo.reset()
            source = self.on_device(exact, "bfloat16")
            if "blocks" in name:
                for block in source.model.blocks:
                    block.compile()
            else:
                source.model.forward_intermediates = torch.compile(source.model.forward_intermediates)
            self.variant(name, source, batch, truth)

    def variant(self, name: str, source: FeatureSource, batch: Tensor, truth: Tensor) -> None:
        images = batch.to(self.device)
        with torch.inference_mode():
            began = time.perf_counter()
            maps = source.encode(images)[: len(truth)].float()
            float(maps[0, 0, 0, 0])
            first = time.perf_counter() - began
        known = truth[: len(maps)]
        cosine = torch.cosine_similarity(maps[: len(known)], known, dim=1)
        seconds = self.seconds(lambda: source.encode(images))
        rate = len(images) / seconds
        self.add(
            "device_only",
            {
                "form": name,
                "batch": len(images),
                "images_s": rate,
                "tflop_s": rate * self.found["tflop_an_image"],
                "of_ceiling": rate * self.found["tflop_an_image"] / self.found["ceilings"]["matmul_8192"],
                "of_sustained": rate * self.found["tflop_an_image"] / self.found["ceilings"]["matmul_8192_sustained"],
                "first_batch_s": first,
                "relative_error": float((maps[: len(known)] - known).norm() / known.norm()),
                "lowest_cosine": float(cosine.min()),
                "mean_cosine": float(cosine.mean()),
            },
        )

    def kernels(self, source: FeatureSource, batch: Tensor) -> dict[str, float]:
        """What one batch's time goes to, on a GPU."""
        images = batch.to(self.device)
        with torch.profiler.profile() as profile, torch.inference_mode():
            source.encode(images)
        times = {each.key: each.device_time_total / 1e3 for each in profile.key_averages() if not each.cpu_time_total}
        return dict(sorted(times.items(), key=lambda item: -item[1])[:25])

    def decoding(self, dataset: Dataset) -> float:
        wanted = [ImageRequest(dataset.train, index) for index in range(len(dataset.train))]
        began, counted = None, 0
        for part in decoded(wanted, batch=CUDA_BATCH, pinned=self.cuda):
            if began is None:
                began = time.perf_counter()  # workers have started
            else:
                counted += len(part.frame_ids)
        assert began is not None
        return counted / (time.perf_counter() - began)

    def writing(self, work: Path) -> float:
        shape = map_shape(self.spec, self.entry)
        store, tokens = FeatureStore(work / "written", shape=shape), torch.randn(shape).half()
        count = 800 if self.cuda else 20
        began = time.perf_counter()
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda number: store.write(f"scene_{number}", tokens), range(count)))
        rate = count / (time.perf_counter() - began)
        shutil.rmtree(store.folder)
        return rate

    def naive(self, dataset: Dataset, exact: FeatureSource, work: Path, *, count: int) -> dict[str, float]:
        """One image at a time, float32, saved before the next is read."""
        source, folder = self.on_device(exact), work / "naive"
        folder.mkdir()
        paths = [dataset.root / info.image for info in dataset.train.infos.frames[: count + 5]]
        for number, path in enumerate(paths):
            if number == 5:
                began = time.perf_counter()
            np.save(folder / f"{number}.npy", source.encode(read_image(path)[None])[0].cpu().numpy())
        return {"images": count, "images_s": count / (time.perf_counter() - began)}

    def end_to_end(self, name: str, dataset: Dataset, compiled_from: int) -> None:
        """The code of ``ditr features extract``."""
        shutil.rmtree(Path(os.environ["DITR_CACHE"]), ignore_errors=True)
        kept, fast.COMPILED_FROM = fast.COMPILED_FROM, compiled_from
        steps: list[tuple[float, int]] = []
        began = time.perf_counter()
        made = self.extract(dataset, lambda _, done, __: steps.append((time.perf_counter() - began, done)))
        fast.COMPILED_FROM = kept
        total = time.perf_counter() - began
        first = next(step for step in steps if step[1] >= len(dataset.train) // 5)
        steady = (steps[-1][1] - first[1]) / (steps[-1][0] - first[0])
        self.add(
            "end_to_end",
            {
                "form": name,
                "images": made.made,
                "seconds": total,
                "source_ready_s": steps[0][0],
                "first_maps_s": next(seconds for seconds, done in steps if done),
                "images_s_in_all": made.made / total,
                "images_s_after_loading": made.made / (total - steps[0][0]),
                "images_s_steady": steady,
                "gb_written": made.bytes / 1e9,
            },
        )

    def extract(self, dataset: Dataset, progress: Callable[[str, int, int], None]) -> Any:
        return extract(
            (dataset.train,), spec=self.spec, entry=self.entry, dataset=dataset, device=self.device, progress=progress
        )

    def same_bits(self, dataset: Dataset) -> dict[str, int]:
        """Maps deleted and made again beside other images: how many have the same bytes."""
        (folder,) = Path(os.environ["DITR_CACHE"]).glob("features/*/*")
        chosen = [folder / f"{frame_id}.npy" for frame_id in dataset.train.ids[:: max(1, len(dataset.train) // 50)]]
        before = [path.read_bytes() for path in chosen]
        for path in chosen:
            path.unlink()
        kept, fast.COMPILED_FROM = fast.COMPILED_FROM, 0
        self.extract(dataset, lambda *_: None)
        fast.COMPILED_FROM = kept
        same = sum(path.read_bytes() == content for path, content in zip(chosen, before, strict=True))
        return {"made_again": len(chosen), "same": same}

    def table(self) -> str:
        found = self.found
        ceilings = {name: round(value) for name, value in found["ceilings"].items()}
        lines = [f"ceilings {ceilings}, {found['tflop_an_image']:.3f} TFLOP an image"]
        for each in found["device_only"]:
            shares = f"{each['of_ceiling']:6.1%} {each['of_sustained']:6.1%}"
            quality = f"error {each['relative_error']:.2e} {each['lowest_cosine']:.6f}"
            speed = f"{each['images_s']:7.1f} images/s {shares} first {each['first_batch_s']:5.1f} s"
            lines.append(f"{each['form']:<40} B {each['batch']:<3} {speed}, {quality}")
        lines.append(f"naive {found['naive']['images_s']:.1f} images/s, decoding {found['decoding_images_s']:.0f}")
        lines.append(f"writing {found['writing_maps_s']:.0f} maps/s, same bits {found['same_bits']}")
        alone = {each["form"]: each["images_s"] for each in found["device_only"] if each["batch"] == CUDA_BATCH}
        for each in found["end_to_end"]:
            rate = each["images_s_steady"]
            same = alone[f"fused, {each['form'].removesuffix(', again')}"]
            ratios = f"{rate / same:.1%} of the device alone, {rate / found['naive']['images_s']:.1f} x naive"
            lines.append(" ".join(f"{k}={v:.4g}" if isinstance(v, float) else f"{k}={v}" for k, v in each.items()))
            lines.append(f"   {ratios}, in all {each['images_s_in_all'] / found['naive']['images_s']:.1f} x")
        return "\n".join(lines)


def make_images(root: Path, count: int) -> Dataset:
    """Frames whose images are smooth noise with detail, about as large as a camera's."""
    (root / "2D").mkdir(parents=True)
    starts = range(0, count, 50)
    with ProcessPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        list(pool.map(_save_images, [root] * len(starts), starts, [min(count, start + 50) for start in starts]))
    camera = Intrinsics(fx=577.87, fy=577.87, cx=320, cy=240, width=WIDTH, height=HEIGHT)
    none, pose = "none.bin", np.eye(4)
    infos = tuple(
        FrameInfo(
            scene=f"scene{number:05d}",
            number="0",
            points_file=none,
            superpoints_file=none,
            instances_file=none,
            semantics_file=none,
            image=f"2D/{number}.jpg",
            pose_c2w=pose,
            axis_align=pose,
        )
        for number in range(count)
    )
    frames = FrameSet(root, infos=InfoFile(dataset="images", categories={}, frames=infos), intrinsics=camera)
    empty = FrameSet(root, infos=replace(frames.infos, frames=()), intrinsics=camera)
    return Dataset(name="images", root=root, digest="0" * 32, splits={"train": frames, "val": empty})


def _save_images(root: Path, start: int, stop: int) -> None:
    rng = np.random.default_rng(start)
    coarse = rng.integers(0, 256, (24, 32, 3), dtype=np.uint8)
    smooth = np.asarray(Image.fromarray(coarse).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC), np.float32)
    for number in range(start, stop):
        detail = rng.normal(0, 8, (HEIGHT, WIDTH, 1)).astype(np.float32)
        image = np.roll(smooth, 13 * (number - start), axis=1) + detail
        Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(root / f"2D/{number}.jpg", quality=90)


def enliven(source: FeatureSource) -> None:
    """timm starts with layer scales of 1e-5 and biases of zero, with which a layer does nothing."""
    generator = torch.Generator().manual_seed(1)
    for name, value in source.model.named_parameters():
        if name.endswith("gamma"):
            value.data = 0.1 + 0.4 * torch.rand(value.shape, generator=generator)
        elif name.endswith("bias"):
            value.data = 0.05 * torch.randn(value.shape, generator=generator)


def tflop(source: FeatureSource, entry: VitEntry) -> float:
    """Of one image: 2 per multiply-add of the linear layers, of attention and of the patch embedding."""
    _, rows, columns = map_shape(source.spec, entry)
    tokens, width, depth = rows * columns + entry.prefix_tokens, entry.channels, len(source.model.blocks)
    layer = 24 * tokens * width**2 + 4 * tokens**2 * width
    return (depth * layer + 2 * rows * columns * 3 * entry.patch**2 * width) / 1e12


def _timed(work: Callable[[], Any]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
