//! What this program is made of, in a section of its own: the list of its crates, as those read it who look for known faults in programs,
//! and as the bill of materials of the default image has it.

const LENGTH: usize = length(env!("CRATES_LENGTH"));

// SAFETY: a section that only has constant bytes in it, and a name that nothing of the program's start or end goes by.
#[unsafe(link_section = ".dep-v0")]
#[used]
static CRATES: [u8; LENGTH] = *include_bytes!(concat!(env!("OUT_DIR"), "/crates.json.z"));

/// The packed list. Whoever asks for it keeps the linker from leaving it out.
pub fn packed() -> &'static [u8] {
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
