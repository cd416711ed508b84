//! Reports as single HTML files: a frame, tables, and charts as inline SVG. What they say is up to those who write them.

mod answers;
mod bars;
mod chart;
mod html;
mod page;
mod provenance;
mod scale;
mod series;
mod table;

pub use answers::{Answered, Draws};
pub use bars::{Bar, Bars};
pub use chart::{Chart, Line, Look};
pub use html::Figure;
pub use page::Page;
pub use provenance::{Provenance, provenance};
pub use scale::Axis;
pub use series::{Points, Record, from_first_defined, smoothed, window};
pub use table::{Column, estimate, print_table, show};
