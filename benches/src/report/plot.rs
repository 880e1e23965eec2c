//! Bars for every scenario of a rig, as SVG: the median of the first value, and a line from least to most.

use std::fmt::Write as _;

use super::{OURS, Scenario, Spread, table::number};

const WIDTH: f64 = 760.0;
const LEFT: f64 = 110.0;
/// Length of the longest bar or line of a scenario.
const LONGEST: f64 = 520.0;
const BAR: f64 = 16.0;
const GAP: f64 = 6.0;

pub(super) fn bars(title: &str, scenarios: &[Scenario]) -> String {
    let mut body = String::new();
    let mut y = 34.0;
    for scenario in scenarios {
        let first = scenario.rows.iter().find_map(|(_, samples)| samples.first());
        let value = first.and_then(|sample| sample.0.first()).map_or("", |(name, _)| name);
        let _ = writeln!(
            body,
            r#"<text x="10" y="{:.0}" font-weight="bold">{}: {value} per {}</text>"#,
            y + 12.0,
            escaped(&scenario.title),
            scenario.unit
        );
        y += 22.0;
        let spreads: Vec<_> = scenario
            .rows
            .iter()
            .filter_map(|(name, samples)| Some((name, Spread::of(samples.iter().map(super::Sample::primary))?)))
            .collect();
        let most = spreads
            .iter()
            .map(|(_, spread)| spread.max)
            .fold(f64::MIN_POSITIVE, f64::max);
        for (name, spread) in spreads {
            bar(&mut body, y, name, spread, LONGEST / most);
            y += BAR + GAP;
        }
        y += 14.0;
    }
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {y:.0}\" width=\"{WIDTH}\" height=\"{y:.0}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <text x=\"10\" y=\"20\" font-size=\"15\">{}</text>\n{body}</svg>\n",
        escaped(title)
    )
}

fn bar(body: &mut String, y: f64, name: &str, spread: Spread, scale: f64) {
    let colour = if name == OURS { "#2166ac" } else { "#b0b0b0" };
    let middle = y + BAR / 2.0;
    let at = |value: f64| LEFT + value * scale;
    let _ = writeln!(
        body,
        r#"<text x="{:.0}" y="{:.0}" text-anchor="end">{}</text><rect x="{LEFT}" y="{y:.0}" width="{:.1}" height="{BAR}" fill="{colour}"/><line x1="{:.1}" x2="{:.1}" y1="{middle:.0}" y2="{middle:.0}" stroke="black"/><text x="{:.1}" y="{:.0}">{}</text>"#,
        LEFT - 6.0,
        y + 12.0,
        escaped(name),
        spread.median * scale,
        at(spread.min),
        at(spread.max),
        at(spread.max) + 6.0,
        y + 12.0,
        number(spread.median)
    );
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
