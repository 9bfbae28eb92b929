//! `src/kernels/*.cu` to machine code of Hopper cards, one cubin a file, and a table of them for `include!`.

use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::{env, fmt::Write, fs};

/// The chip that the kernels are written for: `wgmma` and friends exist with the `a` alone.
const ARCH: &str = "90a";
const DIR: &str = "src/kernels";

/// Where the toolkit lies; `build/cuda.sh` lays one out.
pub fn cuda_home() -> PathBuf {
    println!("cargo:rerun-if-env-changed=CUDA_HOME");
    let home = env::var_os("CUDA_HOME").map(PathBuf::from).unwrap_or_else(|| "/usr/local/cuda".into());
    let nvcc = home.join("bin/nvcc");
    assert!(
        nvcc.is_file(),
        "{} is not there: run build/cuda.sh and source the env.sh it names",
        nvcc.display()
    );
    home
}

/// Compiles all files side by side, and writes `kernels.rs` into the output directory.
pub fn compile(home: &Path) {
    println!("cargo:rerun-if-changed={DIR}");
    let out = PathBuf::from(env::var("OUT_DIR").expect("cargo sets OUT_DIR"));
    let mut sources: Vec<PathBuf> = fs::read_dir(DIR)
        .expect("src/kernels")
        .map(|entry| entry.expect("an entry of src/kernels").path())
        .filter(|path| path.extension().is_some_and(|e| e == "cu"))
        .collect();
    sources.sort();
    let mut table = String::from("/// Name and machine code of each file of kernels.\n");
    table.push_str("pub const MODULES: &[(&str, &[u8])] = &[\n");
    let mut running: Vec<(PathBuf, Child)> = Vec::new();
    let side_by_side = env::var("NUM_JOBS").ok().and_then(|n| n.parse().ok()).unwrap_or(2);
    for source in sources {
        let name = source.file_stem().and_then(|s| s.to_str()).expect("a plain file name").to_string();
        let cubin = out.join(format!("{name}.cubin"));
        writeln!(table, "    ({name:?}, include_bytes!({:?})),", cubin.display().to_string())
            .expect("a string");
        if running.len() >= side_by_side {
            wait(running.remove(0));
        }
        let child = Command::new(home.join("bin/nvcc"))
            .args(["-cubin", "-std=c++17", "-O3", "--use_fast_math", "-Werror=all-warnings"])
            .arg(format!("-gencode=arch=compute_{ARCH},code=sm_{ARCH}"))
            .arg(&source)
            .arg("-o")
            .arg(&cubin)
            .spawn()
            .expect("nvcc starts");
        running.push((source, child));
    }
    running.into_iter().for_each(wait);
    table.push_str("];\n");
    fs::write(out.join("kernels.rs"), table).expect("the output directory can be written");
}

fn wait((source, mut child): (PathBuf, Child)) {
    let status = child.wait().expect("nvcc ends");
    assert!(status.success(), "nvcc failed for {}", source.display());
}
