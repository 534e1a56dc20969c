//! From a command line to one function; nothing else happens here.

use clap::Parser;
use std::process::ExitCode;

/// Records are made by one thread and dropped by another, which the system's allocator pays dearly for.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    tidegate::cli::main(tidegate::cli::Cli::parse())
}
