//! The instructions of the matrix unit. Stable Rust has no functions for them.
#![allow(unsafe_code, reason = "instructions of the matrix unit")]

use std::arch::asm;

/// A row of a tile: 32 bfloat16 numbers.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
pub struct Line(pub [u16; 32]);

/// Rows of a tile.
pub const TILE: usize = 16;

/// Common index of a tile: bfloat16 numbers of a row.
pub const STEP: usize = 32;

/// Rows, and columns, of the result that are computed at once: two tiles of each operand, four of the result.
pub const PANEL: usize = 2 * TILE;

/// Lines of one step of a panel: high and low parts of the first tile, then those of the second.
pub const STEP_LINES: usize = 4 * TILE;

/// Columns of the sums.
pub const COLUMNS: usize = 128;

/// Sums of a panel of rows.
#[derive(Debug, Clone)]
#[repr(C, align(64))]
pub struct Sums(pub [[f32; COLUMNS]; PANEL]);

/// The argument of `ldtilecfg`: eight tiles of 16 rows of 64 bytes.
#[repr(C, align(64))]
struct Configuration {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

static CONFIGURATION: Configuration = Configuration {
    palette: 1,
    start_row: 0,
    reserved: [0; 14],
    row_bytes: [64, 64, 64, 64, 64, 64, 64, 64, 0, 0, 0, 0, 0, 0, 0, 0],
    rows: [16, 16, 16, 16, 16, 16, 16, 16, 0, 0, 0, 0, 0, 0, 0, 0],
};

const _: () = assert!(size_of::<Configuration>() == 64);

/// sums ← sums + a · b, for one panel of rows and some panels of columns, each of [`STEP_LINES`] lines for each of `steps` steps.
///
/// # Safety
/// The processor has AMX with bfloat16, and the kernel allows this process to use it.
///
/// # Panics
/// When the operands have other sizes, or the sums too few columns.
pub unsafe fn add_products(sums: &mut Sums, a: &[Line], b: &[Line], steps: usize) {
    assert!(steps > 0 && a.len() == steps * STEP_LINES, "a panel of another size");
    let panels = b.len() / a.len();
    assert!(b.len() == panels * a.len() && (1..=COLUMNS / PANEL).contains(&panels), "panels of another size");
    // SAFETY: the caller ensures that the instructions exist. `ldtilecfg` reads the 64 bytes of the configuration. The loop reads `steps` · 4096 bytes
    // from `a` for each panel, and as many from `b`, which are their sizes; it reads and writes 128 bytes of each of the 32 rows of `sums` for each
    // panel, which are within a row. `tilerelease` leaves the unit as it was. No memory but `sums` is written, and no stack is used.
    unsafe {
        asm!(
            "ldtilecfg [{configuration}]",
            "2:",
            "mov {a_step}, {a}",
            "mov {step}, {steps}",
            "tileloadd tmm0, [{sums} + {row}]",
            "tileloadd tmm1, [{sums} + {row} + 64]",
            "tileloadd tmm2, [{sums} + {row} + {lower}]",
            "tileloadd tmm3, [{sums} + {row} + {lower} + 64]",
            "3:",
            // low · high
            "tileloadd tmm4, [{b} + {line}]",
            "tileloadd tmm5, [{b} + {line} + 2048]",
            "tileloadd tmm6, [{a_step} + {line} + 1024]",
            "tdpbf16ps tmm0, tmm6, tmm4",
            "tdpbf16ps tmm1, tmm6, tmm5",
            "tileloadd tmm7, [{a_step} + {line} + 3072]",
            "tdpbf16ps tmm2, tmm7, tmm4",
            "tdpbf16ps tmm3, tmm7, tmm5",
            // high · high
            "tileloadd tmm6, [{a_step} + {line}]",
            "tdpbf16ps tmm0, tmm6, tmm4",
            "tdpbf16ps tmm1, tmm6, tmm5",
            "tileloadd tmm7, [{a_step} + {line} + 2048]",
            "tdpbf16ps tmm2, tmm7, tmm4",
            "tdpbf16ps tmm3, tmm7, tmm5",
            // high · low
            "tileloadd tmm4, [{b} + {line} + 1024]",
            "tdpbf16ps tmm0, tmm6, tmm4",
            "tdpbf16ps tmm2, tmm7, tmm4",
            "tileloadd tmm5, [{b} + {line} + 3072]",
            "tdpbf16ps tmm1, tmm6, tmm5",
            "tdpbf16ps tmm3, tmm7, tmm5",
            "add {a_step}, 4096",
            "add {b}, 4096",
            "dec {step}",
            "jnz 3b",
            "tilestored [{sums} + {row}], tmm0",
            "tilestored [{sums} + {row} + 64], tmm1",
            "tilestored [{sums} + {row} + {lower}], tmm2",
            "tilestored [{sums} + {row} + {lower} + 64], tmm3",
            "add {sums}, 128",
            "dec {panels}",
            "jnz 2b",
            "tilerelease",
            configuration = in(reg) &raw const CONFIGURATION,
            a = in(reg) a.as_ptr(),
            b = inout(reg) b.as_ptr() => _,
            sums = inout(reg) sums.0.as_mut_ptr() => _,
            steps = in(reg) steps,
            panels = inout(reg) panels => _,
            row = in(reg) COLUMNS * size_of::<f32>(),
            line = in(reg) size_of::<Line>(),
            a_step = out(reg) _,
            step = out(reg) _,
            lower = const TILE * COLUMNS * size_of::<f32>(),
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack),
        );
    }
}
