//! The table as a picture: a bar for each translator and workload, on a logarithmic scale.

use std::fmt::Write;

use super::table::{Measure, Table};

/// The width of the names, of the whole picture, and the height of a bar, in pixels.
const LEFT: f64 = 150.0;
const WIDTH: f64 = 720.0;
const BAR: f64 = 9.0;
/// Above the first bar.
const TOP: f64 = 66.0;
/// To the right of the longest bar, for its number.
const RIGHT: f64 = 40.0;

/// The colours of Demotic's bars and of the others'.
const COLOURS: [&str; 5] = ["#2f6fde", "#b8862f", "#9a9a9a", "#6a9a6a", "#8a6aa0"];

/// Text and lines in colours that are seen on light and on dark pages.
const STYLE: &str = "text { font: 12px sans-serif; fill: #333 } .small { font-size: 10px } line { stroke: #8884 } \
                     @media (prefers-color-scheme: dark) { text { fill: #ccc } }";

/// Draws the ratios of `names`, the translators, for the workloads that are more than starting up.
pub fn draw(table: &Table, names: &[&str]) -> String {
    let rows: Vec<_> = table.rows.iter().filter(|row| !row.starts_up()).collect();
    let group = BAR * names.len() as f64 + 8.0;
    let bottom = TOP + group * (rows.len() + 1) as f64;
    let ratios =
        rows.iter().flat_map(|row| row.runs.iter().filter_map(|run| row.ratio(run, table.measure)));
    let most = ratios.fold(2.0, f64::max).log2().ceil();
    let x = |ratio: f64| LEFT + (WIDTH - LEFT - RIGHT) * ratio.log2().clamp(0.0, most) / most;

    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{0}\" viewBox=\"0 0 {WIDTH} {0}\">\n\
         <style>{STYLE}</style>\n",
        bottom + 10.0
    );
    let what = match table.measure {
        Measure::Instructions => "Executed arm64 instructions",
        Measure::Cycles => "Processor cycles",
        Measure::Seconds => "Time",
    };
    text(
        &mut svg,
        10.0,
        18.0,
        "start",
        &format!("{what}, as multiples of the native build’s ({})", table.date),
    );
    for (at, name) in names.iter().enumerate() {
        let left = LEFT + 130.0 * at as f64;
        bar(&mut svg, left, 30.0, BAR + left, COLOURS[at % COLOURS.len()]);
        text(&mut svg, left + BAR + 5.0, 38.0, "start", name);
    }
    for power in 0..=most as i32 {
        let (value, at) = (1 << power, x(f64::from(1 << power)));
        let _ = writeln!(svg, "<line x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{TOP}\" y2=\"{bottom}\"/>");
        small(&mut svg, at, TOP - 6.0, "middle", &value.to_string());
    }
    let mut y = TOP + 4.0;
    let mut draw_group = |title: &str, ratios: &[Option<f64>]| {
        text(&mut svg, LEFT - 8.0, y + BAR * names.len() as f64 / 2.0 + 4.0, "end", title);
        for (at, ratio) in ratios.iter().enumerate() {
            if let Some(ratio) = ratio {
                let top = y + BAR * at as f64;
                bar(&mut svg, LEFT, top, x(*ratio), COLOURS[at % COLOURS.len()]);
                small(&mut svg, x(*ratio) + 4.0, top + BAR - 1.0, "start", &format!("{ratio:.2}"));
            }
        }
        y += group;
    };
    for row in &rows {
        let run = |name: &&str| row.runs.iter().find(|run| run.name == *name);
        let ratios: Vec<_> =
            names.iter().map(|name| row.ratio(run(name)?, table.measure)).collect();
        draw_group(&row.workload, &ratios);
    }
    let means: Vec<_> = names.iter().map(|name| table.mean(name)).collect();
    draw_group("mean of the hot ones", &means);
    svg + "</svg>\n"
}

fn bar(svg: &mut String, left: f64, top: f64, right: f64, colour: &str) {
    let (width, height) = ((right - left).max(1.0), BAR - 1.0);
    let _ = writeln!(
        svg,
        "<rect x=\"{left:.1}\" y=\"{top:.1}\" width=\"{width:.1}\" height=\"{height}\" fill=\"{colour}\"/>"
    );
}

fn text(svg: &mut String, x: f64, y: f64, anchor: &str, words: &str) {
    let _ =
        writeln!(svg, "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{words}</text>");
}

fn small(svg: &mut String, x: f64, y: f64, anchor: &str, words: &str) {
    let _ = writeln!(
        svg,
        "<text class=\"small\" x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{words}</text>"
    );
}
