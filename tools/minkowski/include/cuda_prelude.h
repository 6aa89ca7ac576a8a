// nvcc reads this file (-include) ahead of every MinkowskiEngine 0.5.4 source, so that the sources of 2021 compile
// unchanged against CUDA 12 and 13 (CCCL 2 and 3) and torch 2.x. Each block names what broke and what repairs it.
#pragma once
#ifdef __cplusplus

// The engine bundles an old NVTX whose inline namespace clashes with the one CCCL includes for its own profiling.
#ifndef CCCL_DISABLE_NVTX
#define CCCL_DISABLE_NVTX
#endif

// Several sources use std::function, std::unique_ptr and at::Tensor and count on other headers to bring them.
#include <ATen/ATen.h>
#include <functional>
#include <memory>

#ifdef __CUDACC__
#include <cuda_runtime.h>

// Thrust's headers used to include one another; the sources still count on that.
#include <thrust/binary_search.h>
#include <thrust/copy.h>
#include <thrust/count.h>
#include <thrust/device_ptr.h>
#include <thrust/device_vector.h>
#include <thrust/equal.h>
#include <thrust/execution_policy.h>
#include <thrust/fill.h>
#include <thrust/functional.h>
#include <thrust/host_vector.h>
#include <thrust/iterator/zip_iterator.h>
#include <thrust/pair.h>
#include <thrust/reduce.h>
#include <thrust/remove.h>
#include <thrust/scan.h>
#include <thrust/sequence.h>
#include <thrust/sort.h>
#include <thrust/system_error.h>
#include <thrust/transform.h>
#include <thrust/tuple.h>
#include <thrust/unique.h>

// CCCL 3 dropped the base classes that old function objects derive from.
#if defined(THRUST_VERSION) && THRUST_VERSION >= 300000
namespace thrust {
template <typename A, typename R> struct unary_function {
  using argument_type = A;
  using result_type = R;
};
template <typename A, typename B, typename R> struct binary_function {
  using first_argument_type = A;
  using second_argument_type = B;
  using result_type = R;
};
} // namespace thrust
#endif

// CUDA 13 takes a location where cudaMemPrefetchAsync took a device number. The engine's hash map is the one caller.
#if CUDART_VERSION >= 13000
static inline cudaError_t cudaMemPrefetchAsync(const void *memory, size_t bytes, int device, cudaStream_t stream) {
  cudaMemLocation location{};
  location.type = cudaMemLocationTypeDevice;
  location.id = device;
  return cudaMemPrefetchAsync(memory, bytes, location, 0u, stream);
}
#endif

// std::shared_ptr calls __to_address unqualified; for a pointer to the engine's hash map the compiler then finds both
// std's and cuda::std's and cannot choose. This overload is more specialised than either and beside the class.
template <typename K, typename E, typename H, typename Q, typename A> class concurrent_unordered_map;
template <typename K, typename E, typename H, typename Q, typename A>
constexpr concurrent_unordered_map<K, E, H, Q, A> *__to_address(concurrent_unordered_map<K, E, H, Q, A> *map) noexcept {
  return map;
}

// The sparse product asks for managed memory for a buffer that only the device touches. Device memory is enough, and
// unlike managed memory it cannot migrate to the host.
template <typename T> static inline cudaError_t ditr_malloc_on_device(T **memory, size_t bytes, unsigned int = 0) {
  return cudaMalloc(reinterpret_cast<void **>(memory), bytes);
}
#define cudaMallocManaged ditr_malloc_on_device

#endif // __CUDACC__
#endif // __cplusplus
