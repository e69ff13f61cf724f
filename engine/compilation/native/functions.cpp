// What generated loops call: functions without branches, which compilers turn into those of vectors.
// Each is right to a few units of the last place, unless it says otherwise; what is not a number
// stays so.

typedef __INT64_TYPE__ int64_t;
typedef __UINT64_TYPE__ uint64_t;
typedef __INT32_TYPE__ int32_t;
typedef __INT16_TYPE__ int16_t;
typedef __INT8_TYPE__ int8_t;
typedef __UINT8_TYPE__ uint8_t;

namespace {

template <typename T>
inline T larger(T a, T b) {
  return (a > b) | (a != a) ? a : b;
}

template <typename T>
inline T smaller(T a, T b) {
  return (a < b) | (a != a) ? a : b;
}

template <typename T>
inline T absolute(T x) {
  return x < 0 ? -x : x;
}
inline float absolute(float x) { return __builtin_fabsf(x); }
inline double absolute(double x) { return __builtin_fabs(x); }

inline float root(float x) { return __builtin_sqrtf(x); }
inline double root(double x) { return __builtin_sqrt(x); }

inline float power(float x, float y) { return __builtin_powf(x, y); }
inline double power(double x, double y) { return __builtin_pow(x, y); }

inline float float_of(int32_t bits) {
  float x;
  __builtin_memcpy(&x, &bits, 4);
  return x;
}

inline int32_t bits_of(float x) {
  int32_t bits;
  __builtin_memcpy(&bits, &x, 4);
  return bits;
}

// e^x = 2^n e^r with |r| <= log(2) / 2, and a polynomial for e^r - 1 (Cephes, `expf`).
struct Power {
  float n, above_1, value;
};

inline Power power_of_e(float x) {
  float y = x < -104.0f ? -104.0f : x;
  y = y > 88.73f ? 88.73f : y;
  const float n = __builtin_rintf(y * 1.44269504088896341f);
  const float r = (y - n * 0.693359375f) - n * -2.12194440e-4f;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r;
  const int32_t power_of_2 = (int32_t)n;
  const int32_t half = power_of_2 >> 1;  // neither 2^128 nor 2^-150 is a float, but their halves
  const float scaled =
      (p + 1.0f) * float_of((half + 127) << 23) * float_of((power_of_2 - half + 127) << 23);
  return {n, p, x > 88.7228394f ? __builtin_inff() : scaled};
}

inline float exponential(float x) { return power_of_e(x).value; }
inline double exponential(double x) { return __builtin_exp(x); }

// Near 0 without loss.
inline float exponential_minus_1(float x) {
  const Power power = power_of_e(x);
  return power.n == 0.0f ? power.above_1 : power.value - 1.0f;
}
inline double exponential_minus_1(double x) { return __builtin_expm1(x); }

// x = 2^e m with sqrt(1/2) <= m < sqrt(2), and a polynomial for log(m) (Cephes, `logf`).
inline float logarithm(float x) {
  const bool is_tiny = x < 1.17549435e-38f;
  const float scaled = is_tiny ? x * 8388608.0f : x;
  const int32_t bits = bits_of(scaled);
  int32_t exponent = ((bits >> 23) & 255) - 126 - (is_tiny ? 23 : 0);
  float m = float_of((bits & 0x007fffff) | 0x3f000000);
  const bool is_small = m < 0.707106781186547524f;
  exponent = is_small ? exponent - 1 : exponent;
  m = (is_small ? m + m : m) - 1.0f;
  const float e = (float)exponent, z = m * m;
  float p = 7.0376836292e-2f;
  p = p * m + -1.1514610310e-1f;
  p = p * m + 1.1676998740e-1f;
  p = p * m + -1.2420140846e-1f;
  p = p * m + 1.4249322787e-1f;
  p = p * m + -1.6668057665e-1f;
  p = p * m + 2.0000714765e-1f;
  p = p * m + -2.4999993993e-1f;
  p = p * m + 3.3333331174e-1f;
  p = p * m * z + e * -2.12194440e-4f - 0.5f * z;
  float y = m + p + e * 0.693359375f;
  y = x == __builtin_inff() ? x : y;
  y = x == 0.0f ? -__builtin_inff() : y;
  return (x < 0.0f) | (x != x) ? __builtin_nanf("") : y;
}
inline double logarithm(double x) { return __builtin_log(x); }

// Of what 1 + x has lost of x, the first order is put back.
inline float log_of_1_and(float x) {
  const float u = 1.0f + x, y = logarithm(u);
  return (u <= 0.0f) | (u == __builtin_inff()) ? y : y - ((u - 1.0f) - x) / u;
}
inline double log_of_1_and(double x) { return __builtin_log1p(x); }

// The approximation of `product.cpp`.
inline float hyperbolic_tangent(float x) {
  const float limit = 7.90531110763549805f;
  float y = x > limit ? limit : x;
  y = y < -limit ? -limit : y;
  const float s = y * y;
  float p = s * -2.76076847742355e-16f + 2.00018790482477e-13f;
  p = p * s + -8.60467152213735e-11f;
  p = p * s + 5.12229709037114e-08f;
  p = p * s + 1.48572235717979e-05f;
  p = p * s + 6.37261928875436e-04f;
  p = p * s + 4.89352455891786e-03f;
  float q = s * 1.19825839466702e-06f + 1.18534705686654e-04f;
  q = q * s + 2.26843463243900e-03f;
  q = q * s + 4.89352518554385e-03f;
  const float most = x > limit ? 1.0f : y * p / q;
  return x < -limit ? -1.0f : most;
}
inline double hyperbolic_tangent(double x) { return __builtin_tanh(x); }

// Abramowitz and Stegun, 7.1.26: right to 1.5e-7.
inline float error_function(float x) {
  const float z = __builtin_fabsf(x), t = 1.0f / (1.0f + 0.3275911f * z);
  float p = 1.061405429f;
  p = p * t + -1.453152027f;
  p = p * t + 1.421413741f;
  p = p * t + -0.284496736f;
  p = p * t + 0.254829592f;
  const float y = 1.0f - p * t * exponential(-z * z);
  return x < 0.0f ? -y : y;
}
inline double error_function(double x) { return __builtin_erf(x); }

inline float sine(float x) { return __builtin_sinf(x); }
inline double sine(double x) { return __builtin_sin(x); }
inline float cosine(float x) { return __builtin_cosf(x); }
inline double cosine(double x) { return __builtin_cos(x); }

}  // namespace
