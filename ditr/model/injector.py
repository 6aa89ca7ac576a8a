"""What the parts of a fusion do inside the backbone: what they add there, and what they make of what is there."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from ditr.errors import Code, DitrError
from ditr.model.fusion import Additions, BatchFeatures, FusionModule, blame, require_like
from ditr.model.sparse import SparseTensor, VoxelSet, require_same_voxels
from ditr.model.statistics import OfSamples, mean_of, total_of
from ditr.spec.fusion_part import Branch, Place

RowSquares = dict[Place, Tensor]
"""By place: (V,) squared length of each row of what was there before."""


class Injector:
    """Of one batch.

    Parameters
    ----------
    modules: the fusion's, by name, in their order.
    widths: channels of the backbone by place.
    samples: statistics are of each of so many; None of the batch as one.
    """

    def __init__(
        self,
        modules: Mapping[str, FusionModule],
        *,
        features: BatchFeatures,
        widths: Mapping[Place, int],
        samples: int | None = None,
    ) -> None:
        self.features = features
        self.readers = {name: module for name, module in modules.items() if module.acts("fuse_voxels")}
        self._modules, self._widths, self._samples = modules, widths, samples

    def additions(self) -> dict[Place, Tensor]:
        """What all parts add, known before the backbone runs.

        Raises
        ------
        DitrError: a part adds something at a place that is none, or of another shape than there is.
        """
        sums: dict[Place, Tensor] = {}
        device = self.features.points.valid.device
        for name, module in self._modules.items():
            with blame(name, module):
                additions = dict(module.add_to_voxels(self.features))
            for place, added in additions.items():
                if place not in self._widths:
                    raise _no_place(place, part=name, known=self._widths)
                shape = (len(self.features.voxels.coverage(place[1]).voxels), self._widths[place])
                require_like(added, shape, device=device, part=name, where=f"at {name_of(place)}")
                sums[place] = sums[place] + added if place in sums else added
        return sums

    def statistics(self, additions: Additions, *, met: RowSquares) -> dict[str, Tensor]:
        """Of each place where something is added: the share of voxels without a 2D feature, and how strong what was
        added is beside what it ``met``."""
        found, ranks = {}, self.features.ranks
        for place, added in additions.items():
            name, coverage = statistic_of(place, among=additions), self.features.voxels.coverage(place[1])
            each = self._each(coverage.voxels)
            found[f"{name}_empty_ratio"] = 1 - mean_of(coverage.mask.float(), each, ranks=ranks)
            of_added, of_met = (total_of(rows, each, ranks=ranks) for rows in (_row_squares(added), met[place]))
            found[f"{name}_relative_norm"] = (of_added / of_met.clamp(min=1e-24)).sqrt()
        return found

    def _each(self, voxels: VoxelSet) -> OfSamples | None:
        return None if self._samples is None else OfSamples(voxels.corners[:, 0].long(), self._samples)


class Adder:
    """What the backbone calls: it adds what was made for its places, and lets parts act that read what is there.

    Nothing in it waits for the device, and without such parts it knows nothing of a batch but these tensors and voxels.

    Parameters
    ----------
    additions: by place.
    voxels: of stride 1; additions of coarser strides are on the coarser ones of these.
    met: where the row squares of what each place adds to are written.
    injector: where the additions are from.
    """

    def __init__(
        self, additions: Additions, *, voxels: VoxelSet, met: RowSquares, injector: Injector | None = None
    ) -> None:
        self.injector = injector
        self._additions, self._voxels, self._met = additions, voxels, met

    def __call__(self, branch: Branch, stride: int, tensor: SparseTensor) -> SparseTensor:
        """Where no part acts, nothing changes."""
        place = (branch, stride)
        if (added := self._additions.get(place)) is not None:
            what = f"injection at {branch} of stride {stride}"
            require_same_voxels(tensor.voxels, self._of_stride(stride), what=what)
            self._met[place] = _row_squares(tensor.features)
            tensor = tensor.with_features(tensor.features + added.to(tensor.features.dtype))
        if self.injector is not None:
            for name, module in self.injector.readers.items():
                x = tensor.features
                with blame(name, module):
                    fused = module.fuse_voxels(x, place, self.injector.features)
                require_like(fused, x.shape, device=x.device, part=name, where=f"at {name_of(place)}")
                tensor = tensor.with_features(fused.to(x.dtype))
        return tensor

    def _of_stride(self, stride: int) -> VoxelSet:
        voxels = self._voxels
        while voxels.stride < stride:
            voxels = voxels.coarser
        return voxels


def name_of(place: Place) -> str:
    """``up_s8``, ``skip_s8``; of the stem and the bottleneck there is one each."""
    branch, stride = place
    return f"{branch}_s{stride}" if branch in ("up", "skip") else branch


def statistic_of(place: Place, *, among: Mapping[Place, object]) -> str:
    """How the numbers of a place begin: ``injection_s8``, with the branch where both of this stride are added to."""
    branch, stride = place
    if branch == "stem":
        return "injection_stem"
    both = {("up", stride), ("skip", stride)} <= among.keys()
    return f"injection_{name_of(place)}" if both else f"injection_s{stride}"


def _row_squares(values: Tensor) -> Tensor:
    """(V,) float32 squared length of each row."""
    return values.detach().float().square().sum(dim=1)


def _no_place(place: object, *, part: str, known: Mapping[Place, int]) -> DitrError:
    places = ", ".join(str(one) for one in known)
    what = f"the fusion part {part} adds something at {place}, which is no place of the backbone"
    return DitrError(what, code=Code.RUN, where=f"fusion.{part}", fix=f"take one of {places}")
