//! Stand-ins for the CUDA libraries that cudarc has the linker look for.
//!
//! Of each library a static archive of its name: one trampoline per function, which opens the real library at
//! its first call and jumps on. Where the library or the function is missing, the call returns an error status,
//! and the program goes on without a card. x86-64 only.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::{env, fs};

struct Library {
    name: &'static str,
    /// What its functions return where it is missing.
    status: i32,
    /// Names to open, best first.
    files: &'static [&'static str],
}

const LIBRARIES: &[Library] = &[
    // CUDA_ERROR_NO_DEVICE
    Library { name: "cuda", status: 100, files: &["libcuda.so.1", "libcuda.so"] },
    // …_STATUS_NOT_INITIALIZED
    Library { name: "cublas", status: 1, files: &["libcublas.so.13", "libcublas.so.12"] },
    Library { name: "cublasLt", status: 1, files: &["libcublasLt.so.13", "libcublasLt.so.12"] },
    // CURAND_STATUS_INITIALIZATION_FAILED
    Library { name: "curand", status: 203, files: &["libcurand.so.10"] },
    // NVRTC_ERROR_BUILTIN_OPERATION_FAILURE
    Library { name: "nvrtc", status: 7, files: &["libnvrtc.so.13", "libnvrtc.so.12"] },
];

/// Builds the archives and puts them in the linker's way.
pub fn link(home: &Path) {
    let arch = env::var("CARGO_CFG_TARGET_ARCH").expect("cargo sets the target");
    assert_eq!(arch, "x86_64", "the trampolines are written for x86-64");
    let out = PathBuf::from(env::var("OUT_DIR").expect("cargo sets OUT_DIR"));
    for library in LIBRARIES {
        archive(library, &out);
    }
    println!("cargo:rustc-link-search=native={}", out.display());
    // candle-kernels asks for the runtime; the static one itself opens the driver's library when first used
    let places =
        ["lib64", "lib", "targets/x86_64-linux/lib"].map(|dir| home.join(dir).join("libcudart_static.a"));
    let runtime = places.iter().find(|path| path.is_file()).expect("libcudart_static.a under CUDA_HOME");
    fs::copy(runtime, out.join("libcudart.a")).expect("the output directory can be written");
}

fn archive(library: &Library, out: &Path) {
    let Library { name, status, files } = library;
    let symbols = fs::read_to_string(format!("build/symbols/{name}.txt")).expect("a list of symbols");
    let files: Vec<String> = files.iter().map(|file| format!("{file:?}")).collect();
    let finder = format!(
        "#define LAZY(x) lazy_{name}_##x\n#define LAZY_STATUS {status}\n#define LAZY_NAMES {}\n#include \"lazy.h\"\n",
        files.join(",")
    );
    let c = out.join(format!("{name}_lazy.c"));
    fs::write(&c, finder).expect("the output directory can be written");
    let s = out.join(format!("{name}_trampolines.s"));
    fs::write(&s, trampolines(name, symbols.lines().filter(|line| !line.is_empty())))
        .expect("the output directory can be written");
    cc::Build::new().cargo_metadata(false).include("build").file(&c).file(&s).opt_level(2).compile(name);
}

/// Per symbol: jump to what was found, or find it with all argument registers kept.
fn trampolines<'a>(name: &str, symbols: impl Iterator<Item = &'a str>) -> String {
    const SAVED: [&str; 8] = ["rdi", "rsi", "rdx", "rcx", "r8", "r9", "rax", "r10"];
    let mut s =
        format!("  .text\n  .hidden lazy_{name}_find\nlazy_{name}_slow:\n  pushq %rbp\n  movq %rsp,%rbp\n");
    let mut line = |text: String| {
        s.push_str(&text);
        s.push('\n');
    };
    // r11: the descriptor { function, name }
    SAVED.iter().for_each(|register| line(format!("  pushq %{register}")));
    line("  subq $128,%rsp".into());
    (0..8).for_each(|i| line(format!("  movups %xmm{i},{}(%rsp)", i * 16)));
    line(format!("  movq %r11,%rdi\n  call lazy_{name}_find\n  movq %rax,%r11"));
    (0..8).for_each(|i| line(format!("  movups {}(%rsp),%xmm{i}", i * 16)));
    line("  addq $128,%rsp".into());
    SAVED.iter().rev().for_each(|register| line(format!("  popq %{register}")));
    line("  popq %rbp\n  jmp *%r11".into());
    for symbol in symbols {
        write!(
            s,
            "  .section .text.{symbol},\"ax\",@progbits\n  .globl {symbol}\n  .type {symbol},@function\n\
             {symbol}:\n  movq .Ld_{symbol}(%rip),%r11\n  testq %r11,%r11\n  jz 1f\n  jmp *%r11\n\
             1:leaq .Ld_{symbol}(%rip),%r11\n  jmp lazy_{name}_slow\n  .size {symbol},.-{symbol}\n\
             \x20 .section .rodata.{symbol},\"a\",@progbits\n.Ln_{symbol}: .asciz \"{symbol}\"\n\
             \x20 .section .data.rel.{symbol},\"aw\",@progbits\n  .balign 8\n.Ld_{symbol}: .quad 0\n  .quad .Ln_{symbol}\n"
        )
        .expect("a string");
    }
    s.push_str("  .section .note.GNU-stack,\"\",@progbits\n");
    s
}
