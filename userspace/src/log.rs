//! What the process says about itself: text for people, JSON for machines. Always to standard error.

use std::io::{self, IsTerminal};

use clap::ValueEnum;
use tracing_subscriber::EnvFilter;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Text on a terminal, JSON otherwise.
    Auto,
    Text,
    Json,
}

pub(crate) fn start(filter: &str, format: Format) {
    let parsed = EnvFilter::try_new(filter);
    let bad = parsed.as_ref().err().map(ToString::to_string);
    let filter = parsed.unwrap_or_else(|_| EnvFilter::new("info"));
    let terminal = io::stderr().is_terminal();
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr);
    let text = format == Format::Text || (format == Format::Auto && terminal);
    // Only this function installs a subscriber, and it is called once.
    let installed = if text {
        builder.with_ansi(terminal).with_target(false).try_init()
    } else {
        builder
            .json()
            .flatten_event(true)
            .with_current_span(false)
            .with_span_list(false)
            .try_init()
    };
    if let (Some(bad), Ok(())) = (bad, installed) {
        tracing::warn!("--log: {bad}; fix: give a level or module=level, such as info,pierhead_dataplane=debug");
    }
}
