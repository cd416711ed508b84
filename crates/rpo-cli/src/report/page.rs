//! The frame of a report: one HTML file that needs nothing else and asks for nothing, with its style and its script inside.

use std::path::Path;

use anyhow::{Context, Result};

use super::chart::Chart;
use super::generations::Generations;
use super::html::{Figure, escape};
use super::provenance::Provenance;
use super::table::{self, Cell, Column};

const STYLE: &str = include_str!("style.css");
/// What every page does.
const SCRIPT: &str = include_str!("tables.js");
/// What a page with generations does too.
const VIEW: &str = include_str!("generations/view.js");
/// Holds browsers to it: nothing is fetched, whatever the page says.
const POLICY: &str =
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; base-uri 'none'; form-action 'none'";

/// A page under construction.
pub struct Page {
    title: String,
    /// What stands above the first heading.
    opening: String,
    headings: Vec<String>,
    /// From the first heading on.
    body: String,
    /// Of which a page has one view at the most.
    has_generations: bool,
}

impl Page {
    /// A page with a title and, unless it is empty, a paragraph.
    pub fn new(title: &str, introduction: &str) -> Self {
        let mut page = Self {
            title: title.into(),
            opening: String::new(),
            headings: Vec::new(),
            body: String::new(),
            has_generations: false,
        };
        if !introduction.is_empty() {
            page.paragraph(introduction);
        }
        page
    }

    fn add(&mut self, html: &str) {
        if self.headings.is_empty() { self.opening += html } else { self.body += html }
    }

    /// A heading, to which the list of contents leads.
    pub fn heading(&mut self, text: &str) {
        self.headings.push(text.into());
        self.add(&format!("<h2 id=\"s{}\">{}</h2>", self.headings.len(), escape(text)));
    }

    /// A heading below the last one.
    pub fn subheading(&mut self, text: &str) {
        self.add(&format!("<h3>{}</h3>", escape(text)));
    }

    /// A paragraph of plain text.
    pub fn paragraph(&mut self, text: &str) {
        self.add(&format!("<p>{}</p>", escape(text)));
    }

    /// What is to be known of the table or figure above.
    pub fn note(&mut self, text: &str) {
        self.add(&format!("<p class=\"note\">{}</p>", escape(text)));
    }

    /// A table of plain texts or [`Cell`]s; `label` names it for those who hear the page, and its file if it is saved.
    pub fn table<C: Clone + Into<Cell>>(&mut self, label: &str, columns: &[Column<'_>], rows: &[Vec<C>]) {
        self.add(&table::html(label, columns, rows));
    }

    /// A chart across the page; one of more lines than people tell apart is several charts side by side.
    pub fn chart(&mut self, chart: Chart) {
        match &chart.split()[..] {
            [whole] => self.add(&whole.broad().0),
            parts => self.figures(&parts.iter().map(Chart::small).collect::<Vec<_>>()),
        }
    }

    /// Figures side by side, as many as there is room for.
    pub fn figures(&mut self, figures: &[Figure]) {
        let all: String = figures.iter().map(|figure| figure.0.as_str()).collect();
        self.add(&format!("<div class=\"figures\">{all}</div>"));
    }

    /// All that was generated, side by side.
    ///
    /// # Panics
    /// At a second one on the same page, whose prompts would have the first one's addresses, and at a verdict on what is not
    /// there.
    pub fn generations(&mut self, generations: &Generations<'_>) {
        assert!(!self.has_generations, "a page has one view of generations");
        self.has_generations = true;
        self.add(&generations.html());
    }

    /// Where the report comes from.
    pub fn provenance(&mut self, provenance: &Provenance) {
        self.heading("Where this comes from");
        self.add(&provenance.html());
    }

    /// Writes the page.
    pub fn write(&self, path: &Path) -> Result<()> {
        std::fs::write(path, self.html()).with_context(|| format!("cannot write {}", path.display()))
    }

    fn html(&self) -> String {
        let title = escape(&self.title);
        let link = |(i, text): (usize, &String)| format!("<a href=\"#s{}\">{}</a> ", i + 1, escape(text));
        let links: String = self.headings.iter().enumerate().map(link).collect();
        let contents = if links.is_empty() { links } else { format!("<nav aria-label=\"Contents\">{links}</nav>") };
        let Self { opening, body, .. } = self;
        let view = if self.has_generations { VIEW } else { "" };
        format!(
            "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta http-equiv=\"Content-Security-Policy\" \
             content=\"{POLICY}\"><meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"><title>{title}</title>\n\
             <style>\n{STYLE}</style></head>\n<body><main><h1>{title}</h1>{opening}{contents}{body}</main>\n\
             <script>\n{SCRIPT}{view}</script></body></html>\n"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markup_in_texts_stays_text() {
        let mut page = Page::new("<script>\"&", "<p>");
        page.heading("<u>");
        page.table("<u>", &[Column::Text("<b>")], &[vec!["<i>"]]);
        let html = page.html();
        // The script of the page itself is the only one.
        assert_eq!(html.matches("<script>").count(), 1);
        assert!(!html.contains("<b>") && !html.contains("<i>") && !html.contains("<u>"), "{html}");
        assert!(html.contains("<title>&lt;script&gt;&quot;&amp;</title>") && html.contains("aria-label=\"&lt;u&gt;\""));
        assert_eq!(escape("it's"), "it&#39;s");
    }

    #[test]
    fn the_page_asks_for_nothing_outside_itself() {
        let mut page = Page::new("t", "");
        page.heading("first");
        let html = page.html();
        assert!(html.contains("default-src 'none'"));
        for outside in ["http://", "https://", "src=", "url(", "@import", "<link"] {
            assert!(!html.contains(outside), "{outside}");
        }
        assert!(html.matches("href=").count() == 1 && html.contains("href=\"#s1\""));
    }

    #[test]
    fn the_list_of_contents_follows_the_opening() {
        let mut page = Page::new("t", "opening");
        page.heading("first");
        page.paragraph("body");
        let html = page.html();
        let at = |text: &str| html.find(text).expect("there");
        assert!(at("<p>opening</p>") < at("<nav") && at("<nav") < at("<h2 id=\"s1\">first</h2>"));
    }
}
