/* What moves lanes across a register: conversions of memory elements, interleave, rotate, permute, reduction trees. */
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

/* down: a register piece to memory elements. */
DVX_FN dvx_msf dvx_down_sf(dvx_hsf a) { return a; }
DVX_FN dvx_mdf dvx_down_df(dvx_hdf a) { return a; }
DVX_FN dvx_mw dvx_down_w(dvx_hw a) { return a; }
DVX_FN dvx_md dvx_down_d(dvx_hd a) { return a; }
DVX_FN dvx_mh dvx_down_h(dvx_hw a) { return __builtin_convertvector(a, dvx_mh); }
DVX_FN dvx_mb dvx_down_b(dvx_hw a) { return __builtin_convertvector(a, dvx_mb); }
DVX_FN dvx_mub dvx_down_ub(dvx_hw a) { return __builtin_convertvector(a, dvx_mub); }
DVX_FN dvx_mhf dvx_down_hf(dvx_hsf a) { return dvx_host_down_hf(a); }
DVX_FN dvx_mbf dvx_down_bf(dvx_hsf a) { return __builtin_convertvector(dvx_bf_bits(a), dvx_mbf); }

/* Lanes i and i ^ distance of a piece change places. */
#define DVX_XOR_1(j) ((j) ^ 1)
#define DVX_XOR_2(j) ((j) ^ 2)
#define DVX_XOR_4(j) ((j) ^ 4)
#define DVX_XOR_8(j) ((j) ^ 8)
#define DVX_SWAP(a, s, LIST) __builtin_shufflevector(a, a, LIST(DVX_XOR_##s))

/* zip: lanes a0 b0 a1 b1 ...; lo from the first halves of a and b, hi from the second. */
#define DVX_ZIP_LO_32(j) ((j) / 2 + ((j) % 2) * DVX_HOST_LANES)
#define DVX_ZIP_HI_32(j) (DVX_ZIP_LO_32(j) + DVX_HOST_LANES / 2)
#define DVX_ZIP_LO_64(j) ((j) / 2 + ((j) % 2) * (DVX_HOST_LANES / 2))
#define DVX_ZIP_HI_64(j) (DVX_ZIP_LO_64(j) + DVX_HOST_LANES / 4)
#define DVX_ZIP_FNS(T, BITS) \
    DVX_FN dvx_h##T dvx_zip_lo_##T(dvx_h##T a, dvx_h##T b) \
    { \
        return __builtin_shufflevector(a, b, DVX_LIST_##T(DVX_ZIP_LO_##BITS)); \
    } \
    DVX_FN dvx_h##T dvx_zip_hi_##T(dvx_h##T a, dvx_h##T b) \
    { \
        return __builtin_shufflevector(a, b, DVX_LIST_##T(DVX_ZIP_HI_##BITS)); \
    } \
    /* Piece i of the interleaved a and b; their first halves fill the first DVX_PIECES pieces. */ \
    DVX_FN dvx_h##T dvx_zip_piece_##T(dvx_##T a, dvx_##T b, int i) \
    { \
        return i % 2 ? dvx_zip_hi_##T(a.p[i / 2], b.p[i / 2]) : dvx_zip_lo_##T(a.p[i / 2], b.p[i / 2]); \
    }
DVX_ZIP_FNS(sf, 32)
DVX_ZIP_FNS(w, 32)
DVX_ZIP_FNS(df, 64)
DVX_ZIP_FNS(d, 64)

/* Lane numbers of piece i. */
DVX_FN dvx_hw dvx_iota_w(int i) { return (dvx_hw){DVX_LIST32(DVX_LANE)} + i * DVX_HOST_LANES; }
DVX_FN dvx_hd dvx_iota_d(int i) { return (dvx_hd){DVX_LIST64(DVX_LANE)} + i * (DVX_HOST_LANES / 2); }

/* Lane i of the result is lane index[i] mod DVX_LANES of a; values of one piece are permuted in registers. */
#define DVX_PERM_FNS(T, BITS) \
    DVX_FN dvx_##T dvx_permute_##T(dvx_##T a, dvx_w index) \
    { \
        dvx_##T r; \
        const union { dvx_##T v; dvx_e##T e[DVX_LANES]; } from = {a}; \
        for (int i = 0; i < DVX_PIECES_##T; i++) { \
            DVX_PERM_IN_##BITS \
            r.p[i] = (dvx_h##T){DVX_LIST_##T(DVX_PERM_LANE)}; \
        } \
        return r; \
    } \
    /* Lane i of the result is lane (i + k) mod DVX_LANES of a. */ \
    DVX_FN dvx_##T dvx_rotate_##T(dvx_##T a, int32_t k) \
    { \
        dvx_##T r; \
        union { dvx_##T v[2]; dvx_e##T e[2 * DVX_LANES]; } twice; \
        typedef dvx_h##T unaligned __attribute__((aligned(BITS / 8), may_alias)); \
        twice.v[0] = twice.v[1] = a; \
        for (int i = 0; i < DVX_PIECES_##T; i++) \
            r.p[i] = *(const unaligned *)&twice.e[(k & (DVX_LANES - 1)) + i * DVX_STEP_##T]; \
        return r; \
    }
#define DVX_PERM_IN_32 const dvx_hw at = index.p[i] & (DVX_LANES - 1);
#define DVX_PERM_IN_64 const dvx_h2w at = (i % 2 ? dvx_upper_w(index.p[i / 2]) : dvx_lower_w(index.p[i / 2])) & (DVX_LANES - 1);
#define DVX_PERM_LANE(j) from.e[at[j]]
DVX_PERM_FNS(df, 64)
DVX_PERM_FNS(d, 64)
#if DVX_VLEN > DVX_HOST_BYTES
DVX_PERM_FNS(sf, 32)
DVX_PERM_FNS(w, 32)
#else
DVX_FN dvx_w dvx_permute_w(dvx_w a, dvx_w index) { return (dvx_w){{dvx_host_perm_w(a.p[0], index.p[0])}}; }
DVX_FN dvx_sf dvx_permute_sf(dvx_sf a, dvx_w index)
{
    return (dvx_sf){{(dvx_hsf)dvx_host_perm_w((dvx_hw)a.p[0], index.p[0])}};
}
DVX_FN dvx_w dvx_rotate_w(dvx_w a, int32_t k) { return dvx_permute_w(a, (dvx_w){{dvx_iota_w(0) + k}}); }
DVX_FN dvx_sf dvx_rotate_sf(dvx_sf a, int32_t k) { return dvx_permute_sf(a, (dvx_w){{dvx_iota_w(0) + k}}); }
#endif

#endif
