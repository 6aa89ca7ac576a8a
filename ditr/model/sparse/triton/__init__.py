"""Our own engine: sparse convolutions as gathered products in Triton, which comes with torch and needs no compiler."""

from ditr.model.sparse.triton.voxels import TritonVoxels, voxelise

__all__ = ["TritonVoxels", "voxelise"]
