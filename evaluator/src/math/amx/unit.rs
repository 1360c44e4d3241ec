//! Detecting the unit, asking the kernel for it, and products with it.
#![allow(unsafe_code, reason = "a system call, and calls of functions for detected features")]

use std::arch::x86_64::__cpuid_count;
use std::cell::RefCell;
use std::io;
use std::ops::Range;

use super::HINT;
use super::kernel::{COLUMNS, Line, PANEL, STEP, STEP_LINES, Sums, add_products};
use super::pack::{Operand, Order, panels};
use crate::math::gemm::{View, ViewMut};
use invarlock_error::{Error, Foreign as _, Kind, Result};

/// `ARCH_REQ_XCOMP_PERM` of arch_prctl(2): asks for the use of a part of the processor's state.
const REQUEST_PERMISSION: libc::c_int = 0x1023;

/// The contents of the unit's registers, in the order of the processor's state.
const TILE_DATA: libc::c_ulong = 18;

/// AMX with bfloat16 in register EDX of `cpuid`, leaf 7.
const FEATURES: u32 = 1 << 22 | 1 << 24;

/// Rows of the left operand that are packed at once.
const ROWS: usize = 512;

/// Elements of the common index that are packed at once: a multiple of a step. Measured: 4 % faster than 512.
const DEPTH: usize = 1024;

/// Working memory of a thread.
#[derive(Default)]
struct Scratch {
    a: Vec<Line>,
    b: Vec<Line>,
    sums: Option<Box<Sums>>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// The unit, which this process may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Amx {
    /// Only made by [`Amx::enable`].
    enabled: (),
}

impl Amx {
    /// Asks the kernel for the unit.
    ///
    /// # Errors
    /// The processor has no such unit, or the kernel does not allow its use.
    pub fn enable() -> Result<Self> {
        let leaf = __cpuid_count(7, 0);
        let vectors = std::arch::is_x86_feature_detected!("avx512f")
            && std::arch::is_x86_feature_detected!("avx512bw")
            && std::arch::is_x86_feature_detected!("avx512bf16");
        if leaf.edx & FEATURES != FEATURES || !vectors {
            return Err(Error::unsupported(
                "bf16x3: this processor has no matrix unit for bfloat16 (amx_tile, amx_bf16 and avx512_bf16)",
            )
            .with_hint(HINT));
        }
        // SAFETY: with these arguments arch_prctl(2) takes no pointer.
        let answer = unsafe { libc::syscall(libc::SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA) };
        match answer {
            0 => Ok(Self { enabled: () }),
            _ => Err(io::Error::last_os_error()).err_kind(Kind::Unsupported).map_err(|error| {
                error.context("bf16x3: the kernel refuses the matrix unit AMX").with_hint(HINT)
            }),
        }
    }

    /// c ← scale · a · b.
    ///
    /// # Panics
    /// When the sizes do not match.
    pub fn multiply(self, c: &mut ViewMut<'_>, a: View<'_>, b: View<'_>, scale: f32) {
        let (a, b) = (operand(a, scale), operand(b.transposed(), 1.0));
        assert!(
            a.depth == b.depth && c.rows() == a.lines && c.width() == b.lines,
            "matrices of different sizes"
        );
        SCRATCH.with_borrow_mut(|scratch| {
            for rows in blocks(a.lines, ROWS) {
                if a.depth == 0 {
                    rows.clone().for_each(|row| c.row_mut(row).fill(0.0));
                }
                for depth in blocks(a.depth, DEPTH) {
                    self.add_block(c, (a, rows.clone()), b, depth, scratch);
                }
            }
        });
    }

    /// Adds the products of some rows of `a`, and some of the elements of the common index, to the sums in `c`. The first elements replace them.
    fn add_block(
        self,
        c: &mut ViewMut<'_>,
        (a, rows): (Operand<'_>, Range<usize>),
        b: Operand<'_>,
        depth: Range<usize>,
        scratch: &mut Scratch,
    ) {
        let Scratch { a: left, b: right, sums } = scratch;
        let sums = sums.get_or_insert_with(|| Box::new(Sums([[0.0; COLUMNS]; PANEL])));
        let steps = depth.len().div_ceil(STEP);
        let panel = steps * STEP_LINES;
        // SAFETY: `self` exists, so the processor has these features.
        unsafe { panels(a, rows.clone(), depth.clone(), Order::Lines, left) };
        for columns in blocks(b.lines, COLUMNS) {
            // SAFETY: as above.
            unsafe { panels(b, columns.clone(), depth.clone(), Order::Pairs, right) };
            let right = &right[..columns.len().div_ceil(PANEL) * panel];
            for (number, rows) in
                rows.clone().step_by(PANEL).map(|first| first..rows.end.min(first + PANEL)).enumerate()
            {
                let width = columns.len();
                for (sums, row) in sums.0.iter_mut().zip(rows.clone()) {
                    match depth.start {
                        0 => sums[..width].fill(0.0),
                        _ => sums[..width].copy_from_slice(&c.row(row)[columns.clone()]),
                    }
                }
                let left = &left[number * panel..][..panel];
                // SAFETY: as above; the kernel allowed the use of the unit.
                unsafe { add_products(sums, left, right, steps) };
                for (sums, row) in sums.0.iter().zip(rows) {
                    c.row_mut(row)[columns.clone()].copy_from_slice(&sums[..width]);
                }
            }
        }
    }
}

/// The rows of a view.
fn operand(view: View<'_>, scale: f32) -> Operand<'_> {
    let View { data, rows, columns, row, column } = view;
    Operand { data, lines: rows, depth: columns, stride: row, step: column, scale }
}

/// Blocks of at most `size` of `count` indices.
fn blocks(count: usize, size: usize) -> impl Iterator<Item = Range<usize>> {
    (0..count).step_by(size).map(move |first| first..count.min(first + size))
}
