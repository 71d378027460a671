/* DVX values on the host: every register is a struct of host-width vectors.
 *
 * A value has DVX_LANES = DVX_VLEN / 4 lanes whatever its type, so 64-bit types take twice the bytes. The host vectors
 * of a value are its pieces; pieces are never wider than the host's registers, since compilers keep wider ones on
 * the stack. Loops over pieces have constant bounds and vanish at -O2. Needs gcc >= 12 or clang >= 15.
 */
#ifndef DVX_TYPES_H
#define DVX_TYPES_H

#include <stdint.h>

#ifndef DVX_VLEN
#error "define DVX_VLEN: the bytes of a DVX vector register, a power of two, at least 16"
#endif

#if defined(__AVX512F__) && defined(__AVX512DQ__) && defined(__AVX512BW__) && defined(__AVX512VL__) && DVX_VLEN >= 64
#define DVX_HOST_BYTES 64
#elif defined(__AVX2__) && DVX_VLEN >= 32
#define DVX_HOST_BYTES 32
#else
#define DVX_HOST_BYTES 16
#endif

enum {
    DVX_LANES = DVX_VLEN / 4,            /* lanes of every value */
    DVX_PIECES = DVX_VLEN / DVX_HOST_BYTES,
    DVX_HOST_LANES = DVX_HOST_BYTES / 4, /* 32-bit lanes of a piece */
    DVX_PIECES_sf = DVX_PIECES,
    DVX_PIECES_w = DVX_PIECES,
    DVX_PIECES_q = DVX_PIECES,
    DVX_PIECES_df = 2 * DVX_PIECES,
    DVX_PIECES_d = 2 * DVX_PIECES,
    DVX_STEP_sf = DVX_HOST_LANES, /* lanes of one piece, by type */
    DVX_STEP_w = DVX_HOST_LANES,
    DVX_STEP_df = DVX_HOST_LANES / 2,
    DVX_STEP_d = DVX_HOST_LANES / 2
};

#define DVX_FN static inline __attribute__((always_inline, unused))

/* for i below n, a constant. gcc unrolls such loops at -O3 only, and would keep the value in memory, if not told to. */
#ifdef __clang__
#define DVX_UNROLL
#else
#define DVX_UNROLL _Pragma("GCC unroll 64")
#endif
#define DVX_FOR(i, n) DVX_UNROLL for (int i = 0; i < (n); i++)

/* for every piece i of a dvx_T. Where there is one only, it is no loop but a scope in which i is 0: clang takes as long to be rid of these
 * loops, one in every intrinsic, as for all the rest. */
#define DVX_PIECEWISE(i, T) DVX_PIECEWISE_##T(i)
#if DVX_VLEN == DVX_HOST_BYTES
#define DVX_PIECEWISE_w(i) if (sizeof(enum { i }))
#else
#define DVX_PIECEWISE_w(i) DVX_FOR(i, DVX_PIECES)
#endif
#define DVX_PIECEWISE_sf(i) DVX_PIECEWISE_w(i)
#define DVX_PIECEWISE_q(i) DVX_PIECEWISE_w(i)
#define DVX_PIECEWISE_d(i) DVX_FOR(i, 2 * DVX_PIECES)
#define DVX_PIECEWISE_df(i) DVX_PIECEWISE_d(i)

#define DVX_VECTOR(bytes) __attribute__((vector_size(bytes)))

/* Pieces. u: unsigned twin; h2: the 32-bit lanes that face one piece of a 64-bit type. */
typedef float dvx_hsf DVX_VECTOR(DVX_HOST_BYTES);
typedef double dvx_hdf DVX_VECTOR(DVX_HOST_BYTES);
typedef int32_t dvx_hw DVX_VECTOR(DVX_HOST_BYTES);
typedef int64_t dvx_hd DVX_VECTOR(DVX_HOST_BYTES);
typedef uint32_t dvx_huw DVX_VECTOR(DVX_HOST_BYTES);
typedef uint64_t dvx_hud DVX_VECTOR(DVX_HOST_BYTES);
typedef dvx_hw dvx_hq; /* a lane is 0 or -1 */
typedef float dvx_h2sf DVX_VECTOR(DVX_HOST_BYTES / 2);
typedef int32_t dvx_h2w DVX_VECTOR(DVX_HOST_BYTES / 2);

/* The DVX register types: f32, f64, int32, int64, predicate. */
typedef struct { dvx_hsf p[DVX_PIECES]; } dvx_sf;
typedef struct { dvx_hdf p[2 * DVX_PIECES]; } dvx_df;
typedef struct { dvx_hw p[DVX_PIECES]; } dvx_w;
typedef struct { dvx_hd p[2 * DVX_PIECES]; } dvx_d;
typedef struct { dvx_hq p[DVX_PIECES]; } dvx_q;

/* Memory elements (e), and the elements in memory that one piece is loaded from (m); hf and bf are kept as their bits. */
typedef float __attribute__((may_alias)) dvx_esf;
typedef double __attribute__((may_alias)) dvx_edf;
typedef int32_t __attribute__((may_alias)) dvx_ew;
typedef int64_t __attribute__((may_alias)) dvx_ed;
typedef int16_t __attribute__((may_alias)) dvx_eh;
typedef int8_t __attribute__((may_alias)) dvx_eb;
typedef uint8_t __attribute__((may_alias)) dvx_eub;
typedef uint16_t __attribute__((may_alias)) dvx_ehf;
typedef uint16_t __attribute__((may_alias)) dvx_ebf;
typedef dvx_hsf dvx_msf;
typedef dvx_hdf dvx_mdf;
typedef dvx_hw dvx_mw;
typedef dvx_hd dvx_md;
typedef int16_t dvx_mh DVX_VECTOR(DVX_HOST_BYTES / 2);
typedef int8_t dvx_mb DVX_VECTOR(DVX_HOST_BYTES / 4);
typedef uint8_t dvx_mub DVX_VECTOR(DVX_HOST_BYTES / 4);
typedef uint16_t dvx_mhf DVX_VECTOR(DVX_HOST_BYTES / 2);
typedef uint16_t dvx_mbf DVX_VECTOR(DVX_HOST_BYTES / 2);

/* LIST: F(0), F(1), ... over the lanes of a piece. EACH: the same as statements. */
#define DVX_LIST_2(F) F(0), F(1)
#define DVX_LIST_4(F) F(0), F(1), F(2), F(3)
#define DVX_LIST_8(F) DVX_LIST_4(F), F(4), F(5), F(6), F(7)
#define DVX_LIST_16(F) DVX_LIST_8(F), F(8), F(9), F(10), F(11), F(12), F(13), F(14), F(15)
#define DVX_EACH_2(F) F(0) F(1)
#define DVX_EACH_4(F) F(0) F(1) F(2) F(3)
#define DVX_EACH_8(F) DVX_EACH_4(F) F(4) F(5) F(6) F(7)
#define DVX_EACH_16(F) DVX_EACH_8(F) F(8) F(9) F(10) F(11) F(12) F(13) F(14) F(15)
#if DVX_HOST_BYTES == 64
#define DVX_LIST32 DVX_LIST_16
#define DVX_LIST64 DVX_LIST_8
#define DVX_EACH32 DVX_EACH_16
#define DVX_EACH64 DVX_EACH_8
#elif DVX_HOST_BYTES == 32
#define DVX_LIST32 DVX_LIST_8
#define DVX_LIST64 DVX_LIST_4
#define DVX_EACH32 DVX_EACH_8
#define DVX_EACH64 DVX_EACH_4
#else
#define DVX_LIST32 DVX_LIST_4
#define DVX_LIST64 DVX_LIST_2
#define DVX_EACH32 DVX_EACH_4
#define DVX_EACH64 DVX_EACH_2
#endif
#define DVX_LIST_sf DVX_LIST32
#define DVX_LIST_w DVX_LIST32
#define DVX_LIST_df DVX_LIST64
#define DVX_LIST_d DVX_LIST64
#define DVX_EACH_sf DVX_EACH32
#define DVX_EACH_w DVX_EACH32
#define DVX_EACH_df DVX_EACH64
#define DVX_EACH_d DVX_EACH64

/* Lane numbers that shuffles use. */
#define DVX_LANE(j) (j)
#define DVX_UPPER(j) ((j) + DVX_HOST_LANES / 2)
#define DVX_ZERO(j) 0

/* A piece whose lanes all hold x. */
#define DVX_SPLAT_FN(T, E, LIST) \
    DVX_FN dvx_h##T dvx_splat_##T(E x) { return (dvx_h##T){LIST}; }
#define DVX_SAME(j) x
DVX_SPLAT_FN(sf, float, DVX_LIST32(DVX_SAME))
DVX_SPLAT_FN(df, double, DVX_LIST64(DVX_SAME))
DVX_SPLAT_FN(w, int32_t, DVX_LIST32(DVX_SAME))
DVX_SPLAT_FN(d, int64_t, DVX_LIST64(DVX_SAME))

/* The sign bits of a piece. clang up to 22 may fold such a constant into a masked vpternlog and swap its operands
   (LLVM issue 157929): there it is kept from seeing that it is one. */
#if defined(__clang__) && defined(__AVX512F__)
#define DVX_OPAQUE(x) __asm__("" : "+v"(x))
#else
#define DVX_OPAQUE(x) ((void)0)
#endif
#define DVX_SIGN_FN(T, I, BIT) \
    DVX_FN dvx_h##I dvx_sign_##T(void) \
    { \
        dvx_h##I sign = dvx_splat_##I(BIT); \
        DVX_OPAQUE(sign); \
        return sign; \
    }
DVX_SIGN_FN(sf, w, INT32_MIN)
DVX_SIGN_FN(df, d, INT64_MIN)

/* Lower and upper half of a piece of 32-bit lanes, and back. */
DVX_FN dvx_h2sf dvx_lower_sf(dvx_hsf a) { return __builtin_shufflevector(a, a, DVX_LIST64(DVX_LANE)); }
DVX_FN dvx_h2sf dvx_upper_sf(dvx_hsf a) { return __builtin_shufflevector(a, a, DVX_LIST64(DVX_UPPER)); }
DVX_FN dvx_h2w dvx_lower_w(dvx_hw a) { return __builtin_shufflevector(a, a, DVX_LIST64(DVX_LANE)); }
DVX_FN dvx_h2w dvx_upper_w(dvx_hw a) { return __builtin_shufflevector(a, a, DVX_LIST64(DVX_UPPER)); }
DVX_FN dvx_hsf dvx_join_sf(dvx_h2sf a, dvx_h2sf b) { return __builtin_shufflevector(a, b, DVX_LIST32(DVX_LANE)); }
DVX_FN dvx_hw dvx_join_w(dvx_h2w a, dvx_h2w b) { return __builtin_shufflevector(a, b, DVX_LIST32(DVX_LANE)); }

/* A predicate as masks of 64-bit lanes, and back. */
DVX_FN dvx_d dvx_widen_q(dvx_q q)
{
    dvx_d r;
    DVX_PIECEWISE(i, w) {
        r.p[2 * i] = __builtin_convertvector(dvx_lower_w(q.p[i]), dvx_hd);
        r.p[2 * i + 1] = __builtin_convertvector(dvx_upper_w(q.p[i]), dvx_hd);
    }
    return r;
}

#define DVX_EVEN(j) (2 * (j))
DVX_FN dvx_q dvx_narrow_q(dvx_d m)
{
    dvx_q r;
    DVX_PIECEWISE(i, w)
        r.p[i] = __builtin_shufflevector((dvx_hw)m.p[2 * i], (dvx_hw)m.p[2 * i + 1], DVX_LIST32(DVX_EVEN));
    return r;
}

/* C's integer division, defined where C is not: x / 0 is 0, and the quotient wraps. */
DVX_FN int64_t dvx_divide(int64_t a, int64_t b)
{
    return b == 0 ? 0 : b == -1 ? (int64_t)(0 - (uint64_t)a) : a / b;
}
DVX_FN int64_t dvx_remainder(int64_t a, int64_t b) { return b == 0 || b == -1 ? 0 : a % b; }

/* -DDVX_COUNT: every intrinsic adds its register count to dvx_counters[row of the instruction table]. */
#ifdef DVX_COUNT
static int64_t *dvx_counters __attribute__((unused));
#define DVX_SET_COUNTERS(pointer) (dvx_counters = (pointer))
#define DVX_TICK(row, registers) ((void)__atomic_fetch_add(&dvx_counters[row], (registers), __ATOMIC_RELAXED))
#else
#define DVX_SET_COUNTERS(pointer) ((void)(pointer))
#define DVX_TICK(row, registers) ((void)0)
#endif

#if defined(__AVX2__) && defined(__FMA__) && defined(__F16C__) && !defined(DVX_PORTABLE)
#include "dvx_host_x86.h"
#else
#include "dvx_host_portable.h"
#endif

/* What follows from the host's functions, on every host. */
DVX_FN dvx_hd dvx_host_min_d(dvx_hd a, dvx_hd b) { return (dvx_hd)dvx_host_mux((dvx_hw)(a < b), (dvx_hw)a, (dvx_hw)b); }
DVX_FN dvx_hd dvx_host_max_d(dvx_hd a, dvx_hd b) { return (dvx_hd)dvx_host_mux((dvx_hw)(a > b), (dvx_hw)a, (dvx_hw)b); }
DVX_FN dvx_hw dvx_host_rem_w(dvx_hw a, dvx_hw b)
{
    return (dvx_hw)((dvx_huw)a - (dvx_huw)dvx_host_div_w(a, b) * (dvx_huw)b) & (b != 0);
}
#define DVX_QUOTIENT(j) dvx_divide(a[j], b[j])
#define DVX_REMAINDER(j) dvx_remainder(a[j], b[j])
DVX_FN dvx_hd dvx_host_div_d(dvx_hd a, dvx_hd b) { return (dvx_hd){DVX_LIST64(DVX_QUOTIENT)}; }
DVX_FN dvx_hd dvx_host_rem_d(dvx_hd a, dvx_hd b) { return (dvx_hd){DVX_LIST64(DVX_REMAINDER)}; }

#endif
