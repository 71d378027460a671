/* The portable twin of dvx_host_x86.h: the same functions in vector C, for any host, without libm.
 *
 * Compile with -fno-math-errno, so that __builtin_sqrt is an instruction. f64 fused multiply-add needs __int128 where
 * the host has no such instruction.
 */
#ifndef DVX_HOST_PORTABLE_H
#define DVX_HOST_PORTABLE_H

/* m ? a : b, for masks of 32- and 64-bit lanes alike. */
DVX_FN dvx_hw dvx_host_mux(dvx_hw m, dvx_hw a, dvx_hw b) { return (a & m) | (b & ~m); }
#define DVX_SELECT(T, m, a, b) ((dvx_h##T)dvx_host_mux((dvx_hw)(m), (dvx_hw)(a), (dvx_hw)(b)))

DVX_FN int dvx_host_any(dvx_hw m)
{
    int64_t any = 0;
#define DVX_GATHER_BITS(j) any |= ((dvx_hd)m)[j];
    DVX_EACH64(DVX_GATHER_BITS)
#undef DVX_GATHER_BITS
    return any != 0;
}
DVX_FN int dvx_host_all(dvx_hw m) { return !dvx_host_any(~m); }

#if (defined(__FMA__) || defined(__ARM_FEATURE_FMA) || defined(__aarch64__)) && defined(__clang__)
DVX_FN dvx_hsf dvx_host_fma_sf(dvx_hsf a, dvx_hsf b, dvx_hsf c) { return __builtin_elementwise_fma(a, b, c); }
DVX_FN dvx_hdf dvx_host_fma_df(dvx_hdf a, dvx_hdf b, dvx_hdf c) { return __builtin_elementwise_fma(a, b, c); }
#else
#if defined(__FMA__) || defined(__ARM_FEATURE_FMA) || defined(__aarch64__)
#define dvx_fma_f32(a, b, c) __builtin_fmaf(a, b, c)
#define dvx_fma_f64(a, b, c) __builtin_fma(a, b, c)
#else
#include "dvx_softfma.h"
#endif
#define DVX_FUSED_f32(j) dvx_fma_f32(a[j], b[j], c[j])
#define DVX_FUSED_f64(j) dvx_fma_f64(a[j], b[j], c[j])
DVX_FN dvx_hsf dvx_host_fma_sf(dvx_hsf a, dvx_hsf b, dvx_hsf c) { return (dvx_hsf){DVX_LIST32(DVX_FUSED_f32)}; }
DVX_FN dvx_hdf dvx_host_fma_df(dvx_hdf a, dvx_hdf b, dvx_hdf c) { return (dvx_hdf){DVX_LIST64(DVX_FUSED_f64)}; }
#endif

DVX_FN dvx_hsf dvx_host_fnma_sf(dvx_hsf a, dvx_hsf b, dvx_hsf c) { return dvx_host_fma_sf(-a, b, c); }
DVX_FN dvx_hdf dvx_host_fnma_df(dvx_hdf a, dvx_hdf b, dvx_hdf c) { return dvx_host_fma_df(-a, b, c); }

#define DVX_ROOT_f32(j) __builtin_sqrtf(a[j])
#define DVX_ROOT_f64(j) __builtin_sqrt(a[j])
DVX_FN dvx_hsf dvx_host_sqrt_sf(dvx_hsf a) { return (dvx_hsf){DVX_LIST32(DVX_ROOT_f32)}; }
DVX_FN dvx_hdf dvx_host_sqrt_df(dvx_hdf a) { return (dvx_hdf){DVX_LIST64(DVX_ROOT_f64)}; }

/* Rounding to integers. BIG has no fraction bits left, so adding and taking it off rounds to nearest even. */
#define DVX_ROUNDING(T, I, SIGN, BIG) \
    DVX_FN dvx_h##T dvx_signed_as_##T(dvx_h##T a, dvx_h##T sign) \
    { \
        return (dvx_h##T)(((dvx_h##I)a & ~SIGN) | ((dvx_h##I)sign & SIGN)); \
    } \
    DVX_FN dvx_h##T dvx_host_rint_##T(dvx_h##T a) \
    { \
        const dvx_h##T size = (dvx_h##T)((dvx_h##I)a & ~SIGN); \
        return DVX_SELECT(T, size < BIG, dvx_signed_as_##T((size + BIG) - BIG, a), a); \
    } \
    DVX_FN dvx_h##T dvx_host_floor_##T(dvx_h##T a) \
    { \
        const dvx_h##T near = dvx_host_rint_##T(a), one = dvx_splat_##T(1); \
        return dvx_signed_as_##T(near - (dvx_h##T)((near > a) & (dvx_h##I)one), a); \
    } \
    DVX_FN dvx_h##T dvx_host_ceil_##T(dvx_h##T a) { return -dvx_host_floor_##T(-a); } \
    DVX_FN dvx_h##T dvx_host_trunc_##T(dvx_h##T a) \
    { \
        return dvx_signed_as_##T(dvx_host_floor_##T((dvx_h##T)((dvx_h##I)a & ~SIGN)), a); \
    }
DVX_ROUNDING(sf, w, INT32_MIN, 0x1p23f)
DVX_ROUNDING(df, d, INT64_MIN, 0x1p52)

/* less: a < b ? a : b; more: a > b ? a : b; so b where they are equal or unordered. */
DVX_FN dvx_hsf dvx_host_less_sf(dvx_hsf a, dvx_hsf b) { return DVX_SELECT(sf, a < b, a, b); }
DVX_FN dvx_hdf dvx_host_less_df(dvx_hdf a, dvx_hdf b) { return DVX_SELECT(df, a < b, a, b); }
DVX_FN dvx_hsf dvx_host_more_sf(dvx_hsf a, dvx_hsf b) { return DVX_SELECT(sf, a > b, a, b); }
DVX_FN dvx_hdf dvx_host_more_df(dvx_hdf a, dvx_hdf b) { return DVX_SELECT(df, a > b, a, b); }

DVX_FN dvx_hw dvx_host_min_w(dvx_hw a, dvx_hw b) { return dvx_host_mux(a < b, a, b); }
DVX_FN dvx_hw dvx_host_max_w(dvx_hw a, dvx_hw b) { return dvx_host_mux(a > b, a, b); }

/* Shifts by vector; counts outside [0, bits) give 0, or the sign. */
DVX_FN dvx_hw dvx_host_shl_w(dvx_hw a, dvx_hw n) { return (dvx_hw)((dvx_huw)a << ((dvx_huw)n & 31)) & ((dvx_huw)n < 32); }
DVX_FN dvx_hw dvx_host_shr_w(dvx_hw a, dvx_hw n) { return (dvx_hw)((dvx_huw)a >> ((dvx_huw)n & 31)) & ((dvx_huw)n < 32); }
DVX_FN dvx_hw dvx_host_sar_w(dvx_hw a, dvx_hw n) { return dvx_host_mux((dvx_huw)n < 32, a >> (n & 31), a < 0); }
DVX_FN dvx_hd dvx_host_shl_d(dvx_hd a, dvx_hd n) { return (dvx_hd)((dvx_hud)a << ((dvx_hud)n & 63)) & ((dvx_hud)n < 64); }
DVX_FN dvx_hd dvx_host_shr_d(dvx_hd a, dvx_hd n) { return (dvx_hd)((dvx_hud)a >> ((dvx_hud)n & 63)) & ((dvx_hud)n < 64); }
DVX_FN dvx_hd dvx_host_sar_d(dvx_hd a, dvx_hd n) { return DVX_SELECT(d, (dvx_hud)n < 64, a >> (n & 63), a < 0); }

/* High 32 bits of the unsigned product. */
DVX_FN dvx_hw dvx_host_mulhu_w(dvx_hw a, dvx_hw b)
{
#define DVX_HIGH(j) (int32_t)(((uint64_t)(uint32_t)a[j] * (uint32_t)b[j]) >> 32)
    return (dvx_hw){DVX_LIST32(DVX_HIGH)};
#undef DVX_HIGH
}

/* Truncating conversions; NaN and what does not fit give the smallest integer. */
DVX_FN dvx_hw dvx_host_cvt_w_sf(dvx_hsf a)
{
    const dvx_hw fits = (a >= -0x1p31f) & (a < 0x1p31f);
    return dvx_host_mux(fits, __builtin_convertvector((dvx_hsf)((dvx_hw)a & fits), dvx_hw), dvx_splat_w(INT32_MIN));
}
DVX_FN dvx_hd dvx_host_cvt_d_df(dvx_hdf a)
{
    const dvx_hd fits = (dvx_hd)(a >= -0x1p63) & (dvx_hd)(a < 0x1p63);
    return DVX_SELECT(d, fits, __builtin_convertvector((dvx_hdf)((dvx_hd)a & fits), dvx_hd), dvx_splat_d(INT64_MIN));
}
DVX_FN dvx_h2w dvx_host_cvt_w_df(dvx_hdf a)
{
    const dvx_hd fits = (dvx_hd)(a > -0x1p31 - 1) & (dvx_hd)(a < 0x1p31);
    const dvx_hdf safe = DVX_SELECT(df, fits, a, dvx_splat_df(-0x1p31));
    return __builtin_convertvector(safe, dvx_h2w);
}

DVX_FN dvx_hw dvx_host_div_w(dvx_hw a, dvx_hw b)
{
#define DVX_DIVIDED(j) (int32_t)dvx_divide(a[j], b[j])
    return (dvx_hw){DVX_LIST32(DVX_DIVIDED)};
#undef DVX_DIVIDED
}

/* fp16 bits to f32. Moved to f32's place the number is 2^112 times too small, its subnormals included. */
DVX_FN dvx_hsf dvx_host_up_hf(dvx_mhf x)
{
    const dvx_hw bits = __builtin_convertvector(x, dvx_hw), size = bits & 0x7fff;
    const dvx_hw number = (dvx_hw)((dvx_hsf)(size << 13) * 0x1p112f), special = (size << 13) | 0x7f800000;
    return (dvx_hsf)(dvx_host_mux(size >= 0x7c00, special, number) | (dvx_hw)((dvx_huw)(bits & 0x8000) << 16));
}

/* f32 to fp16 bits, to nearest even. Subnormals: adding 0.5 leaves just the bits that fp16 keeps. */
DVX_FN dvx_mhf dvx_host_down_hf(dvx_hsf a)
{
    const dvx_hw size = (dvx_hw)a & 0x7fffffff, sign = (dvx_hw)((dvx_huw)a >> 16) & 0x8000;
    const dvx_hw small = (dvx_hw)((dvx_hsf)size + 0.5f) - 0x3f000000;
    const dvx_hw normal = (dvx_hw)((dvx_huw)(size - (112 << 23) + 0xfff + ((size >> 13) & 1)) >> 13);
    const dvx_hw finite = dvx_host_mux(size < (113 << 23), small, normal);
    const dvx_hw number = dvx_host_mux(size >= 0x477ff000, dvx_splat_w(0x7c00), finite); /* 65520 rounds to infinity */
    const dvx_hw nan = 0x7e00 | ((size >> 13) & 0x3ff);
    return __builtin_convertvector((dvx_huw)(dvx_host_mux(size > 0x7f800000, nan, number) | sign), dvx_mhf);
}

/* Masked memory: lanes that are off are not touched. */
#define DVX_LOADED(j) m[j] ? p[j] : 0
DVX_FN dvx_hw dvx_host_load_w(const dvx_ew *p, dvx_hw m) { return (dvx_hw){DVX_LIST32(DVX_LOADED)}; }
DVX_FN dvx_hd dvx_host_load_d(const dvx_ed *p, dvx_hd m) { return (dvx_hd){DVX_LIST64(DVX_LOADED)}; }
#define DVX_STORED(j) if (m[j]) p[j] = v[j];
DVX_FN void dvx_host_store_w(dvx_ew *p, dvx_hw m, dvx_hw v) { DVX_EACH32(DVX_STORED) }
DVX_FN void dvx_host_store_d(dvx_ed *p, dvx_hd m, dvx_hd v) { DVX_EACH64(DVX_STORED) }

/* Lane i of the result is lane index[i] mod the lanes of a piece. */
DVX_FN dvx_hw dvx_host_perm_w(dvx_hw a, dvx_hw index)
{
#define DVX_PICKED(j) a[index[j] & (DVX_HOST_LANES - 1)]
    return (dvx_hw){DVX_LIST32(DVX_PICKED)};
#undef DVX_PICKED
}

#endif
