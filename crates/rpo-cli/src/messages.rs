//! How warnings and notes of the library and the program reach people: one line each on standard error, in colour on a
//! terminal alone.

use std::io::IsTerminal;

use clap::ColorChoice;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, filter::Targets};

/// `warning: …` and `note: …`.
struct Plain;

impl<S, N> FormatEvent<S, N> for Plain
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut out: Writer<'_>, event: &Event<'_>) -> std::fmt::Result {
        let (label, colour) = match *event.metadata().level() {
            Level::ERROR => ("error", 31),
            Level::WARN => ("warning", 33),
            Level::INFO => ("note", 36),
            Level::DEBUG | Level::TRACE => ("debug", 90),
        };
        match out.has_ansi_escapes() {
            true => write!(out, "\u{1b}[{colour}m{label}:\u{1b}[0m ")?,
            false => write!(out, "{label}: ")?,
        }
        context.format_fields(out.by_ref(), event)?;
        writeln!(out)
    }
}

/// Shows messages from now on: warnings and notes by default, all for `verbose`, none for `quiet`. Of the engine only
/// warnings.
pub fn show(verbose: bool, quiet: bool, colour: ColorChoice) {
    let own = match (verbose, quiet) {
        (true, _) => Level::DEBUG,
        (false, true) => Level::ERROR,
        (false, false) => Level::INFO,
    };
    let others = if quiet { Level::ERROR } else { Level::WARN };
    let filter = Targets::new().with_default(others).with_target("rpo", own);
    let unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let ansi = match colour {
        ColorChoice::Always => true,
        ColorChoice::Never => false,
        ColorChoice::Auto => std::io::stderr().is_terminal() && !unwanted,
    };
    let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(ansi).event_format(Plain);
    tracing_subscriber::registry().with(layer.with_filter(filter)).init();
}

/// Ends the program without a word when nobody reads its output any more, as other programs do (`rpo … | head`).
pub fn end_with_the_reader() {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let said = panic.payload().downcast_ref::<String>().map_or("", String::as_str);
        if said.starts_with("failed printing to stdout") && said.contains("Broken pipe") {
            std::process::exit(141);
        }
        usual(panic);
    }));
}
