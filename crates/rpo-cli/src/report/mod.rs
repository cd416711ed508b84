//! Reports as single HTML files: a frame, tables, and charts as inline SVG. What they say is up to those who write them.

mod bars;
mod chart;
mod generations;
mod histogram;
mod html;
#[cfg(test)]
mod looks;
mod page;
mod provenance;
mod scale;
mod series;
mod table;

pub use bars::{Bar, Bars};
pub use chart::{Chart, Line, Look};
pub use generations::{Answer, Contestant, Generated, Generations, Judge, Outcome, ValueColumn, Verdict};
pub use histogram::{Histogram, Sample};
pub use html::Figure;
pub use page::Page;
pub use provenance::{Provenance, command_line, provenance};
pub use scale::Axis;
pub use series::{Points, Record, from_first_defined, smoothed, window};
pub use table::{Cell, Column, estimate, print_table, show};
