//! Build script. Without the feature `cuda` it only names what the build depends on.
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
    // they are embedded by a macro that cannot see new files by itself
    println!("cargo:rerun-if-changed=migrations");
    #[cfg(feature = "cuda")]
    {
        let home = kernels::cuda_home();
        kernels::compile(&home);
        lazy::link(&home);
    }
}
