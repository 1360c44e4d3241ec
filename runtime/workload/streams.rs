//! Commands that use standard input, or a terminal.

use serde_json::{Value, json};
use std::io::{Read as _, Write as _};

/// What the terminal of this process is, and what can be done with it.
pub fn terminal() -> Value {
    let stdin = std::io::stdin();
    let size = rustix::termios::tcgetwinsize(&stdin).expect("a size");
    let open = |path: &str| std::fs::OpenOptions::new().read(true).write(true).open(path);
    let group = rustix::termios::tcgetpgrp(&stdin).expect("a group");
    json!({
        "size": [size.ws_row, size.ws_col],
        "name": std::fs::read_link("/proc/self/fd/0").expect("a name"),
        "foreground": group == rustix::process::getpgrp(),
        "controlling": open("/dev/tty").is_ok(),
        "another": open("/dev/ptmx").is_ok(),
        "typed": crate::sys::type_into(0),
        "discipline": crate::sys::change_discipline(0),
        "term": std::env::var("TERM").ok(),
    })
}

/// Waits until the terminal has another size than at first, and prints it.
pub fn wait_for_resize() {
    let size = || {
        let size = rustix::termios::tcgetwinsize(std::io::stdin()).expect("a size");
        (size.ws_row, size.ws_col)
    };
    let first = size();
    println!("waiting");
    while size() == first {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    println!("resized to {:?}", size());
}

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
