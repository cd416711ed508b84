//! Pieces of HTML that the parts of a page are made of.

/// HTML of a figure.
pub struct Figure(pub(super) String);

/// Text as HTML, also within quotes.
pub fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;").replace('\'', "&#39;")
}
