/* The shapes of DVX intrinsics: dvx.h stamps each instruction from one of these and the C of one lane.
 *
 * In a lane expression a, b, c are host vectors (GCC's vector extension lets one expression serve lane and vector).
 * ROW is the instruction's row in the table, REGS the register operations that it counts as.
 */
#ifndef DVX_STAMP_H
#define DVX_STAMP_H

#include "dvx_perm.h"

/* Lane by lane, operands and result of the same lane width. */
#define DVX_MAP1(ROW, REGS, NAME, R, A, EXPR) \
    DVX_FN dvx_##R dvx_##NAME(dvx_##A x) \
    { \
        dvx_##R r; \
        DVX_TICK(ROW, REGS); \
        DVX_PIECEWISE(i, R) { \
            const dvx_h##A a = x.p[i]; \
            r.p[i] = (dvx_h##R)(EXPR); \
        } \
        return r; \
    }
#define DVX_MAP2(ROW, REGS, NAME, R, A, B, EXPR) \
    DVX_FN dvx_##R dvx_##NAME(dvx_##A x, dvx_##B y) \
    { \
        dvx_##R r; \
        DVX_TICK(ROW, REGS); \
        DVX_PIECEWISE(i, R) { \
            const dvx_h##A a = x.p[i]; \
            const dvx_h##B b = y.p[i]; \
            r.p[i] = (dvx_h##R)(EXPR); \
        } \
        return r; \
    }
#define DVX_MAP3(ROW, REGS, NAME, R, A, B, C, EXPR) \
    DVX_FN dvx_##R dvx_##NAME(dvx_##A x, dvx_##B y, dvx_##C z) \
    { \
        dvx_##R r; \
        DVX_TICK(ROW, REGS); \
        DVX_PIECEWISE(i, R) { \
            const dvx_h##A a = x.p[i]; \
            const dvx_h##B b = y.p[i]; \
            const dvx_h##C c = z.p[i]; \
            r.p[i] = (dvx_h##R)(EXPR); \
        } \
        return r; \
    }

/* Compare 64-bit lanes: masks of 64 bits, narrowed to a predicate. */
#define DVX_COMPARE64(ROW, REGS, NAME, A, EXPR) \
    DVX_FN dvx_q dvx_##NAME(dvx_##A x, dvx_##A y) \
    { \
        dvx_d r; \
        DVX_TICK(ROW, REGS); \
        DVX_PIECEWISE(i, d) { \
            const dvx_h##A a = x.p[i], b = y.p[i]; \
            r.p[i] = (dvx_hd)(EXPR); \
        } \
        return dvx_narrow_q(r); \
    }

/* Choose lanes by a predicate. */
#define DVX_MUX32(ROW, REGS, NAME, T) \
    DVX_FN dvx_##T dvx_##NAME(dvx_q q, dvx_##T a, dvx_##T b) \
    { \
        dvx_##T r; \
        DVX_TICK(ROW, REGS); \
        DVX_PIECEWISE(i, w) \
            r.p[i] = (dvx_h##T)dvx_host_mux(q.p[i], (dvx_hw)a.p[i], (dvx_hw)b.p[i]); \
        return r; \
    }
#define DVX_MUX64(ROW, REGS, NAME, T) \
    DVX_FN dvx_##T dvx_##NAME(dvx_q q, dvx_##T a, dvx_##T b) \
    { \
        const dvx_d m = dvx_widen_q(q); \
        dvx_##T r; \
        DVX_TICK(ROW, REGS); \
        DVX_PIECEWISE(i, d) \
            r.p[i] = (dvx_h##T)dvx_host_mux((dvx_hw)m.p[i], (dvx_hw)a.p[i], (dvx_hw)b.p[i]); \
        return r; \
    }

/* Convert 32-bit lanes to 64-bit ones; a is half a piece. */
#define DVX_WIDEN(ROW, REGS, NAME, R, A, EXPR) \
    DVX_FN dvx_##R dvx_##NAME(dvx_##A x) \
    { \
        dvx_##R r; \
        DVX_TICK(ROW, REGS); \
        DVX_PIECEWISE(i, d) { \
            const dvx_h2##A a = i % 2 ? dvx_upper_##A(x.p[i / 2]) : dvx_lower_##A(x.p[i / 2]); \
            r.p[i] = EXPR; \
        } \
        return r; \
    }

/* Convert 64-bit lanes to 32-bit ones; the expression is half a piece. */
#define DVX_NARROW(ROW, REGS, NAME, R, A, EXPR) \
    DVX_FN dvx_##R dvx_##NAME(dvx_##A x) \
    { \
        dvx_##R r; \
        DVX_TICK(ROW, REGS); \
        DVX_PIECEWISE(i, w) { \
            dvx_h2##R half[2]; \
            DVX_FOR(h, 2) { \
                const dvx_h##A a = x.p[2 * i + h]; \
                half[h] = EXPR; \
            } \
            r.p[i] = dvx_join_##R(half[0], half[1]); \
        } \
        return r; \
    }

/* The same bits as another type. */
#define DVX_BITS(NAME, R, A) \
    DVX_FN dvx_##R dvx_##NAME(dvx_##A x) \
    { \
        dvx_##R r; \
        DVX_PIECEWISE(i, R) \
            r.p[i] = (dvx_h##R)x.p[i]; \
        return r; \
    }

/* No operand but scalars; i is the piece. */
#define DVX_MAKE(ROW, REGS, NAME, R, PARAMETERS, EXPR) \
    DVX_FN dvx_##R dvx_##NAME(PARAMETERS) \
    { \
        dvx_##R r; \
        DVX_TICK(ROW, REGS); \
        DVX_PIECEWISE(i, R) \
            r.p[i] = (dvx_h##R)(EXPR); \
        return r; \
    }

/* All lanes to one, by halves: lane i with lane i + n/2, and so on; every lane of the result holds it. Pieces first, the
   last one first: piece i goes onto the piece that its highest bit leaves. */
#define DVX_REDUCE(ROW, REGS, NAME, T, EXPR) \
    DVX_FN dvx_h##T dvx_##NAME##_step(dvx_h##T a, dvx_h##T b) { return (dvx_h##T)(EXPR); } \
    DVX_FN dvx_##T dvx_##NAME(dvx_##T x) \
    { \
        DVX_TICK(ROW, REGS); \
        DVX_FOR(k, DVX_PIECES_##T - 1) { \
            const int i = DVX_PIECES_##T - 1 - k, onto = i - (1 << (31 - __builtin_clz(i))); \
            x.p[onto] = dvx_##NAME##_step(x.p[onto], x.p[i]); \
        } \
        dvx_h##T v = x.p[0]; \
        DVX_REDUCE_##T(dvx_##NAME##_step) \
        DVX_PIECEWISE(i, T) \
            x.p[i] = __builtin_shufflevector(v, v, DVX_LIST_##T(DVX_ZERO)); \
        return x; \
    }
#if DVX_HOST_BYTES == 64
#define DVX_REDUCE32(STEP) v = STEP(v, DVX_SWAP(v, 8, DVX_LIST32)); DVX_REDUCE32_8(STEP)
#define DVX_REDUCE64(STEP) v = STEP(v, DVX_SWAP(v, 4, DVX_LIST64)); DVX_REDUCE64_4(STEP)
#elif DVX_HOST_BYTES == 32
#define DVX_REDUCE32(STEP) DVX_REDUCE32_8(STEP)
#define DVX_REDUCE64(STEP) DVX_REDUCE64_4(STEP)
#else
#define DVX_REDUCE32(STEP) DVX_REDUCE32_4(STEP)
#define DVX_REDUCE64(STEP) DVX_REDUCE64_2(STEP)
#endif
#define DVX_REDUCE32_8(STEP) v = STEP(v, DVX_SWAP(v, 4, DVX_LIST32)); DVX_REDUCE32_4(STEP)
#define DVX_REDUCE32_4(STEP) v = STEP(v, DVX_SWAP(v, 2, DVX_LIST32)); v = STEP(v, DVX_SWAP(v, 1, DVX_LIST32));
#define DVX_REDUCE64_4(STEP) v = STEP(v, DVX_SWAP(v, 2, DVX_LIST64)); DVX_REDUCE64_2(STEP)
#define DVX_REDUCE64_2(STEP) v = STEP(v, DVX_SWAP(v, 1, DVX_LIST64));
#define DVX_REDUCE_sf DVX_REDUCE32
#define DVX_REDUCE_w DVX_REDUCE32
#define DVX_REDUCE_df DVX_REDUCE64
#define DVX_REDUCE_d DVX_REDUCE64

/* Whether some lane is set, whether all are. */
DVX_FN int32_t dvx_any(dvx_q q)
{
    DVX_UNROLL for (int i = 1; i < DVX_PIECES; i++)
        q.p[0] |= q.p[i];
    return dvx_host_any(q.p[0]);
}
DVX_FN int32_t dvx_all(dvx_q q)
{
    DVX_UNROLL for (int i = 1; i < DVX_PIECES; i++)
        q.p[0] &= q.p[i];
    return dvx_host_all(q.p[0]);
}
#define DVX_TEST(ROW, REGS, NAME) \
    DVX_FN int32_t dvx_##NAME(dvx_q q) { DVX_TICK(ROW, REGS); return dvx_any(q); }
#define DVX_TRAP(ROW, REGS, NAME) \
    DVX_FN void dvx_##NAME(dvx_q q, int32_t *status, int32_t code) \
    { \
        DVX_TICK(ROW, REGS); \
        if (dvx_any(q)) \
            *status = code; \
    }
#define DVX_REDUCE_Q(ROW, REGS, NAME, TEST) \
    DVX_FN dvx_q dvx_##NAME(dvx_q q) \
    { \
        const dvx_hw all = dvx_splat_w(-TEST(q)); \
        DVX_TICK(ROW, REGS); \
        DVX_PIECEWISE(i, w) \
            q.p[i] = all; \
        return q; \
    }

#include "dvx_memory.h"

#endif
