//! The table of all answers: a row for each prompt, the models side by side, each answer with its reward.

use std::fmt::Write;

use super::html::escape;

/// Longer texts are folded to about so many characters.
const FOLD: usize = 220;

/// A prompt with what each model answered.
pub struct Answered<'a> {
    /// Its text.
    pub prompt: &'a str,
    /// What it served for, where that differs between prompts.
    pub part: Option<&'a str>,
    /// By model, in the order of the columns.
    pub models: Vec<Draws<'a>>,
}

/// What a model answered.
pub struct Draws<'a> {
    /// Mean over the draws.
    pub reward: f64,
    /// Answers with their rewards.
    pub answers: Vec<(&'a str, f64)>,
}

/// As HTML, with a field for searching that the page's script shows; `models` name the columns.
pub fn html(models: &[&str], rows: &[Answered<'_>]) -> String {
    let parts = rows.iter().any(|row| row.part.is_some());
    let mut html = String::from(
        "<div class=\"search\" hidden><label>Search prompts and answers <input type=\"search\" aria-controls=\"answers\">\
         </label><output aria-live=\"polite\"></output></div><div class=\"scroll\" tabindex=\"0\" role=\"region\" \
         aria-label=\"Answers\"><table class=\"answers\" id=\"answers\"><thead><tr>\
         <th scope=\"col\" data-kind=\"number\" class=\"n\">#</th><th scope=\"col\" data-kind=\"text\">prompt</th>",
    );
    if parts {
        html += "<th scope=\"col\" data-kind=\"text\">used for</th>";
    }
    for model in models {
        let _ = write!(html, "<th scope=\"col\" data-kind=\"number\">{} <small>by reward</small></th>", escape(model));
    }
    html += "</tr></thead><tbody>";
    for (i, row) in rows.iter().enumerate() {
        let _ = write!(html, "<tr><td class=\"n\">{}</td><th scope=\"row\">{}</th>", i + 1, folded(row.prompt));
        if parts {
            let _ = write!(html, "<td class=\"part\">{}</td>", escape(row.part.unwrap_or_default()));
        }
        for Draws { reward, answers } in &row.models {
            let _ = write!(html, "<td data-v=\"{reward}\">");
            if answers.len() > 1 {
                let _ = write!(html, "<div class=\"quiet\">mean {reward:.2}</div>");
            }
            for (answer, reward) in answers {
                let _ = write!(html, "<div><span class=\"reward\">{reward:.2}</span> {}</div>", folded(answer));
            }
            html += "</td>";
        }
        html += "</tr>";
    }
    html + "</tbody></table></div>"
}

/// A text of a model or a user; a long one opens on request.
fn folded(text: &str) -> String {
    if text.trim().is_empty() {
        return "<span class=\"text quiet\">(nothing)</span>".into();
    }
    let whole = format!("<span class=\"text\" dir=\"auto\">{}</span>", escape(text));
    // A fold that hides a word or two helps nobody.
    if text.chars().count() <= FOLD + FOLD / 4 {
        return whole;
    }
    let head: String = text.chars().take(FOLD).collect();
    let head = head.rsplit_once(char::is_whitespace).map_or(head.as_str(), |(head, _)| head);
    format!(
        "<details><summary><span class=\"text head\" dir=\"auto\">{} …</span><span class=\"quiet less\">fold</span></summary>\
         {whole}</details>",
        escape(head)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_answer_is_there_with_its_reward_and_no_markup_of_its_own() {
        let draws = |answers| Draws { reward: 1.25, answers };
        let rows = [
            Answered {
                prompt: "<script>alert(\"1\")</script> & '",
                part: None,
                models: vec![draws(vec![("<img src=x onerror=y>", 1.25)]), draws(vec![("a", 0.5), ("", 2.0)])],
            },
            Answered { prompt: "second", part: None, models: vec![draws(vec![("b", 1.25)]), draws(vec![("c", 1.25)])] },
        ];
        let html = html(&["start", "<rpo>"], &rows);
        assert!(!html.contains("<script") && !html.contains("<img") && !html.contains("<rpo>"), "{html}");
        assert!(
            html.contains("&lt;img src=x onerror=y&gt;") && html.contains("&lt;script&gt;alert(&quot;1&quot;)"),
            "{html}"
        );
        assert!(html.contains("mean 1.25") && html.contains(">0.50</span>") && html.contains("(nothing)"), "{html}");
        assert_eq!((html.matches("<tr>").count(), html.matches("data-v=\"1.25\"").count()), (3, 4));
        assert!(!html.contains("used for"));
    }

    #[test]
    fn long_texts_fold_and_are_kept_whole() {
        let long = "word and <tag> ".repeat(40);
        let html = folded(&long);
        assert!(html.starts_with("<details><summary>") && html.contains(&escape(&long)), "{html}");
        let head = html.split("</span>").next().expect("head");
        assert!(head.ends_with(" …") && head.len() < 500, "{head}");
        assert!(!folded(&"a".repeat(FOLD)).contains("details"));
        // Nothing to cut at, and letters of several bytes.
        assert!(folded(&"é".repeat(2 * FOLD)).contains(&format!("{} …", "é".repeat(FOLD))));
    }
}
