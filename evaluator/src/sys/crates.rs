//! The list of this program's crates in the section `.dep-v0`, in the format of `cargo auditable`. Vulnerability scanners and the
//! SBOM of the default image read it.
#![allow(unsafe_code, reason = "places the list of crates in a link section")]

const LENGTH: usize = length(env!("CRATES_LENGTH"));

// SAFETY: the section contains constant bytes only, and its name has no meaning to the linker or the loader.
#[unsafe(link_section = ".dep-v0")]
#[used]
static CRATES: [u8; LENGTH] = *include_bytes!(concat!(env!("OUT_DIR"), "/crates.json.z"));

/// The compressed list. A call of this function keeps the linker from removing the section.
pub fn compressed() -> &'static [u8] {
    &CRATES
}

const fn length(digits: &str) -> usize {
    let (mut at, mut length) = (0, 0);
    while at < digits.len() {
        length = length * 10 + (digits.as_bytes()[at] - b'0') as usize;
        at += 1;
    }
    length
}
