//! Build script. Without the feature `cuda` it does nothing.
//!
//! With it: [`kernels`] compiles `src/kernels/*.cu`, and [`lazy`] stands in for the CUDA libraries, so that one
//! binary starts with and without a driver.

// cargo speaks to build scripts through the environment
#![allow(clippy::disallowed_methods)]

#[cfg(feature = "cuda")]
mod kernels;
#[cfg(feature = "cuda")]
mod lazy;

fn main() {
    println!("cargo:rerun-if-changed=build");
    #[cfg(feature = "cuda")]
    {
        let home = kernels::cuda_home();
        kernels::compile(&home);
        lazy::link(&home);
    }
}
