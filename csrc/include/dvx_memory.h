/* The shapes of DVX loads and stores. M: memory element type; R: register type of its values.
 *
 * Pointers need only the alignment of the element. Lanes whose predicate is off are never touched in memory.
 */
#ifndef DVX_MEMORY_H
#define DVX_MEMORY_H

#define DVX_LOAD(ROW, REGS, NAME, M, R) \
    DVX_FN dvx_##R dvx_##NAME(const dvx_e##M *p) \
    { \
        typedef dvx_m##M unaligned __attribute__((aligned(sizeof(dvx_e##M)), may_alias)); \
        dvx_##R r; \
        DVX_TICK(ROW, REGS); \
        DVX_PIECEWISE(i, R) \
            r.p[i] = dvx_up_##M(*(const unaligned *)(p + i * DVX_STEP_##R)); \
        return r; \
    }
#define DVX_STORE(ROW, REGS, NAME, M, R) \
    DVX_FN void dvx_##NAME(dvx_e##M *p, dvx_##R v) \
    { \
        typedef dvx_m##M unaligned __attribute__((aligned(sizeof(dvx_e##M)), may_alias)); \
        DVX_TICK(ROW, REGS); \
        DVX_PIECEWISE(i, R) \
            *(unaligned *)(p + i * DVX_STEP_##R) = dvx_down_##M(v.p[i]); \
    }

/* One element to all lanes; lane 0 to one element. */
#define DVX_LOAD_SPLAT(ROW, REGS, NAME, M, R) \
    DVX_FN dvx_##R dvx_##NAME(const dvx_e##M *p) \
    { \
        const dvx_e##M x = *p; \
        const dvx_h##R v = dvx_up_##M((dvx_m##M){DVX_LIST_##R(DVX_SAME)}); \
        dvx_##R r; \
        DVX_TICK(ROW, REGS); \
        DVX_PIECEWISE(i, R) \
            r.p[i] = v; \
        return r; \
    }
#define DVX_STORE_FIRST(ROW, REGS, NAME, M, R) \
    DVX_FN void dvx_##NAME(dvx_e##M *p, dvx_##R v) { DVX_TICK(ROW, REGS); *p = dvx_down_##M(v.p[0])[0]; }

/* Masked, elements as wide as the lanes: T is M and R, HOST is w or d. */
#define DVX_MASKS_sf(q) (q)
#define DVX_MASKS_w(q) (q)
#define DVX_MASKS_df(q) dvx_widen_q(q)
#define DVX_MASKS_d(q) dvx_widen_q(q)
#define DVX_LOAD_MASKED(ROW, REGS, NAME, T, HOST) \
    DVX_FN dvx_##T dvx_##NAME(dvx_q q, const dvx_e##T *p) \
    { \
        const __typeof__(DVX_MASKS_##T(q)) m = DVX_MASKS_##T(q); \
        dvx_##T r; \
        DVX_TICK(ROW, REGS); \
        DVX_PIECEWISE(i, T) \
            r.p[i] = (dvx_h##T)dvx_host_load_##HOST((const dvx_e##HOST *)(p + i * DVX_STEP_##T), m.p[i]); \
        return r; \
    }
#define DVX_STORE_MASKED(ROW, REGS, NAME, T, HOST) \
    DVX_FN void dvx_##NAME(dvx_q q, dvx_e##T *p, dvx_##T v) \
    { \
        const __typeof__(DVX_MASKS_##T(q)) m = DVX_MASKS_##T(q); \
        DVX_TICK(ROW, REGS); \
        DVX_PIECEWISE(i, T) \
            dvx_host_store_##HOST((dvx_e##HOST *)(p + i * DVX_STEP_##T), m.p[i], (dvx_h##HOST)v.p[i]); \
    }

/* Lane j of a piece in memory, for the shapes below. A lane that is off reads our zero, which needs no branch.
   The offsets of piece i are a piece, or two where the lanes are narrower than offsets. */
#define DVX_AT_STRIDE(j) row[(j) * stride]
#define DVX_AT_STRIDE_IF(j) *(m.p[i][j] ? row + (j) * stride : &zero)
#define DVX_TO_STRIDE(j) row[(j) * stride] = x[j];
#define DVX_TO_STRIDE_IF(j) if (m.p[i][j]) row[(j) * stride] = x[j];
#define DVX_OFFSETS(R) (offsets.p + i * (2 * DVX_PIECES / DVX_PIECES_##R))
#define DVX_OFFSET(j) at[(j) / (DVX_HOST_LANES / 2)][(j) % (DVX_HOST_LANES / 2)]
#define DVX_AT_OFFSET_IF(j) *(m.p[i][j] ? p + DVX_OFFSET(j) : &zero)
#define DVX_TO_OFFSET_IF(j) if (m.p[i][j]) p[DVX_OFFSET(j)] = x[j];

#define DVX_LOAD_STRIDED(ROW, REGS, NAME, M, R) \
    DVX_FN dvx_##R dvx_##NAME(const dvx_e##M *p, int64_t stride) \
    { \
        dvx_##R r; \
        DVX_TICK(ROW, REGS); \
        DVX_PIECEWISE(i, R) { \
            const dvx_e##M *row = p + i * DVX_STEP_##R * stride; \
            r.p[i] = dvx_up_##M((dvx_m##M){DVX_LIST_##R(DVX_AT_STRIDE)}); \
        } \
        return r; \
    }
#define DVX_LOAD_ELEMENTS_MASKED(ROW, REGS, NAME, M, R, PARAMETERS, STRIDE) \
    DVX_FN dvx_##R dvx_##NAME PARAMETERS \
    { \
        static const dvx_e##M zero = 0; \
        const __typeof__(DVX_MASKS_##R(q)) m = DVX_MASKS_##R(q); \
        const int64_t stride = STRIDE; \
        dvx_##R r; \
        DVX_TICK(ROW, REGS); \
        DVX_PIECEWISE(i, R) { \
            const dvx_e##M *row = p + i * DVX_STEP_##R * stride; \
            r.p[i] = dvx_up_##M((dvx_m##M){DVX_LIST_##R(DVX_AT_STRIDE_IF)}); \
        } \
        return r; \
    }
#define DVX_LOAD_STRIDED_MASKED(ROW, REGS, NAME, M, R) \
    DVX_LOAD_ELEMENTS_MASKED(ROW, REGS, NAME, M, R, (dvx_q q, const dvx_e##M *p, int64_t step), step)
#define DVX_LOAD_NARROW_MASKED(ROW, REGS, NAME, M, R) \
    DVX_LOAD_ELEMENTS_MASKED(ROW, REGS, NAME, M, R, (dvx_q q, const dvx_e##M *p), 1)
#define DVX_GATHER(ROW, REGS, NAME, M, R) \
    DVX_FN dvx_##R dvx_##NAME(dvx_q q, const dvx_e##M *p, dvx_d offsets) \
    { \
        static const dvx_e##M zero = 0; \
        const __typeof__(DVX_MASKS_##R(q)) m = DVX_MASKS_##R(q); \
        dvx_##R r; \
        DVX_TICK(ROW, REGS); \
        DVX_PIECEWISE(i, R) { \
            const dvx_hd *at = DVX_OFFSETS(R); \
            r.p[i] = dvx_up_##M((dvx_m##M){DVX_LIST_##R(DVX_AT_OFFSET_IF)}); \
        } \
        return r; \
    }

#define DVX_STORE_STRIDED(ROW, REGS, NAME, M, R) \
    DVX_FN void dvx_##NAME(dvx_e##M *p, int64_t stride, dvx_##R v) \
    { \
        DVX_TICK(ROW, REGS); \
        DVX_PIECEWISE(i, R) { \
            dvx_e##M *row = p + i * DVX_STEP_##R * stride; \
            const dvx_m##M x = dvx_down_##M(v.p[i]); \
            DVX_EACH_##R(DVX_TO_STRIDE) \
        } \
    }
#define DVX_STORE_ELEMENTS_MASKED(ROW, REGS, NAME, M, R, PARAMETERS, STRIDE) \
    DVX_FN void dvx_##NAME PARAMETERS \
    { \
        const __typeof__(DVX_MASKS_##R(q)) m = DVX_MASKS_##R(q); \
        const int64_t stride = STRIDE; \
        DVX_TICK(ROW, REGS); \
        DVX_PIECEWISE(i, R) { \
            dvx_e##M *row = p + i * DVX_STEP_##R * stride; \
            const dvx_m##M x = dvx_down_##M(v.p[i]); \
            DVX_EACH_##R(DVX_TO_STRIDE_IF) \
        } \
    }
#define DVX_STORE_STRIDED_MASKED(ROW, REGS, NAME, M, R) \
    DVX_STORE_ELEMENTS_MASKED(ROW, REGS, NAME, M, R, (dvx_q q, dvx_e##M *p, int64_t step, dvx_##R v), step)
#define DVX_STORE_NARROW_MASKED(ROW, REGS, NAME, M, R) \
    DVX_STORE_ELEMENTS_MASKED(ROW, REGS, NAME, M, R, (dvx_q q, dvx_e##M *p, dvx_##R v), 1)
#define DVX_SCATTER(ROW, REGS, NAME, M, R) \
    DVX_FN void dvx_##NAME(dvx_q q, dvx_e##M *p, dvx_d offsets, dvx_##R v) \
    { \
        const __typeof__(DVX_MASKS_##R(q)) m = DVX_MASKS_##R(q); \
        DVX_TICK(ROW, REGS); \
        DVX_PIECEWISE(i, R) { \
            const dvx_hd *at = DVX_OFFSETS(R); \
            const dvx_m##M x = dvx_down_##M(v.p[i]); \
            DVX_EACH_##R(DVX_TO_OFFSET_IF) \
        } \
    }

/* A memory element plus a lane, as a memory element. */
#define DVX_PLUS_sf(e, lane) ((e) + (lane))
#define DVX_PLUS_df(e, lane) ((e) + (lane))
#define DVX_PLUS_w(e, lane) ((dvx_ew)((uint32_t)(e) + (uint32_t)(lane)))
#define DVX_PLUS_d(e, lane) ((dvx_ed)((uint64_t)(e) + (uint64_t)(lane)))
#define DVX_PLUS_h(e, lane) ((dvx_eh)((uint32_t)(e) + (uint32_t)(lane)))
#define DVX_PLUS_b(e, lane) ((dvx_eb)((uint32_t)(e) + (uint32_t)(lane)))
#define DVX_PLUS_ub(e, lane) ((dvx_eub)((uint32_t)(e) + (uint32_t)(lane)))
#define DVX_PLUS_hf(e, lane) (dvx_down_hf(dvx_up_hf((dvx_mhf){e}) + (lane))[0])
#define DVX_PLUS_bf(e, lane) (dvx_down_bf(dvx_up_bf((dvx_mbf){e}) + (lane))[0])
#define DVX_SCATTER_ADD(ROW, REGS, NAME, M, R) \
    DVX_FN void dvx_##NAME(dvx_q q, dvx_e##M *p, dvx_d offsets, dvx_##R v) \
    { \
        const __typeof__(DVX_MASKS_##R(q)) m = DVX_MASKS_##R(q); \
        DVX_TICK(ROW, REGS); \
        DVX_PIECEWISE(i, R) { \
            const dvx_hd *at = DVX_OFFSETS(R); \
            DVX_FOR(j, DVX_STEP_##R) \
                if (m.p[i][j]) \
                    p[DVX_OFFSET(j)] = DVX_PLUS_##M(p[DVX_OFFSET(j)], v.p[i][j]); \
        } \
    }

#endif
