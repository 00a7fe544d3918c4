//! The process: everything is in the library.

fn main() -> std::process::ExitCode {
    pilotlight::cli::main()
}
