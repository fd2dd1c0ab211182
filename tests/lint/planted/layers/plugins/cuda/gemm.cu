// gemm.cu -- device code is checked as well.
#include <cuda_runtime.h>
#include "base/error.h" // breach
