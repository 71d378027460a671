/* Fused multiply-add for hosts without the instruction: exact, slow, no libm. Included by dvx_host_portable.h. */
#ifndef DVX_SOFTFMA_H
#define DVX_SOFTFMA_H

#define DVX_SLOW static __attribute__((unused)) /* a call costs nothing beside what these do */

/* The product is exact in f64; the sum is rounded to odd there, which makes the last rounding the only one. */
DVX_SLOW float dvx_fma_f32(float a, float b, float c)
{
    const double product = (double)a * b, sum = product + c;
    const double back = sum - product, error = (product - (sum - back)) + (c - back);
    union { double f; int64_t i; } odd = {sum};
    if (error != 0 && error == error && sum - sum == 0 && (odd.i & 1) == 0)
        odd.i += ((error > 0) == (sum > 0)) ? 1 : -1;
    return (float)odd.f;
}

/* A finite f64 as mantissa * 2^exponent, with 53 significant bits unless it is zero. */
typedef struct { uint64_t mantissa; int exponent; int negative; } dvx_unpacked;

DVX_SLOW dvx_unpacked dvx_unpack(double x)
{
    const union { double f; uint64_t i; } bits = {x};
    const int field = (int)(bits.i >> 52) & 0x7ff;
    dvx_unpacked r = {bits.i & 0xfffffffffffffu, field - 1075, (int)(bits.i >> 63)};
    if (field != 0) {
        r.mantissa |= (uint64_t)1 << 52;
    } else if (r.mantissa != 0) {
        const int shift = __builtin_clzll(r.mantissa) - 11;
        r.mantissa <<= shift;
        r.exponent = -1074 - shift;
    }
    return r;
}

/* a >> n where a bit that falls out leaves its trace in bit 0. */
DVX_SLOW unsigned __int128 dvx_shift_sticky(unsigned __int128 a, int n)
{
    return n > 126 ? a != 0 : n <= 0 ? a : (a >> n) | ((a & (((unsigned __int128)1 << n) - 1)) != 0);
}

/* mantissa * 2^exponent, not zero, rounded to the nearest f64, ties to even. */
DVX_SLOW double dvx_pack(unsigned __int128 mantissa, int exponent, int negative)
{
    const uint64_t upper = (uint64_t)(mantissa >> 64);
    const int width = upper ? 128 - __builtin_clzll(upper) : 64 - __builtin_clzll((uint64_t)mantissa);
    const int lowest = exponent + width - 55 < -1076 ? -1076 : exponent + width - 55; /* two bits below the last place */
    const int drop = lowest - exponent;
    const uint64_t kept = drop > 0 ? (uint64_t)dvx_shift_sticky(mantissa, drop) : (uint64_t)(mantissa << -drop);
    const uint64_t rounded = (kept >> 2) + (((kept & 3) + ((kept >> 2) & 1)) > 2);
    const int biased = lowest + 1076;               /* the exponent field less one: a carry or the hidden bit adds it */
    union { uint64_t i; double f; } r;
    r.i = biased > 2046 ? (uint64_t)0x7ff << 52 : ((uint64_t)biased << 52) + rounded;
    if (r.i > (uint64_t)0x7ff << 52)
        r.i = (uint64_t)0x7ff << 52;
    r.i |= (uint64_t)negative << 63;
    return r.f;
}

DVX_SLOW double dvx_fma_f64(double a, double b, double c)
{
    if (a - a != 0 || b - b != 0 || a == 0 || b == 0)
        return a * b + c;
    if (c - c != 0)
        return c;
    const dvx_unpacked x = dvx_unpack(a), y = dvx_unpack(b), z = dvx_unpack(c);
    const int negative = x.negative ^ y.negative;
    unsigned __int128 product = (unsigned __int128)x.mantissa * y.mantissa << 3; /* below 2^109 */
    unsigned __int128 addend = (unsigned __int128)z.mantissa << 56;              /* below 2^109 */
    const int product_exponent = x.exponent + y.exponent - 3, addend_exponent = z.exponent - 56;
    if (c == 0)
        return dvx_pack(product, product_exponent, negative);
    const int exponent = product_exponent > addend_exponent ? product_exponent : addend_exponent;
    product = dvx_shift_sticky(product << 16, exponent - product_exponent); /* room for the bits that go below */
    addend = dvx_shift_sticky(addend << 16, exponent - addend_exponent);
    if (negative == z.negative)
        return dvx_pack(product + addend, exponent - 16, negative);
    if (product == addend)
        return 0;
    return product > addend ? dvx_pack(product - addend, exponent - 16, negative)
                            : dvx_pack(addend - product, exponent - 16, z.negative);
}

#endif
