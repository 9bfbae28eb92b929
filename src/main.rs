//! The `adit` binary: everything is in [`adit::cli`].

use std::process::ExitCode;

fn main() -> ExitCode {
    adit::cli::main()
}
