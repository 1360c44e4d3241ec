//! The program `invarlock`; see the library of this crate.
#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    invarlock_launcher::main()
}
