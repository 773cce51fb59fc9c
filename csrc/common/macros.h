// Compiler differences, in one place.
#pragma once

// Functions that both the CPU and the CUDA compiler see.
#if defined(__CUDACC__)
#define GANOPS_HD __host__ __device__
#else
#define GANOPS_HD
#endif

#if defined(__GNUC__)
#define GANOPS_INLINE inline __attribute__((always_inline))
#define GANOPS_LAMBDA __attribute__((always_inline))
#define GANOPS_RESTRICT __restrict__
#else
#define GANOPS_INLINE inline
#define GANOPS_LAMBDA
#define GANOPS_RESTRICT
#endif

// One function body compiled for several instruction sets; the loader picks at run time.
// Everything it calls must be GANOPS_INLINE, or it is compiled for the baseline only.
#if defined(__x86_64__) && defined(__linux__) && defined(__GNUC__) && !defined(__clang__)
#if __GNUC__ >= 12
#define GANOPS_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else  // g++ 11 and older know no levels
#define GANOPS_CLONES __attribute__((target_clones("avx512f", "avx2", "default")))
#endif
#else
#define GANOPS_CLONES
#endif
