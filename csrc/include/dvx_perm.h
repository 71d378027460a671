/* Memory elements to lanes and back, and the shapes of intrinsics that move lanes across a register. */
#ifndef DVX_PERM_H
#define DVX_PERM_H

#include "dvx_types.h"

/* up: one piece of memory elements to its register type. */
DVX_FN dvx_hsf dvx_up_sf(dvx_msf x) { return x; }
DVX_FN dvx_hdf dvx_up_df(dvx_mdf x) { return x; }
DVX_FN dvx_hw dvx_up_w(dvx_mw x) { return x; }
DVX_FN dvx_hd dvx_up_d(dvx_md x) { return x; }
DVX_FN dvx_hw dvx_up_h(dvx_mh x) { return __builtin_convertvector(x, dvx_hw); }
DVX_FN dvx_hw dvx_up_b(dvx_mb x) { return __builtin_convertvector(x, dvx_hw); }
DVX_FN dvx_hw dvx_up_ub(dvx_mub x) { return __builtin_convertvector(x, dvx_hw); }
DVX_FN dvx_hsf dvx_up_hf(dvx_mhf x) { return dvx_host_up_hf(x); }
DVX_FN dvx_hsf dvx_up_bf(dvx_mbf x) { return (dvx_hsf)(__builtin_convertvector(x, dvx_huw) << 16); }

/* The bits of a rounded to bf16, to nearest even; NaN stays NaN. */
DVX_FN dvx_huw dvx_bf_bits(dvx_hsf a)
{
    const dvx_huw bits = (dvx_huw)a, upper = bits >> 16;
    const dvx_huw rounded = (bits + 0x7fff + (upper & 1)) >> 16;
    return (dvx_huw)dvx_host_mux((dvx_hw)(a != a), (dvx_hw)(upper | 0x40), (dvx_hw)rounded);
}

/* Integers cut to their low 16, 8 or 32 bits: the elements that hold them in little-endian order, which gcc
   moves by one or two shuffles where it would convert lane by lane. AVX-512 has instructions for the conversion. */
#if DVX_HOST_BYTES == 64
#define DVX_CUT(T, R, STRIDE, LIST, a) __builtin_convertvector(a, R)
#else
#define DVX_CUT(T, R, STRIDE, LIST, a) __builtin_shufflevector((T)(a), (T)(a), LIST(DVX_EVERY_##STRIDE))
#endif
#define DVX_EVERY_2(j) (2 * (j))
#define DVX_EVERY_4(j) (4 * (j))
typedef int16_t dvx_halfwords DVX_VECTOR(DVX_HOST_BYTES);
typedef int8_t dvx_bytes DVX_VECTOR(DVX_HOST_BYTES);
DVX_FN dvx_mh dvx_cut_h(dvx_hw a) { return DVX_CUT(dvx_halfwords, dvx_mh, 2, DVX_LIST32, a); }
DVX_FN dvx_mb dvx_cut_b(dvx_hw a) { return DVX_CUT(dvx_bytes, dvx_mb, 4, DVX_LIST32, a); }
DVX_FN dvx_h2w dvx_cut_w(dvx_hd a) { return DVX_CUT(dvx_hw, dvx_h2w, 2, DVX_LIST64, a); }

/* down: a register piece to memory elements. */
DVX_FN dvx_msf dvx_down_sf(dvx_hsf a) { return a; }
DVX_FN dvx_mdf dvx_down_df(dvx_hdf a) { return a; }
DVX_FN dvx_mw dvx_down_w(dvx_hw a) { return a; }
DVX_FN dvx_md dvx_down_d(dvx_hd a) { return a; }
DVX_FN dvx_mh dvx_down_h(dvx_hw a) { return dvx_cut_h(a); }
DVX_FN dvx_mb dvx_down_b(dvx_hw a) { return dvx_cut_b(a); }
DVX_FN dvx_mub dvx_down_ub(dvx_hw a) { return (dvx_mub)dvx_cut_b(a); }
DVX_FN dvx_mhf dvx_down_hf(dvx_hsf a) { return dvx_host_down_hf(a); }
DVX_FN dvx_mbf dvx_down_bf(dvx_hsf a) { return (dvx_mbf)dvx_cut_h((dvx_hw)dvx_bf_bits(a)); }

/* Lane numbers of piece i. */
DVX_FN dvx_hw dvx_iota_w(int i) { return (dvx_hw){DVX_LIST32(DVX_LANE)} + i * DVX_HOST_LANES; }
DVX_FN dvx_hd dvx_iota_d(int i) { return (dvx_hd){DVX_LIST64(DVX_LANE)} + i * (DVX_HOST_LANES / 2); }

/* Lanes i and i ^ distance of a piece change places. */
#define DVX_XOR_1(j) ((j) ^ 1)
#define DVX_XOR_2(j) ((j) ^ 2)
#define DVX_XOR_4(j) ((j) ^ 4)
#define DVX_XOR_8(j) ((j) ^ 8)
#define DVX_SWAP(a, distance, LIST) __builtin_shufflevector(a, a, LIST(DVX_XOR_##distance))

/* Interleave: lanes a0 b0 a1 b1 ... of piece k / 2 of a and b, its lower half for even k and its upper half for odd k.
   FIRST: k of the result's first piece. */
#define DVX_ZIP_LO(j) ((j) / 2 + ((j) % 2) * DVX_HOST_LANES)
#define DVX_ZIP_HI(j) (DVX_ZIP_LO(j) + DVX_HOST_LANES / 2)
#define DVX_ZIP64_LO(j) ((j) / 2 + ((j) % 2) * (DVX_HOST_LANES / 2))
#define DVX_ZIP64_HI(j) (DVX_ZIP64_LO(j) + DVX_HOST_LANES / 4)
#define DVX_ZIP32(ROW, REGS, NAME, T, FIRST) DVX_ZIP(ROW, REGS, NAME, T, FIRST, DVX_LIST32(DVX_ZIP_LO), DVX_LIST32(DVX_ZIP_HI))
#define DVX_ZIP64(ROW, REGS, NAME, T, FIRST) DVX_ZIP(ROW, REGS, NAME, T, FIRST, DVX_LIST64(DVX_ZIP64_LO), DVX_LIST64(DVX_ZIP64_HI))
#define DVX_ZIP(ROW, REGS, NAME, T, FIRST, LOWER, UPPER) \
    DVX_FN dvx_##T dvx_##NAME(dvx_##T a, dvx_##T b) \
    { \
        dvx_##T r; \
        DVX_TICK(ROW, REGS); \
        DVX_PIECEWISE(i, T) { \
            const int k = (FIRST) + i; \
            r.p[i] = k % 2 ? __builtin_shufflevector(a.p[k / 2], b.p[k / 2], UPPER) \
                           : __builtin_shufflevector(a.p[k / 2], b.p[k / 2], LOWER); \
        } \
        return r; \
    }

/* Lane i of the result is lane index[i] mod DVX_LANES of a. AT: the indices that belong to piece i. */
#define DVX_PICK(j) from.e[at[j]]
#define DVX_PERMUTE_IN_MEMORY(ROW, REGS, NAME, T, INDEX, AT) \
    DVX_FN dvx_##T dvx_##NAME(dvx_##T a, dvx_w index) \
    { \
        dvx_##T r; \
        const union { dvx_##T v; dvx_e##T e[DVX_LANES]; } from = {a}; \
        DVX_TICK(ROW, REGS); \
        DVX_PIECEWISE(i, T) { \
            const INDEX at = (AT) & (DVX_LANES - 1); \
            r.p[i] = (dvx_h##T){DVX_LIST_##T(DVX_PICK)}; \
        } \
        return r; \
    }
#define DVX_PERMUTE64(ROW, REGS, NAME, T) \
    DVX_PERMUTE_IN_MEMORY(ROW, REGS, NAME, T, dvx_h2w, i % 2 ? dvx_upper_w(index.p[i / 2]) : dvx_lower_w(index.p[i / 2]))

/* Lane i of the result is lane (i + k) mod DVX_LANES of a: read from the middle of two copies. */
#define DVX_ROTATE_IN_MEMORY(ROW, REGS, NAME, T) \
    DVX_FN dvx_##T dvx_##NAME(dvx_##T a, int32_t k) \
    { \
        typedef dvx_h##T unaligned __attribute__((aligned(sizeof(dvx_e##T)), may_alias)); \
        union { dvx_##T v[2]; dvx_e##T e[2 * DVX_LANES]; } twice; \
        dvx_##T r; \
        DVX_TICK(ROW, REGS); \
        twice.v[0] = twice.v[1] = a; \
        DVX_PIECEWISE(i, T) \
            r.p[i] = *(const unaligned *)&twice.e[(k & (DVX_LANES - 1)) + i * DVX_STEP_##T]; \
        return r; \
    }
#if defined(DVX_X86_PERM_PAIR) && DVX_VLEN == DVX_HOST_BYTES
/* Both pieces of a 64-bit value are one operand of AVX-512's permutations. */
#define DVX_ROTATE64(ROW, REGS, NAME, T) \
    DVX_FN dvx_##T dvx_##NAME(dvx_##T a, int32_t k) \
    { \
        dvx_##T r; \
        DVX_TICK(ROW, REGS); \
        DVX_PIECEWISE(i, T) \
            r.p[i] = (dvx_h##T)DVX_X86_PERM_PAIR((dvx_hdf)a.p[0], dvx_iota_d(i) + k, (dvx_hdf)a.p[1]); \
        return r; \
    }
#else
#define DVX_ROTATE64 DVX_ROTATE_IN_MEMORY
#endif

/* Values of one piece stay in registers. */
#if DVX_VLEN > DVX_HOST_BYTES
#define DVX_PERMUTE32(ROW, REGS, NAME, T) DVX_PERMUTE_IN_MEMORY(ROW, REGS, NAME, T, dvx_hw, index.p[i])
#define DVX_ROTATE32 DVX_ROTATE_IN_MEMORY
#else
#define DVX_PERMUTE32(ROW, REGS, NAME, T) \
    DVX_FN dvx_##T dvx_##NAME(dvx_##T a, dvx_w index) \
    { \
        DVX_TICK(ROW, REGS); \
        return (dvx_##T){{(dvx_h##T)dvx_host_perm_w((dvx_hw)a.p[0], index.p[0])}}; \
    }
#define DVX_ROTATE32(ROW, REGS, NAME, T) \
    DVX_FN dvx_##T dvx_##NAME(dvx_##T a, int32_t k) \
    { \
        DVX_TICK(ROW, REGS); \
        return (dvx_##T){{(dvx_h##T)dvx_host_perm_w((dvx_hw)a.p[0], dvx_iota_w(0) + k)}}; \
    }
#endif

#endif
