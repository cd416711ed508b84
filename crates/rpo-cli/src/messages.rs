//! How warnings and notes of the library and the program reach people: one line each on standard error, in colour on a
//! terminal alone.

use std::ffi::OsString;
use std::io::IsTerminal;
use std::sync::atomic::{AtomicBool, Ordering};

use anstream::AutoStream;
use clap::{ColorChoice, ValueEnum};
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

/// Whether nothing but results and errors is shown.
static QUIET: AtomicBool = AtomicBool::new(false);

/// Shows messages from now on: warnings and notes by default, all for `verbose`, none for `quiet`. Of the engine only
/// warnings.
pub fn show(verbose: bool, quiet: bool, colour: ColorChoice) {
    QUIET.store(quiet, Ordering::Relaxed);
    let own = match (verbose, quiet) {
        (true, _) => Level::DEBUG,
        (false, true) => Level::ERROR,
        (false, false) => Level::INFO,
    };
    let others = if quiet { Level::ERROR } else { Level::WARN };
    let filter = Targets::new().with_default(others).with_target("rpo", own);
    let ansi = match colour {
        ColorChoice::Always => true,
        ColorChoice::Never => false,
        // NO_COLOR, CLICOLOR, CLICOLOR_FORCE, and what the terminal is.
        ColorChoice::Auto => AutoStream::choice(&std::io::stderr()) != anstream::ColorChoice::Never,
    };
    let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(ansi).event_format(Plain);
    tracing_subscriber::registry().with(layer.with_filter(filter)).init();
}

/// Whether progress is left out.
pub fn quiet() -> bool {
    QUIET.load(Ordering::Relaxed)
}

/// What `--color` says among the arguments, for help and errors that are printed before all arguments are understood.
pub fn colour_of(arguments: impl IntoIterator<Item = OsString>) -> ColorChoice {
    let arguments: Vec<String> =
        arguments.into_iter().map(|argument| argument.to_string_lossy().into_owned()).collect();
    let given = arguments.iter().enumerate().find_map(|(i, argument)| match argument.strip_prefix("--color")? {
        "" => arguments.get(i + 1).map(String::as_str),
        value => value.strip_prefix('='),
    });
    given.and_then(|given| ColorChoice::from_str(given, false).ok()).unwrap_or_default()
}

/// A sentence in lines that fit the terminal and begin with `first` and `others`; one line where there is no terminal, so that
/// it can be searched for.
pub fn wrapped(sentence: &str, first: &str, others: &str) -> String {
    match std::io::stdout().is_terminal() {
        true => in_lines(textwrap::termwidth().min(110), sentence, first, others),
        false => format!("{first}{sentence}"),
    }
}

/// A text in lines of at most `width` columns; flags stay whole.
pub fn in_lines(width: usize, text: &str, first: &str, others: &str) -> String {
    let options = textwrap::Options::new(width)
        .initial_indent(first)
        .subsequent_indent(others)
        .word_splitter(textwrap::WordSplitter::NoHyphenation);
    textwrap::fill(text, options)
}

/// Ends the program without a word when nobody reads its output any more, as other programs do (`rpo … | head`).
pub fn end_with_the_reader() {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let said = panic.payload().downcast_ref::<String>().map_or("", String::as_str);
        if said.starts_with("failed printing to stdout") && said.contains("Broken pipe") {
            end_unread();
        }
        usual(panic);
    }));
}

/// Whether something could not be written because nobody reads it any more.
pub fn is_broken_pipe(problem: &anyhow::Error) -> bool {
    problem
        .chain()
        .any(|cause| cause.downcast_ref::<std::io::Error>().is_some_and(|e| e.kind() == std::io::ErrorKind::BrokenPipe))
}

/// Ends as a program does whose reader has gone.
pub fn end_unread() -> ! {
    std::process::exit(141)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_colour_is_found_before_the_arguments_are_understood() {
        let of = |line: &str| colour_of(line.split(' ').map(OsString::from));
        assert_eq!(of("rpo --color never train --epohcs"), ColorChoice::Never);
        assert_eq!(of("rpo train --color=always"), ColorChoice::Always);
        assert_eq!(of("rpo --color"), ColorChoice::Auto);
        assert_eq!(of("rpo --colors"), ColorChoice::Auto);
    }

    #[test]
    fn sentences_are_wrapped_and_flags_stay_whole() {
        let said = in_lines(60, &"of texts --max-response-tokens ".repeat(9), "- ", "  ");
        assert!(said.lines().count() > 2 && said.lines().all(|line| line.len() <= 60), "{said}");
        assert!(said.lines().skip(1).all(|line| line.starts_with("  ")), "{said}");
        assert_eq!(said.matches("--max-response-tokens").count(), 9);
    }
}
