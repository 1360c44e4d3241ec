//! Plots of the time of a measurement against windows, layers, width and vocabulary, as one SVG file.

use std::fmt::Write as _;
use std::path::Path;

use invarlock_evaluator::math::products::Products;

use crate::shapes::llama;
use crate::{Arguments, Result, SEQ_LEN, median, ours};

/// The shape from which one size at a time differs.
const BASE: Sizes = Sizes { windows: 8, layers: 4, width: 512, vocab: 16_384 };

/// Width and height of a plot, without its labels.
const PLOT: (f64, f64) = (150.0, 100.0);
/// Width and height of a plot with its labels.
const CELL: (f64, f64) = (220.0, 165.0);

#[derive(Clone, Copy)]
struct Sizes {
    windows: usize,
    layers: usize,
    width: usize,
    vocab: usize,
}

/// Measures each size and writes the plots to a file.
pub fn write(file: &Path, arguments: &Arguments) -> Result<()> {
    let threads = std::thread::available_parallelism()?.get();
    let (windows, layers) = ([2, 4, 8, 16, 32], [1, 2, 4, 8, 16]);
    let (widths, vocabs) = ([256, 512, 1024, 1536, 2048], [4_096, 16_384, 32_768, 65_536, 131_072]);
    let plots = [
        ("windows", windows.map(|windows| (windows, Sizes { windows, ..BASE }))),
        ("layers", layers.map(|layers| (layers, Sizes { layers, ..BASE }))),
        ("width", widths.map(|width| (width, Sizes { width, ..BASE }))),
        ("vocabulary", vocabs.map(|vocab| (vocab, Sizes { vocab, ..BASE }))),
    ];
    let mut svg = String::new();
    let (width, height) = (CELL.0 * plots.len() as f64, CELL.1);
    writeln!(
        svg,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" font-size=\"10\">\n\
         <rect width=\"{width}\" height=\"{height}\" fill=\"white\"/>"
    )?;
    println!("\nseconds, {threads} threads, windows of {SEQ_LEN} tokens, bf16");
    for (column, (name, sizes)) in plots.into_iter().enumerate() {
        let mut points = Vec::new();
        for (size, sizes) in sizes {
            let seconds = sizes.seconds(threads, arguments)?;
            println!("{name:<12}{size:>8}{seconds:>10.2}");
            points.push((size as f64, seconds));
        }
        plot(&mut svg, column as f64 * CELL.0, name, &points)?;
    }
    svg.push_str("</svg>\n");
    std::fs::write(file, svg)?;
    Ok(())
}

impl Sizes {
    /// Seconds of a measurement of all windows.
    fn seconds(self, threads: usize, arguments: &Arguments) -> Result<f64> {
        let directory = tempfile::tempdir_in(&arguments.directory)?;
        llama(self.width, 4 * self.width, self.layers, self.vocab).write(directory.path(), "BF16")?;
        let rates: Vec<f64> = (0..arguments.rounds)
            .map(|_| ours::rate(directory.path(), Products::default(), threads, self.windows))
            .collect::<Result<_>>()?;
        Ok((self.windows * SEQ_LEN) as f64 / median(&rates))
    }
}

/// Seconds against a size, both from zero.
fn plot(svg: &mut String, left: f64, name: &str, points: &[(f64, f64)]) -> Result<()> {
    let largest = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).fold(0.0, f64::max);
    let (x_max, y_max) = (largest(|p| p.0), largest(|p| p.1));
    let (x0, y0) = (left + 45.0, 20.0 + PLOT.1);
    let at = |p: &(f64, f64)| (x0 + PLOT.0 * p.0 / x_max, y0 - PLOT.1 * p.1 / y_max);
    let line: Vec<String> = points.iter().map(at).map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
    writeln!(
        svg,
        "<path d=\"M{x0} {:.1}V{y0}H{:.1}\" fill=\"none\" stroke=\"black\"/>\n\
         <polyline points=\"{}\" fill=\"none\" stroke=\"#1f5fa8\" stroke-width=\"1.5\"/>",
        y0 - PLOT.1,
        x0 + PLOT.0,
        line.join(" ")
    )?;
    for (x, y) in points.iter().map(at) {
        writeln!(svg, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"2.5\" fill=\"#1f5fa8\"/>")?;
    }
    let mut label = |x: f64, y: f64, anchor: &str, text: &str| {
        writeln!(svg, "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{text}</text>")
    };
    label(x0 - 4.0, y0 - PLOT.1 + 4.0, "end", &format!("{y_max:.1} s"))?;
    label(x0 - 4.0, y0, "end", "0")?;
    label(x0, y0 + 13.0, "middle", "0")?;
    label(x0 + PLOT.0, y0 + 13.0, "middle", &format!("{x_max}"))?;
    label(x0 + PLOT.0 / 2.0, y0 + 28.0, "middle", name)?;
    Ok(())
}
