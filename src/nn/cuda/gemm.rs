//! Matrix products, by cuBLAS.

use std::ffi::c_void;

use candle_core::cuda_backend::cudarc::cublas::result::gemm_ex;
use candle_core::cuda_backend::cudarc::cublas::sys::{
    cublasComputeType_t, cublasGemmAlgo_t, cublasOperation_t, cudaDataType,
};

use super::Element;
use super::card::{Card, View, ViewMut};
use crate::nn::Error;

/// `out[m, n] = x[m, k] · weight[n, k]ᵀ`, plus what `out` holds if `accumulate`.
pub fn product<T: Element>(
    card: &Card,
    x: View<T>,
    weight: View<T>,
    out: ViewMut<T>,
    k: usize,
    accumulate: bool,
) -> Result<(), Error> {
    let (m, n) = (x.len() / k, weight.len() / k);
    assert!(x.len() == m * k && weight.len() == n * k && out.len() == m * n);
    call::<T>(card, x, weight, (out.address(), T::CUBLAS), [m, n, k], accumulate)
}

/// The same with an output of f32.
pub fn product_f32<T: Element>(
    card: &Card,
    x: View<T>,
    weight: View<T>,
    out: ViewMut<f32>,
    k: usize,
) -> Result<(), Error> {
    let (m, n) = (x.len() / k, weight.len() / k);
    assert!(x.len() == m * k && weight.len() == n * k && out.len() == m * n);
    call::<T>(card, x, weight, (out.address(), cudaDataType::CUDA_R_32F), [m, n, k], false)
}

fn call<T: Element>(
    card: &Card,
    x: View<T>,
    weight: View<T>,
    (out, out_type): (u64, cudaDataType),
    [m, n, k]: [usize; 3],
    accumulate: bool,
) -> Result<(), Error> {
    if m == 0 {
        return Ok(());
    }
    let (alpha, beta) = (1f32, if accumulate { 1f32 } else { 0f32 });
    let blas = card.device().cublas_handle();
    let size = |n: usize| i32::try_from(n).expect("sizes of a step are below 2^31");
    // cuBLAS counts by columns: outᵀ[n, m] = weight[n, k] · xᵀ[k, m]
    // SAFETY: the caller has checked that the three matrices have these sizes; alpha and beta are read now.
    let done = unsafe {
        gemm_ex(
            *blas.handle(),
            cublasOperation_t::CUBLAS_OP_T,
            cublasOperation_t::CUBLAS_OP_N,
            size(n),
            size(m),
            size(k),
            (&raw const alpha).cast(),
            weight.address() as *const c_void,
            T::CUBLAS,
            size(k),
            x.address() as *const c_void,
            T::CUBLAS,
            size(k),
            (&raw const beta).cast(),
            out as *mut c_void,
            out_type,
            size(n),
            cublasComputeType_t::CUBLAS_COMPUTE_32F,
            cublasGemmAlgo_t::CUBLAS_GEMM_DEFAULT,
        )
    };
    done.map_err(|e| Error::Device { what: format!("product {m}×{n}×{k}"), cause: format!("{e:?}") })
}
