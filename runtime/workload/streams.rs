//! Commands that use standard input.

use std::io::{Read as _, Write as _};

/// Copies standard input to standard output, without waiting for more than there is.
pub fn copy() {
    let mut block = [0; 4096];
    loop {
        let count = std::io::stdin().read(&mut block).expect("input");
        if count == 0 {
            return;
        }
        let mut out = std::io::stdout().lock();
        out.write_all(&block[..count]).and_then(|()| out.flush()).expect("output");
    }
}

/// The number of bytes of standard input.
pub fn count() -> u64 {
    std::io::copy(&mut std::io::stdin(), &mut std::io::sink()).expect("input")
}

/// Prints the first bytes of standard input and reads no more.
pub fn take(count: usize) {
    let mut bytes = vec![0; count];
    std::io::stdin().read_exact(&mut bytes).expect("input");
    std::io::stdout().write_all(&bytes).expect("output");
}
