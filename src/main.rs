//! From a command line to one function; nothing else happens here.

use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    tidegate::cli::main(tidegate::cli::Cli::parse())
}
