//! The page's pictures, as inline SVG.
//!
//! They contain numbers and fixed words only, never text of a report, so nothing in them needs escaping. Positions are
//! percentages and type sizes are absolute: a picture fills any width and its labels stay readable.

use super::text;
use std::fmt::Write as _;

/// What the numbers of a [`Ruler`] are.
#[derive(Clone, Copy)]
pub(super) enum Scale {
    /// Ratios, which are greater than 0. The value is in the accepted range.
    Ratios,
    /// Differences in percentage points. The lower end of the interval is in the accepted range.
    Points,
}

impl Scale {
    /// The number of no change, and its label.
    fn unchanged(self) -> (f64, &'static str) {
        match self {
            Scale::Ratios => (1.0, "1.0 = no change"),
            Scale::Points => (0.0, "0 = no change"),
        }
    }

    fn has(self, x: f64) -> bool {
        x.is_finite() && (matches!(self, Scale::Points) || x > 0.0)
    }

    fn words(self, x: f64) -> String {
        match self {
            Scale::Ratios => text::ratio(x),
            Scale::Points => text::points(x),
        }
    }
}

/// What [`ruler`] draws: a value on an axis, with the range it is accepted in.
pub(super) struct Ruler {
    /// Distinguishes the ids of several pictures of a page.
    pub id: &'static str,
    /// What the numbers are.
    pub scale: Scale,
    /// The value.
    pub value: f64,
    /// Its confidence interval.
    pub interval: Option<(f64, f64)>,
    /// Lower end of the accepted range.
    pub least: Option<f64>,
    /// Upper end of the accepted range.
    pub most: Option<f64>,
    /// Under the axis.
    pub axis: &'static str,
    /// Accessible title of the picture for screen readers.
    pub title: &'static str,
}

const LEFT: f64 = 3.0;
const RIGHT: f64 = 97.0;

/// Maps an axis to percent of the width.
struct Axis {
    low: f64,
    high: f64,
    log: bool,
}

impl Axis {
    /// An axis that shows every one of `points`, or none where that cannot be drawn.
    fn around(points: &[f64], scale: Scale) -> Option<Axis> {
        let low = points.iter().copied().fold(f64::INFINITY, f64::min);
        let high = points.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        if !scale.has(low) || !scale.has(high) {
            return None;
        }
        // Ratios are compared by factors: far apart, equal factors get equal lengths.
        let log = matches!(scale, Scale::Ratios) && high / low > 3.0;
        let (low, high) = if log { (low.ln(), high.ln()) } else { (low, high) };
        let margin = ((high - low) * 0.12).max(1e-6 * high.abs().max(1.0));
        let axis = Axis { low: low - margin, high: high + margin, log };
        (axis.low.is_finite() && axis.high.is_finite() && axis.high > axis.low).then_some(axis)
    }

    fn at(&self, x: f64) -> f64 {
        let x = if self.log { x.ln() } else { x };
        (LEFT + (RIGHT - LEFT) * ((x - self.low) / (self.high - self.low))).clamp(LEFT, RIGHT)
    }

    /// Round values along the axis, and how to print them.
    fn ticks(&self) -> Vec<(f64, String)> {
        if self.log {
            let (low, high) = (self.low.exp(), self.high.exp());
            let decades = (self.high - self.low) / std::f64::consts::LN_10;
            let every = (decades / 5.0).ceil().max(1.0) as i32;
            let steps: &[f64] = if decades < 2.0 { &[1.0, 2.0, 5.0] } else { &[1.0] };
            // The ends may exceed the range of a number; the ticks must not.
            let power = |end: f64| (end / std::f64::consts::LN_10).clamp(-300.0, 300.0);
            let (first, last) = (power(self.low).floor() as i32, power(self.high).ceil() as i32);
            return (first..=last)
                .filter(|power| power.rem_euclid(every) == 0)
                .flat_map(|power| steps.iter().map(move |step| step * 10f64.powi(power)))
                .filter(|x| x.is_finite() && (low..=high).contains(x))
                .take(24)
                .map(|x| {
                    (x, if (0.01..100_000.0).contains(&x) { trimmed(x, 2) } else { text::significant(x, 1) })
                })
                .collect();
        }
        linear_ticks(self.low, self.high, 6.0)
    }
}

/// About `count` round values between two finite numbers.
fn linear_ticks(low: f64, high: f64, count: f64) -> Vec<(f64, String)> {
    let raw = (high - low) / count;
    if !raw.is_finite() || raw <= 0.0 {
        return Vec::new();
    }
    let power = raw.log10().floor();
    let unit = 10f64.powf(power);
    let step = [1.0, 2.0, 5.0, 10.0].iter().map(|m| m * unit).find(|s| *s >= raw).unwrap_or(raw);
    if !step.is_normal() {
        return Vec::new();
    }
    let decimals = (-step.log10().floor()).clamp(0.0, 8.0) as usize;
    let first = (low / step).ceil();
    (0..16)
        .map(|i| (first + f64::from(i)) * step)
        .take_while(|x| *x <= high)
        .map(|x| {
            let shown = if x.abs() >= 1e6 { text::significant(x, 3) } else { format!("{x:.decimals$}") };
            (x, if x.abs() < step / 1e3 { "0".into() } else { shown.replace('-', "−") })
        })
        .collect()
}

/// A number without its trailing zeros.
fn trimmed(x: f64, decimals: usize) -> String {
    let shown = format!("{x:.decimals$}");
    if shown.contains('.') { shown.trim_end_matches('0').trim_end_matches('.').to_owned() } else { shown }
}

/// Where the text of a label near an edge has to grow to.
fn anchor(x: f64) -> &'static str {
    match x {
        x if x < 14.0 => "start",
        x if x > 86.0 => "end",
        _ => "middle",
    }
}

fn label(out: &mut String, x: f64, y: f64, class: &str, words: &str) {
    let _ = write!(
        out,
        r#"<text class="{class}" x="{x:.2}%" y="{y}" text-anchor="{}">{words}</text>"#,
        anchor(x)
    );
}

fn tick_label(out: &mut String, x: f64, y: f64, words: &str) {
    let _ =
        write!(out, r#"<text class="tick-label" x="{x:.2}%" y="{y}" text-anchor="middle">{words}</text>"#);
}

fn line(out: &mut String, class: &str, from: (f64, f64), to: (f64, f64)) {
    let _ = write!(
        out,
        r#"<line class="{class}" x1="{:.2}%" y1="{}" x2="{:.2}%" y2="{}"/>"#,
        from.0, from.1, to.0, to.1
    );
}

fn rect(out: &mut String, class: &str, x: (f64, f64), y: (f64, f64)) {
    let _ = write!(
        out,
        r#"<rect class="{class}" x="{:.2}%" y="{:.1}" width="{:.2}%" height="{:.1}"/>"#,
        x.0,
        y.0,
        (x.1 - x.0).max(0.0),
        (y.1 - y.0).max(0.0)
    );
}

fn open(id: &str, height: u32, title: &str, description: &str) -> String {
    format!(
        r#"<svg class="picture" role="img" width="100%" height="{height}" aria-labelledby="{id}-t {id}-d"><title id="{id}-t">{title}</title><desc id="{id}-d">{description}</desc>"#
    )
}

/// A value with its interval on an axis, the line of no change and the accepted range.
pub(super) fn ruler(r: &Ruler) -> Option<String> {
    let (scale, (neutral, neutral_words)) = (r.scale, r.scale.unchanged());
    let interval = r.interval.filter(|(lo, hi)| scale.has(*lo) && scale.has(*hi) && lo <= hi);
    let [least, most] = [r.least, r.most].map(|end| end.filter(|x| scale.has(*x)));
    let mut points = vec![neutral, r.value];
    points.extend(interval.iter().flat_map(|(lo, hi)| [*lo, *hi]));
    points.extend(least);
    points.extend(most);
    let axis = Axis::around(&points, scale)?;

    let words = |x: f64| scale.words(x);
    let mut description = format!("Value {}", words(r.value));
    if let Some((lo, hi)) = interval {
        let _ = write!(description, ", confidence interval {} to {}", words(lo), words(hi));
    }
    match (least, most) {
        (Some(lo), Some(hi)) => {
            let _ = write!(description, ", accepted from {} to {}", words(lo), words(hi));
        }
        (None, Some(hi)) => {
            let _ = write!(description, ", accepted up to {}", words(hi));
        }
        (Some(lo), None) => {
            let _ = write!(description, ", accepted from {}", words(lo));
        }
        (None, None) => {}
    }
    let mut out = open(r.id, 172, r.title, &description);

    let (top, bottom, middle) = (46.0, 112.0, 79.0);
    let from = least.map_or(LEFT, |x| axis.at(x));
    let to = most.map_or(RIGHT, |x| axis.at(x));
    if least.is_some() || most.is_some() {
        rect(&mut out, "zone refused", (LEFT, RIGHT), (top, bottom));
        rect(&mut out, "zone mask", (from, to), (top, bottom));
        rect(&mut out, "zone accepted", (from, to), (top, bottom));
    }
    for (x, tick) in axis.ticks() {
        let x = axis.at(x);
        line(&mut out, "tick", (x, bottom), (x, bottom + 5.0));
        tick_label(&mut out, x, bottom + 20.0, &tick);
    }
    line(&mut out, "axis", (LEFT, bottom), (RIGHT, bottom));
    let axis_words = if axis.log { format!("{} · logarithmic", r.axis) } else { r.axis.to_owned() };
    let _ = write!(
        out,
        r#"<text class="axis-label" x="{RIGHT}%" y="{}" text-anchor="end">{axis_words}</text>"#,
        bottom + 44.0
    );

    line(&mut out, "unity", (axis.at(neutral), 22.0), (axis.at(neutral), bottom));
    label(&mut out, axis.at(neutral), 16.0, "mark-label", neutral_words);
    for limit in [least, most].into_iter().flatten() {
        let x = axis.at(limit);
        line(&mut out, "limit", (x, 40.0), (x, bottom));
        label(&mut out, x, 35.0, "limit-label", &format!("limit {}", words(limit)));
    }
    let judged = match scale {
        Scale::Ratios => r.value,
        Scale::Points => interval.map_or(r.value, |(lo, _)| lo),
    };
    let inside = least.is_none_or(|lo| judged >= lo) && most.is_none_or(|hi| judged <= hi);
    let tone = match (least.is_some() || most.is_some(), inside) {
        (false, _) => "neutral",
        (true, true) => "good",
        (true, false) => "bad",
    };
    if let Some((lo, hi)) = interval {
        let (lo, hi) = (axis.at(lo), axis.at(hi));
        let _ = write!(out, r#"<g class="whisker {tone}">"#);
        line(&mut out, "stem", (lo, middle), (hi, middle));
        line(&mut out, "cap", (lo, middle - 9.0), (lo, middle + 9.0));
        line(&mut out, "cap", (hi, middle - 9.0), (hi, middle + 9.0));
        out.push_str("</g>");
    }
    let x = axis.at(r.value);
    let _ = write!(out, r#"<circle class="point {tone}" cx="{x:.2}%" cy="{middle}" r="5.5"/>"#);
    // The number is beside its point, on the side with enough space, clear of the whisker.
    let (left_end, right_end) = interval.map_or((x, x), |(lo, hi)| (axis.at(lo).min(x), axis.at(hi).max(x)));
    let (words_x, side) = if right_end > 78.0 { (left_end, "end") } else { (right_end, "start") };
    let shift = if side == "end" { -14 } else { 14 };
    let _ = write!(
        out,
        r#"<text class="value {tone}" x="{words_x:.2}%" y="{:.1}" dx="{shift}" text-anchor="{side}">{}</text></svg>"#,
        middle + 5.5,
        words(r.value)
    );
    Some(out)
}

/// What [`histogram`] draws.
pub(super) struct Histogram<'a> {
    /// Finite values, in rising order.
    pub sorted: &'a [f64],
    /// Median.
    pub q50: f64,
    /// 95th percentile.
    pub q95: f64,
}

/// Distribution of the differences of paired windows; bars right of zero are windows that got worse.
pub(super) fn histogram(h: &Histogram<'_>) -> Option<String> {
    const BARS: f64 = 36.0;
    let (&least, &most) = (h.sorted.first()?, h.sorted.last()?);
    let (low, high) = (least.min(0.0), most.max(0.0));
    let span = high - low;
    if !span.is_finite() {
        return None;
    }
    let span = if span < 1e-12 { 2e-3 } else { span };
    // Bars start at zero in both directions, so that none contains both better and worse windows.
    let raw = span / BARS;
    let unit = 10f64.powf(raw.log10().floor());
    let width = [1.0, 2.0, 2.5, 5.0, 10.0].iter().map(|m| m * unit).find(|w| *w >= raw).unwrap_or(raw);
    let first = (low / width).floor().min(-1.0) as i64;
    // The bar right of zero starts just above it: no difference is not worse.
    let last = ((high / width).ceil() as i64).max(1);
    let count = usize::try_from(last.checked_sub(first)?).ok().filter(|n| (1..=512).contains(n))?;
    let mut bars = vec![0usize; count];
    let mut same = 0usize;
    for &x in h.sorted {
        if x == 0.0 {
            same += 1;
            continue;
        }
        let slot = if x > 0.0 { (x / width).ceil() - 1.0 } else { (x / width).floor() };
        let slot = (slot as i64 - first).clamp(0, count as i64 - 1) as usize;
        bars[slot] += 1;
    }
    let tallest = bars.iter().copied().max().unwrap_or(0).max(same).max(1);
    let (from, to) = (first as f64 * width, last as f64 * width);
    let place = |x: f64| (LEFT + 4.0) + (RIGHT - LEFT - 4.0) * ((x - from) / (to - from)).clamp(0.0, 1.0);

    let worse = h.sorted.iter().filter(|x| **x > 0.0).count();
    let description = format!(
        "{} paired windows, {worse} got worse, {same} are unchanged; smallest {}, median {}, 95th percentile {}, largest {} nats a token",
        h.sorted.len(),
        text::difference(least),
        text::difference(h.q50),
        text::difference(h.q95),
        text::difference(most)
    );
    let mut out =
        open("delta", 262, "Distribution of the change of log-loss over the paired windows", &description);
    let (top, bottom) = (44.0, 206.0);
    let y = |n: usize| bottom - (bottom - top) * n as f64 / tallest as f64;
    for (n, words) in linear_ticks(0.0, tallest as f64, 3.0) {
        if n.fract() != 0.0 {
            continue;
        }
        let y = bottom - (bottom - top) * n / tallest as f64;
        line(&mut out, "grid", (LEFT + 4.0, y), (RIGHT, y));
        let _ = write!(
            out,
            r#"<text class="tick-label" x="{:.2}%" y="{:.1}" dx="-8" text-anchor="end">{words}</text>"#,
            LEFT + 4.0,
            y + 4.0
        );
    }
    for (i, n) in bars.iter().enumerate().filter(|(_, n)| **n > 0) {
        let start = (first + i as i64) as f64 * width;
        let class = if start >= 0.0 { "bar worse" } else { "bar better" };
        let (a, b) = (place(start), place(start + width));
        let gap = (b - a) * 0.06;
        rect(&mut out, class, (a + gap, b - gap), (y(*n), bottom));
    }
    if same > 0 {
        let half = (place(width) - place(0.0)) * 0.2;
        rect(&mut out, "bar same", (place(0.0) - half, place(0.0) + half), (y(same), bottom));
    }
    line(&mut out, "axis", (LEFT + 4.0, bottom), (RIGHT, bottom));
    line(&mut out, "unity", (place(0.0), top - 6.0), (place(0.0), bottom));
    for (x, words) in linear_ticks(from, to, 8.0) {
        line(&mut out, "tick", (place(x), bottom), (place(x), bottom + 5.0));
        tick_label(&mut out, place(x), bottom + 20.0, &words);
    }
    let quantiles = [(h.q50, "median", 14.0), (h.q95, "q95", 32.0)];
    for (x, _, y) in quantiles {
        line(&mut out, "quantile", (place(x), y + 4.0), (place(x), bottom));
    }
    for (x, words, y) in quantiles {
        label(&mut out, place(x), y, "mark-label", &format!("{words} {}", text::difference(x)));
    }
    let _ = write!(
        out,
        r#"<text class="axis-label" x="{RIGHT}%" y="{}" text-anchor="end">Δ log-loss, nats a token · right of 0 is worse</text></svg>"#,
        bottom + 46.0
    );
    Some(out)
}
/// What [`strip`] draws: a value with its interval and its limit, in the row of a table.
#[cfg(feature = "export")]
pub(super) struct Strip {
    /// The value.
    pub value: f64,
    /// Its confidence interval.
    pub interval: Option<(f64, f64)>,
    /// Upper end of the accepted range.
    pub limit: Option<f64>,
    /// Whether it is accepted.
    pub good: bool,
}

/// A small picture of ratios on the axis that shows all of `points`, which the other rows share.
#[cfg(feature = "export")]
pub(super) fn strip(strip: &Strip, points: &[f64]) -> Option<String> {
    let axis = Axis::around(points, Scale::Ratios)?;
    let (height, middle) = (28.0, 14.0);
    let mut out =
        format!(r#"<svg class="picture" role="img" width="100%" height="{height}" aria-hidden="true">"#);
    line(&mut out, "axis", (LEFT, middle), (RIGHT, middle));
    line(&mut out, "unity", (axis.at(1.0), 2.0), (axis.at(1.0), height - 2.0));
    if let Some(limit) = strip.limit {
        line(&mut out, "limit", (axis.at(limit), 2.0), (axis.at(limit), height - 2.0));
    }
    let tone = if strip.good { "good" } else { "bad" };
    if let Some((low, high)) = strip.interval.filter(|(low, high)| *low > 0.0 && low <= high) {
        let _ = write!(out, r#"<g class="whisker {tone}">"#);
        line(&mut out, "", (axis.at(low), middle), (axis.at(high), middle));
        out.push_str("</g>");
    }
    let x = axis.at(strip.value);
    let _ = write!(out, r#"<circle class="point {tone}" cx="{x:.2}%" cy="{middle}" r="5"/></svg>"#);
    Some(out)
}
