/* What generic vector code does not reach on x86-64 with AVX2 + FMA + F16C, or AVX-512 (F, DQ, BW, VL).
 *
 * The same functions in portable C are in dvx_host_portable.h. immintrin.h is not included: it costs more to parse than
 * all of DVX. gcc and clang share few of the builtins behind it, so each gets the set it knows.
 */
#ifndef DVX_HOST_X86_H
#define DVX_HOST_X86_H

typedef long long dvx_x86_d DVX_VECTOR(DVX_HOST_BYTES);
typedef short dvx_x86_8h DVX_VECTOR(16);

/* Builtins by width. m16, m8: all lanes on; 4: the current rounding mode. */
#if DVX_HOST_BYTES == 64
#define DVX_X86_M16 ((unsigned short)-1)
#define DVX_X86_M8 ((unsigned char)-1)
#define DVX_X86_MASK(m) __builtin_ia32_cvtd2mask512(m)
#define DVX_X86_CVT_W_SF(a) __builtin_ia32_cvttps2dq512_mask(a, (dvx_hw){0}, DVX_X86_M16, 4)
#define DVX_X86_CVT_W_DF(a) __builtin_ia32_cvttpd2dq512_mask(a, (dvx_h2w){0}, DVX_X86_M8, 4)
#define DVX_X86_LOAD_W(p, m) __builtin_ia32_loaddqusi512_mask((const int *)(p), (dvx_hw){0}, __builtin_ia32_cvtd2mask512(m))
#define DVX_X86_LOAD_D(p, m) \
    __builtin_ia32_loaddqudi512_mask((const long long *)(p), (dvx_x86_d){0}, __builtin_ia32_cvtq2mask512(m))
#define DVX_X86_STORE_W(p, m, v) __builtin_ia32_storedqusi512_mask((int *)(p), v, __builtin_ia32_cvtd2mask512(m))
#define DVX_X86_STORE_D(p, m, v) __builtin_ia32_storedqudi512_mask((long long *)(p), v, __builtin_ia32_cvtq2mask512(m))
#elif DVX_HOST_BYTES == 32
#define DVX_X86_MASK(m) __builtin_ia32_movmskps256((dvx_hsf)(m))
#define DVX_X86_CVT_W_SF(a) __builtin_ia32_cvttps2dq256(a)
#define DVX_X86_CVT_W_DF(a) __builtin_ia32_cvttpd2dq256(a)
#define DVX_X86_LOAD_W(p, m) __builtin_ia32_maskloadd256((const dvx_hw *)(p), m)
#define DVX_X86_LOAD_D(p, m) __builtin_ia32_maskloadq256((const dvx_x86_d *)(p), m)
#define DVX_X86_STORE_W(p, m, v) __builtin_ia32_maskstored256((dvx_hw *)(p), m, v)
#define DVX_X86_STORE_D(p, m, v) __builtin_ia32_maskstoreq256((dvx_x86_d *)(p), m, v)
#define DVX_X86_MUX(m, a, b) __builtin_ia32_blendvps256(b, a, m)
#define DVX_X86_SHL_W(a, n) __builtin_ia32_psllv8si(a, n)
#define DVX_X86_SHR_W(a, n) __builtin_ia32_psrlv8si(a, n)
#define DVX_X86_SAR_W(a, n) __builtin_ia32_psrav8si(a, n)
#define DVX_X86_SHL_D(a, n) __builtin_ia32_psllv4di(a, n)
#define DVX_X86_SHR_D(a, n) __builtin_ia32_psrlv4di(a, n)
#define DVX_X86_MULUDQ(a, b) __builtin_ia32_pmuludq256(a, b)
#define DVX_X86_PERM_W(a, n) __builtin_ia32_permvarsi256(a, n)
#else
#define DVX_X86_MASK(m) __builtin_ia32_movmskps((dvx_hsf)(m))
#define DVX_X86_CVT_W_SF(a) __builtin_ia32_cvttps2dq(a)
#define DVX_X86_CVT_W_DF(a) dvx_lower_w(__builtin_ia32_cvttpd2dq(a))
#define DVX_X86_LOAD_W(p, m) __builtin_ia32_maskloadd((const dvx_hw *)(p), m)
#define DVX_X86_LOAD_D(p, m) __builtin_ia32_maskloadq((const dvx_x86_d *)(p), m)
#define DVX_X86_STORE_W(p, m, v) __builtin_ia32_maskstored((dvx_hw *)(p), m, v)
#define DVX_X86_STORE_D(p, m, v) __builtin_ia32_maskstoreq((dvx_x86_d *)(p), m, v)
#define DVX_X86_MUX(m, a, b) __builtin_ia32_blendvps(b, a, m)
#define DVX_X86_SHL_W(a, n) __builtin_ia32_psllv4si(a, n)
#define DVX_X86_SHR_W(a, n) __builtin_ia32_psrlv4si(a, n)
#define DVX_X86_SAR_W(a, n) __builtin_ia32_psrav4si(a, n)
#define DVX_X86_SHL_D(a, n) __builtin_ia32_psllv2di(a, n)
#define DVX_X86_SHR_D(a, n) __builtin_ia32_psrlv2di(a, n)
#define DVX_X86_MULUDQ(a, b) __builtin_ia32_pmuludq128(a, b)
#define DVX_X86_PERM_W(a, n) ((dvx_hw)__builtin_ia32_vpermilvarps((dvx_hsf)(a), n))
#endif

#ifdef __clang__
typedef _Float16 dvx_x86_hf DVX_VECTOR(DVX_HOST_BYTES / 2);
#define DVX_X86_FMA_SF(a, b, c) __builtin_elementwise_fma(a, b, c)
#define DVX_X86_FMA_DF(a, b, c) __builtin_elementwise_fma(a, b, c)
#define DVX_X86_FNMA_SF(a, b, c) __builtin_elementwise_fma(-(a), b, c)
#define DVX_X86_FNMA_DF(a, b, c) __builtin_elementwise_fma(-(a), b, c)
#define DVX_X86_SQRT_SF(a) __builtin_elementwise_sqrt(a)
#define DVX_X86_SQRT_DF(a) __builtin_elementwise_sqrt(a)
#define DVX_X86_FLOOR(T, a) __builtin_elementwise_floor(a)
#define DVX_X86_CEIL(T, a) __builtin_elementwise_ceil(a)
#define DVX_X86_TRUNC(T, a) __builtin_elementwise_trunc(a)
#define DVX_X86_RINT(T, a) __builtin_elementwise_roundeven(a)
/* The compiler matches compare and select to one minps or maxps. */
#define DVX_X86_LESS(T, a, b) ((dvx_h##T)dvx_host_mux((dvx_hw)((a) < (b)), (dvx_hw)(a), (dvx_hw)(b)))
#define DVX_X86_MORE(T, a, b) ((dvx_h##T)dvx_host_mux((dvx_hw)((a) > (b)), (dvx_hw)(a), (dvx_hw)(b)))
#define DVX_X86_MIN_W(a, b) __builtin_elementwise_min(a, b)
#define DVX_X86_MAX_W(a, b) __builtin_elementwise_max(a, b)
#define DVX_X86_UP_HF(x) __builtin_convertvector((dvx_x86_hf)(x), dvx_hsf)
#define DVX_X86_DOWN_HF(a) __builtin_convertvector(a, dvx_x86_hf)
#if DVX_HOST_BYTES == 64
#define DVX_X86_SHL_W(a, n) __builtin_ia32_psllv16si(a, n)
#define DVX_X86_SHR_W(a, n) __builtin_ia32_psrlv16si(a, n)
#define DVX_X86_SAR_W(a, n) __builtin_ia32_psrav16si(a, n)
#define DVX_X86_SHL_D(a, n) __builtin_ia32_psllv8di(a, n)
#define DVX_X86_SHR_D(a, n) __builtin_ia32_psrlv8di(a, n)
#define DVX_X86_MULUDQ(a, b) __builtin_ia32_pmuludq512(a, b)
#define DVX_X86_PERM_W(a, n) __builtin_ia32_permvarsi512(a, n)
#define DVX_X86_PERM_PAIR(a, n, b) __builtin_ia32_vpermi2varpd512(a, n, b)
#define DVX_X86_MUX(m, a, b) ((dvx_hsf)(((dvx_hw)(a) & (dvx_hw)(m)) | ((dvx_hw)(b) & ~(dvx_hw)(m))))
#endif
#else /* gcc */
#define DVX_X86_FLOOR(T, a) DVX_X86_ROUND_##T(a, 9)
#define DVX_X86_CEIL(T, a) DVX_X86_ROUND_##T(a, 10)
#define DVX_X86_TRUNC(T, a) DVX_X86_ROUND_##T(a, 11)
#define DVX_X86_RINT(T, a) DVX_X86_ROUND_##T(a, 8)
#define DVX_X86_LESS(T, a, b) DVX_X86_LESS_##T(a, b)
#define DVX_X86_MORE(T, a, b) DVX_X86_MORE_##T(a, b)
#if DVX_HOST_BYTES == 64
#define DVX_X86_FMA_SF(a, b, c) __builtin_ia32_vfmaddps512_mask(a, b, c, DVX_X86_M16, 4)
#define DVX_X86_FMA_DF(a, b, c) __builtin_ia32_vfmaddpd512_mask(a, b, c, DVX_X86_M8, 4)
#define DVX_X86_FNMA_SF(a, b, c) __builtin_ia32_vfnmaddps512_mask(a, b, c, DVX_X86_M16, 4)
#define DVX_X86_FNMA_DF(a, b, c) __builtin_ia32_vfnmaddpd512_mask(a, b, c, DVX_X86_M8, 4)
#define DVX_X86_SQRT_SF(a) __builtin_ia32_sqrtps512_mask(a, (dvx_hsf){0}, DVX_X86_M16, 4)
#define DVX_X86_SQRT_DF(a) __builtin_ia32_sqrtpd512_mask(a, (dvx_hdf){0}, DVX_X86_M8, 4)
#define DVX_X86_ROUND_sf(a, how) __builtin_ia32_rndscaleps_mask(a, how, (dvx_hsf){0}, DVX_X86_M16, 4)
#define DVX_X86_ROUND_df(a, how) __builtin_ia32_rndscalepd_mask(a, how, (dvx_hdf){0}, DVX_X86_M8, 4)
#define DVX_X86_LESS_sf(a, b) __builtin_ia32_minps512_mask(a, b, (dvx_hsf){0}, DVX_X86_M16, 4)
#define DVX_X86_MORE_sf(a, b) __builtin_ia32_maxps512_mask(a, b, (dvx_hsf){0}, DVX_X86_M16, 4)
#define DVX_X86_LESS_df(a, b) __builtin_ia32_minpd512_mask(a, b, (dvx_hdf){0}, DVX_X86_M8, 4)
#define DVX_X86_MORE_df(a, b) __builtin_ia32_maxpd512_mask(a, b, (dvx_hdf){0}, DVX_X86_M8, 4)
#define DVX_X86_MIN_W(a, b) __builtin_ia32_pminsd512_mask(a, b, (dvx_hw){0}, DVX_X86_M16)
#define DVX_X86_MAX_W(a, b) __builtin_ia32_pmaxsd512_mask(a, b, (dvx_hw){0}, DVX_X86_M16)
#define DVX_X86_SHL_W(a, n) __builtin_ia32_psllv16si_mask(a, n, (dvx_hw){0}, DVX_X86_M16)
#define DVX_X86_SHR_W(a, n) __builtin_ia32_psrlv16si_mask(a, n, (dvx_hw){0}, DVX_X86_M16)
#define DVX_X86_SAR_W(a, n) __builtin_ia32_psrav16si_mask(a, n, (dvx_hw){0}, DVX_X86_M16)
#define DVX_X86_SHL_D(a, n) __builtin_ia32_psllv8di_mask(a, n, (dvx_x86_d){0}, DVX_X86_M8)
#define DVX_X86_SHR_D(a, n) __builtin_ia32_psrlv8di_mask(a, n, (dvx_x86_d){0}, DVX_X86_M8)
#define DVX_X86_MULUDQ(a, b) __builtin_ia32_pmuludq512_mask(a, b, (dvx_x86_d){0}, DVX_X86_M8)
#define DVX_X86_PERM_W(a, n) __builtin_ia32_permvarsi512_mask(a, n, (dvx_hw){0}, DVX_X86_M16)
#define DVX_X86_PERM_PAIR(a, n, b) __builtin_ia32_vpermt2varpd512_mask((dvx_x86_d)(n), a, b, DVX_X86_M8)
#define DVX_X86_MUX(m, a, b) \
    ((dvx_hsf)__builtin_ia32_pternlogd512_mask((dvx_hw)(m), (dvx_hw)(a), (dvx_hw)(b), 0xca, DVX_X86_M16))
#define DVX_X86_UP_HF(x) __builtin_ia32_vcvtph2ps512_mask((short DVX_VECTOR(32))(x), (dvx_hsf){0}, DVX_X86_M16, 4)
#define DVX_X86_DOWN_HF(a) __builtin_ia32_vcvtps2ph512_mask(a, 0, (short DVX_VECTOR(32)){0}, DVX_X86_M16)
#elif DVX_HOST_BYTES == 32
#define DVX_X86_FMA_SF(a, b, c) __builtin_ia32_vfmaddps256(a, b, c)
#define DVX_X86_FMA_DF(a, b, c) __builtin_ia32_vfmaddpd256(a, b, c)
#define DVX_X86_FNMA_SF(a, b, c) __builtin_ia32_vfnmaddps256(a, b, c)
#define DVX_X86_FNMA_DF(a, b, c) __builtin_ia32_vfnmaddpd256(a, b, c)
#define DVX_X86_SQRT_SF(a) __builtin_ia32_sqrtps256(a)
#define DVX_X86_SQRT_DF(a) __builtin_ia32_sqrtpd256(a)
#define DVX_X86_ROUND_sf(a, how) __builtin_ia32_roundps256(a, how)
#define DVX_X86_ROUND_df(a, how) __builtin_ia32_roundpd256(a, how)
#define DVX_X86_LESS_sf(a, b) __builtin_ia32_minps256(a, b)
#define DVX_X86_MORE_sf(a, b) __builtin_ia32_maxps256(a, b)
#define DVX_X86_LESS_df(a, b) __builtin_ia32_minpd256(a, b)
#define DVX_X86_MORE_df(a, b) __builtin_ia32_maxpd256(a, b)
#define DVX_X86_MIN_W(a, b) __builtin_ia32_pminsd256(a, b)
#define DVX_X86_MAX_W(a, b) __builtin_ia32_pmaxsd256(a, b)
#define DVX_X86_UP_HF(x) __builtin_ia32_vcvtph2ps256((dvx_x86_8h)(x))
#define DVX_X86_DOWN_HF(a) __builtin_ia32_vcvtps2ph256(a, 0)
#else
#define DVX_X86_FMA_SF(a, b, c) __builtin_ia32_vfmaddps(a, b, c)
#define DVX_X86_FMA_DF(a, b, c) __builtin_ia32_vfmaddpd(a, b, c)
#define DVX_X86_FNMA_SF(a, b, c) __builtin_ia32_vfnmaddps(a, b, c)
#define DVX_X86_FNMA_DF(a, b, c) __builtin_ia32_vfnmaddpd(a, b, c)
#define DVX_X86_SQRT_SF(a) __builtin_ia32_sqrtps(a)
#define DVX_X86_SQRT_DF(a) __builtin_ia32_sqrtpd(a)
#define DVX_X86_ROUND_sf(a, how) __builtin_ia32_roundps(a, how)
#define DVX_X86_ROUND_df(a, how) __builtin_ia32_roundpd(a, how)
#define DVX_X86_LESS_sf(a, b) __builtin_ia32_minps(a, b)
#define DVX_X86_MORE_sf(a, b) __builtin_ia32_maxps(a, b)
#define DVX_X86_LESS_df(a, b) __builtin_ia32_minpd(a, b)
#define DVX_X86_MORE_df(a, b) __builtin_ia32_maxpd(a, b)
#define DVX_X86_MIN_W(a, b) __builtin_ia32_pminsd128(a, b)
#define DVX_X86_MAX_W(a, b) __builtin_ia32_pmaxsd128(a, b)
#define DVX_X86_UP_HF(x) \
    __builtin_ia32_vcvtph2ps((dvx_x86_8h)__builtin_shufflevector(x, x, 0, 1, 2, 3, 0, 1, 2, 3))
#define DVX_X86_DOWN_HF(a) \
    __builtin_shufflevector(__builtin_ia32_vcvtps2ph(a, 0), __builtin_ia32_vcvtps2ph(a, 0), 0, 1, 2, 3)
#endif
#endif

/* m ? a : b, for masks of 32- and 64-bit lanes alike. */
DVX_FN dvx_hw dvx_host_mux(dvx_hw m, dvx_hw a, dvx_hw b)
{
    return (dvx_hw)DVX_X86_MUX((dvx_hsf)m, (dvx_hsf)a, (dvx_hsf)b);
}

DVX_FN int dvx_host_any(dvx_hw m) { return DVX_X86_MASK(m) != 0; }
DVX_FN int dvx_host_all(dvx_hw m) { return DVX_X86_MASK(~m) == 0; }

/* fma: a * b + c; fnma: c - a * b; both rounded once. */
DVX_FN dvx_hsf dvx_host_fma_sf(dvx_hsf a, dvx_hsf b, dvx_hsf c) { return DVX_X86_FMA_SF(a, b, c); }
DVX_FN dvx_hdf dvx_host_fma_df(dvx_hdf a, dvx_hdf b, dvx_hdf c) { return DVX_X86_FMA_DF(a, b, c); }
DVX_FN dvx_hsf dvx_host_fnma_sf(dvx_hsf a, dvx_hsf b, dvx_hsf c) { return DVX_X86_FNMA_SF(a, b, c); }
DVX_FN dvx_hdf dvx_host_fnma_df(dvx_hdf a, dvx_hdf b, dvx_hdf c) { return DVX_X86_FNMA_DF(a, b, c); }
DVX_FN dvx_hsf dvx_host_sqrt_sf(dvx_hsf a) { return DVX_X86_SQRT_SF(a); }
DVX_FN dvx_hdf dvx_host_sqrt_df(dvx_hdf a) { return DVX_X86_SQRT_DF(a); }
DVX_FN dvx_hsf dvx_host_floor_sf(dvx_hsf a) { return DVX_X86_FLOOR(sf, a); }
DVX_FN dvx_hdf dvx_host_floor_df(dvx_hdf a) { return DVX_X86_FLOOR(df, a); }
DVX_FN dvx_hsf dvx_host_ceil_sf(dvx_hsf a) { return DVX_X86_CEIL(sf, a); }
DVX_FN dvx_hdf dvx_host_ceil_df(dvx_hdf a) { return DVX_X86_CEIL(df, a); }
DVX_FN dvx_hsf dvx_host_trunc_sf(dvx_hsf a) { return DVX_X86_TRUNC(sf, a); }
DVX_FN dvx_hdf dvx_host_trunc_df(dvx_hdf a) { return DVX_X86_TRUNC(df, a); }
DVX_FN dvx_hsf dvx_host_rint_sf(dvx_hsf a) { return DVX_X86_RINT(sf, a); }
DVX_FN dvx_hdf dvx_host_rint_df(dvx_hdf a) { return DVX_X86_RINT(df, a); }

/* less: a < b ? a : b; more: a > b ? a : b; so b where they are equal or unordered. */
DVX_FN dvx_hsf dvx_host_less_sf(dvx_hsf a, dvx_hsf b) { return DVX_X86_LESS(sf, a, b); }
DVX_FN dvx_hdf dvx_host_less_df(dvx_hdf a, dvx_hdf b) { return DVX_X86_LESS(df, a, b); }
DVX_FN dvx_hsf dvx_host_more_sf(dvx_hsf a, dvx_hsf b) { return DVX_X86_MORE(sf, a, b); }
DVX_FN dvx_hdf dvx_host_more_df(dvx_hdf a, dvx_hdf b) { return DVX_X86_MORE(df, a, b); }

DVX_FN dvx_hw dvx_host_min_w(dvx_hw a, dvx_hw b) { return DVX_X86_MIN_W(a, b); }
DVX_FN dvx_hw dvx_host_max_w(dvx_hw a, dvx_hw b) { return DVX_X86_MAX_W(a, b); }

/* Shifts by vector; counts outside [0, bits) give 0, or the sign. */
DVX_FN dvx_hw dvx_host_shl_w(dvx_hw a, dvx_hw n) { return DVX_X86_SHL_W(a, n); }
DVX_FN dvx_hw dvx_host_shr_w(dvx_hw a, dvx_hw n) { return DVX_X86_SHR_W(a, n); }
DVX_FN dvx_hw dvx_host_sar_w(dvx_hw a, dvx_hw n) { return DVX_X86_SAR_W(a, n); }
DVX_FN dvx_hd dvx_host_shl_d(dvx_hd a, dvx_hd n) { return (dvx_hd)DVX_X86_SHL_D((dvx_x86_d)a, (dvx_x86_d)n); }
DVX_FN dvx_hd dvx_host_shr_d(dvx_hd a, dvx_hd n) { return (dvx_hd)DVX_X86_SHR_D((dvx_x86_d)a, (dvx_x86_d)n); }
DVX_FN dvx_hd dvx_host_sar_d(dvx_hd a, dvx_hd n)
{
    const dvx_hd bounded = (dvx_hd)dvx_host_mux((dvx_hw)((dvx_hud)n > 63), (dvx_hw)dvx_splat_d(63), (dvx_hw)n);
    return a >> bounded; /* one instruction of AVX-512, a few where clang or gcc has to make it up */
}

/* High 32 bits of the unsigned product: even lanes, then odd lanes. */
DVX_FN dvx_hw dvx_host_mulhu_w(dvx_hw a, dvx_hw b)
{
    const dvx_hud even = (dvx_hud)DVX_X86_MULUDQ(a, b) >> 32;
    const dvx_hud odd = (dvx_hud)DVX_X86_MULUDQ((dvx_hw)((dvx_hud)a >> 32), (dvx_hw)((dvx_hud)b >> 32));
    return (dvx_hw)(even | (odd & 0xffffffff00000000u));
}

/* Truncating conversions; NaN and what does not fit give the smallest integer. */
DVX_FN dvx_hw dvx_host_cvt_w_sf(dvx_hsf a) { return DVX_X86_CVT_W_SF(a); }
DVX_FN dvx_h2w dvx_host_cvt_w_df(dvx_hdf a) { return DVX_X86_CVT_W_DF(a); }
DVX_FN dvx_hd dvx_host_cvt_d_df(dvx_hdf a)
{
#if DVX_HOST_BYTES == 64
    return (dvx_hd)__builtin_ia32_cvttpd2qq512_mask(a, (dvx_x86_d){0}, DVX_X86_M8, 4);
#else
    typedef double pair DVX_VECTOR(16);
#define DVX_TRUNCATED(j) __builtin_ia32_cvttsd2si64((pair){a[j], 0})
    return (dvx_hd){DVX_LIST64(DVX_TRUNCATED)};
#undef DVX_TRUNCATED
#endif
}

/* 32-bit integers divide exactly in double precision; -2^31 / -1 = 2^31 does not fit and so gives -2^31. */
DVX_FN dvx_hw dvx_host_div_w(dvx_hw a, dvx_hw b)
{
    const dvx_hdf lower = __builtin_convertvector(dvx_lower_w(a), dvx_hdf) / __builtin_convertvector(dvx_lower_w(b), dvx_hdf);
    const dvx_hdf upper = __builtin_convertvector(dvx_upper_w(a), dvx_hdf) / __builtin_convertvector(dvx_upper_w(b), dvx_hdf);
    return dvx_join_w(dvx_host_cvt_w_df(lower), dvx_host_cvt_w_df(upper)) & (b != 0);
}

/* fp16 bits to f32, and back: to nearest even, NaN stays NaN. */
DVX_FN dvx_hsf dvx_host_up_hf(dvx_mhf x) { return DVX_X86_UP_HF(x); }
DVX_FN dvx_mhf dvx_host_down_hf(dvx_hsf a) { return (dvx_mhf)DVX_X86_DOWN_HF(a); }

/* Masked memory: lanes that are off are not touched. */
DVX_FN dvx_hw dvx_host_load_w(const void *p, dvx_hw m) { return DVX_X86_LOAD_W(p, m); }
DVX_FN dvx_hd dvx_host_load_d(const void *p, dvx_hd m) { return (dvx_hd)DVX_X86_LOAD_D(p, (dvx_x86_d)m); }
DVX_FN void dvx_host_store_w(void *p, dvx_hw m, dvx_hw v) { DVX_X86_STORE_W(p, m, v); }
DVX_FN void dvx_host_store_d(void *p, dvx_hd m, dvx_hd v) { DVX_X86_STORE_D(p, (dvx_x86_d)m, (dvx_x86_d)v); }

/* Lane i of the result is lane index[i] mod the lanes of a piece. */
DVX_FN dvx_hw dvx_host_perm_w(dvx_hw a, dvx_hw index) { return DVX_X86_PERM_W(a, index); }

#endif
