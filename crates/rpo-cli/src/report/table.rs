//! Tables of plain texts, for pages and terminals.

use std::fmt::Write;

use rpo::evaluate::Estimate;
use rpo::statistics::Interval;

use super::html::escape;

/// A column of a table.
#[derive(Clone, Copy)]
pub enum Column<'a> {
    /// Left-aligned.
    Text(&'a str),
    /// Right-aligned.
    Number(&'a str),
}

impl<'a> Column<'a> {
    /// What stands above it.
    pub fn name(self) -> &'a str {
        let (Self::Text(name) | Self::Number(name)) = self;
        name
    }
}

/// A cell of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cell {
    text: String,
    /// Why it is struck out, if it is.
    struck: Option<String>,
}

impl Cell {
    /// Struck out, as what is not to be relied on; `why` is said to those who hear the page or point at the cell.
    #[must_use]
    pub fn struck(self, why: impl Into<String>) -> Self {
        Self { struck: Some(why.into()), ..self }
    }

    /// As a terminal shows it, where what is struck out has a cross.
    pub fn plain(&self) -> String {
        if self.struck.is_some() { format!("{} \u{2020}", self.text) } else { self.text.clone() }
    }

    /// As Markdown has it, in one line of a table.
    pub fn markdown(&self) -> String {
        let text = self.text.replace('|', "\\|").replace('\n', " ");
        if self.struck.is_some() { format!("~~{text}~~") } else { text }
    }

    fn html(&self) -> String {
        let text = escape(&self.text);
        match &self.struck {
            Some(why) => {
                let why = escape(why);
                format!("<s title=\"{why}\">{text}</s><span class=\"heard\"> ({why})</span>")
            }
            None => text,
        }
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Self { text, struck: None }
    }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        text.to_string().into()
    }
}

/// `mean [low, high]`.
pub fn show(interval: Interval, digits: usize) -> String {
    let Interval { mean, low, high } = interval;
    // What is rounded to 0 has no sign.
    let [mean, low, high] = [mean, low, high]
        .map(|x| format!("{:.digits$}", if x.abs() < 0.5 * 0.1f64.powi(digits as i32) { 0.0 } else { x }));
    if interval.low.is_infinite() {
        return mean;
    }
    format!("{mean} [{low}, {high}]")
}

/// `mean [low, high] n=values`, or `-` for none.
pub fn estimate(estimate: Option<Estimate>, digits: usize) -> String {
    estimate.map_or_else(|| "-".into(), |Estimate { interval, n }| format!("{} n={n}", show(interval, digits)))
}

/// As HTML; the first column names the rows, `label` the table.
pub fn html<C: Clone + Into<Cell>>(label: &str, columns: &[Column<'_>], rows: &[Vec<C>]) -> String {
    let label = escape(label);
    let mut html =
        format!("<div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"{label}\"><table><thead><tr>");
    let class = |column: &Column<'_>| if matches!(column, Column::Number(_)) { " class=\"n\"" } else { "" };
    for column in columns {
        let kind = if matches!(column, Column::Number(_)) { "number" } else { "text" };
        let name = escape(column.name());
        let _ = write!(html, "<th scope=\"col\" data-kind=\"{kind}\"{}>{name}</th>", class(column));
    }
    html += "</tr></thead><tbody>";
    for row in rows {
        html += "<tr>";
        for (i, (column, cell)) in columns.iter().zip(row).enumerate() {
            let (open, close) = if i == 0 { ("th scope=\"row\"", "th") } else { ("td", "td") };
            let _ = write!(html, "<{open}{}>{}</{close}>", class(column), cell.clone().into().html());
        }
        html += "</tr>";
    }
    html + "</tbody></table></div>"
}

/// The same table for a terminal.
pub fn print_table<C: Clone + Into<Cell>>(columns: &[Column<'_>], rows: &[Vec<C>]) {
    let plain = |row: &Vec<C>| row.iter().map(|cell| cell.clone().into().plain()).collect();
    let rows: Vec<Vec<String>> = rows.iter().map(plain).collect();
    let header: Vec<String> = columns.iter().map(|column| column.name().to_string()).collect();
    let widths: Vec<usize> = (0..columns.len())
        .map(|i| rows.iter().chain([&header]).map(|row| row[i].chars().count()).max().unwrap_or(0))
        .collect();
    for row in [&header].into_iter().chain(&rows) {
        let cells = row.iter().zip(columns).zip(&widths).map(|((cell, column), width)| match column {
            Column::Text(_) => format!("{cell:<width$}"),
            Column::Number(_) => format!("{cell:>width$}"),
        });
        println!("{}", cells.collect::<Vec<_>>().join("  ").trim_end());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_are_shown_where_there_are_any() {
        assert_eq!(show(Interval { mean: 1.0, low: 0.5, high: 1.5 }, 1), "1.0 [0.5, 1.5]");
        let of_one = Interval { mean: 1.0, low: f64::NEG_INFINITY, high: f64::INFINITY };
        assert_eq!(estimate(Some(Estimate { interval: of_one, n: 1 }), 2), "1.00 n=1");
        assert_eq!(estimate(None, 2), "-");
        assert_eq!(show(Interval { mean: -0.004, low: -0.006, high: -0.0 }, 2), "0.00 [-0.01, 0.00]");
        assert_eq!(show(Interval { mean: 1.0, low: f64::NEG_INFINITY, high: f64::INFINITY }, 1), "1.0");
    }

    #[test]
    fn cells_know_their_row_and_column() {
        let html = html("A & B", &[Column::Text("name"), Column::Number("n")], &[vec!["<i>", "3"]]);
        for part in [
            "aria-label=\"A &amp; B\"",
            "<th scope=\"col\" data-kind=\"number\" class=\"n\">n</th>",
            "<th scope=\"row\">&lt;i&gt;</th><td class=\"n\">3</td>",
        ] {
            assert!(html.contains(part), "{html}");
        }
    }

    #[test]
    fn what_is_struck_out_says_why() {
        let cell = Cell::from("0.98 <").struck("flips");
        assert_eq!(cell.plain(), "0.98 < \u{2020}");
        let html = html("t", &[Column::Number("wins")], &[vec![cell]]);
        assert!(html.contains("<s title=\"flips\">0.98 &lt;</s><span class=\"heard\"> (flips)</span>"), "{html}");
    }
}
