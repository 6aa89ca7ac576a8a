/* The four CBLAS calls that MinkowskiEngine 0.5.4 makes, expressed through the Fortran BLAS that torch's own
 * libtorch_cpu.so exports. With this header no BLAS package has to be installed, and the engine multiplies with the
 * same library as torch does. MinkowskiEngine includes it inside extern "C" { }, so it must stay plain C.
 */
#pragma once

enum CBLAS_ORDER { CblasRowMajor = 101, CblasColMajor = 102 };
enum CBLAS_TRANSPOSE { CblasNoTrans = 111, CblasTrans = 112, CblasConjTrans = 113 };
typedef enum CBLAS_ORDER CBLAS_ORDER;
typedef enum CBLAS_TRANSPOSE CBLAS_TRANSPOSE;

/* gemm: C = alpha op(A) op(B) + beta C. Fortran is column-major; a row-major C is the column-major transpose, and
 * (A B)' = B' A', so the row-major case swaps the two factors and the two output sizes. */
#define DITR_DEFINE_GEMM(CBLAS_NAME, FORTRAN_NAME, Real)                                                              \
  void FORTRAN_NAME(const char *, const char *, const int *, const int *, const int *, const Real *, const Real *,    \
                    const int *, const Real *, const int *, const Real *, Real *, const int *);                       \
  static inline void CBLAS_NAME(CBLAS_ORDER order, CBLAS_TRANSPOSE op_a, CBLAS_TRANSPOSE op_b, int m, int n, int k,   \
                                Real alpha, const Real *a, int lda, const Real *b, int ldb, Real beta, Real *c,       \
                                int ldc) {                                                                            \
    const char letter_a = op_a == CblasNoTrans ? 'N' : 'T';                                                           \
    const char letter_b = op_b == CblasNoTrans ? 'N' : 'T';                                                           \
    if (order == CblasColMajor)                                                                                       \
      FORTRAN_NAME(&letter_a, &letter_b, &m, &n, &k, &alpha, a, &lda, b, &ldb, &beta, c, &ldc);                       \
    else                                                                                                              \
      FORTRAN_NAME(&letter_b, &letter_a, &n, &m, &k, &alpha, b, &ldb, a, &lda, &beta, c, &ldc);                       \
  }

/* axpy: y = alpha x + y. */
#define DITR_DEFINE_AXPY(CBLAS_NAME, FORTRAN_NAME, Real)                                                              \
  void FORTRAN_NAME(const int *, const Real *, const Real *, const int *, Real *, const int *);                       \
  static inline void CBLAS_NAME(int n, Real alpha, const Real *x, int step_x, Real *y, int step_y) {                  \
    FORTRAN_NAME(&n, &alpha, x, &step_x, y, &step_y);                                                                 \
  }

DITR_DEFINE_GEMM(cblas_sgemm, sgemm_, float)
DITR_DEFINE_GEMM(cblas_dgemm, dgemm_, double)
DITR_DEFINE_AXPY(cblas_saxpy, saxpy_, float)
DITR_DEFINE_AXPY(cblas_daxpy, daxpy_, double)

#undef DITR_DEFINE_GEMM
#undef DITR_DEFINE_AXPY
