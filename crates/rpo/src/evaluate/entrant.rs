//! Models that are compared: what each answered to the same prompts.

use std::collections::HashMap;

use crate::error::{Error, Result};
use crate::feedback::ModelOutput;

/// A model and its responses.
#[derive(Clone, Debug, PartialEq)]
pub struct Entrant {
    /// What it is called.
    pub name: String,
    /// Its responses by draw, and of each draw in the order of the prompts.
    pub draws: Vec<Vec<String>>,
    /// Responses to the prompts that are left aside, since not every prompt has as many.
    pub surplus: usize,
}

impl Entrant {
    /// Finds among `given`, what somebody's file holds, equally many responses to each of `prompts`: the first ones, as many as
    /// every prompt has. Responses to other prompts are left aside; those to a prompt keep their order, which is that of the draws.
    ///
    /// # Errors
    /// If a prompt has no response, naming the first.
    pub fn of(name: &str, given: Vec<ModelOutput>, prompts: &[String]) -> Result<Self> {
        let mut places: HashMap<&str, Vec<usize>> = HashMap::new();
        prompts.iter().enumerate().for_each(|(i, prompt)| places.entry(prompt.trim()).or_default().push(i));
        let mut found: Vec<Vec<String>> = vec![Vec::new(); prompts.len()];
        let mut met: HashMap<&str, usize> = HashMap::new();
        for ModelOutput { asked, response } in given {
            let text = asked.prompt.text();
            let Some((text, places)) = places.get_key_value(text.trim()) else { continue };
            // Equal prompts take turns.
            let turn = met.entry(text).or_default();
            found[places[*turn % places.len()]].push(response);
            *turn += 1;
        }
        let without: Vec<usize> = (0..prompts.len()).filter(|&i| found[i].is_empty()).collect();
        let Some(first) = without.first() else {
            let draws = found.iter().map(Vec::len).min().unwrap_or(0);
            let surplus = found.iter().map(|all| all.len() - draws).sum();
            let draw = |draw: usize| found.iter_mut().map(|all| std::mem::take(&mut all[draw])).collect();
            return Ok(Self { name: name.into(), draws: (0..draws).map(draw).collect(), surplus });
        };
        let (some, of) = (without.len(), prompts.len());
        let found = if some == of {
            format!("it answers none of the {of} prompts")
        } else {
            format!("{some} of {of} prompts have no response")
        };
        let shown: String = prompts[*first].chars().take(60).collect();
        Err(Error::Data(format!(
            "{name}: {found}, such as prompt {} ({shown:?}); answers are found by their prompts' texts",
            first + 1
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::feedback::Asked;

    fn given(rows: &[(&str, &str)]) -> Vec<ModelOutput> {
        let asked = |prompt: &str| Asked { prompt: prompt.into(), id: None, place: String::new() };
        rows.iter().map(|(p, r)| ModelOutput { asked: asked(p), response: (*r).into() }).collect()
    }

    #[test]
    fn responses_find_their_prompts_in_any_order() {
        let prompts = ["a".to_string(), "b\n".into(), "a".into()];
        let rows = [("b", "b1"), ("other", "x"), ("a", "a1"), ("a", "a2"), ("a ", "a3"), ("b", "b2"), ("a", "a4")];
        let entrant = Entrant::of("m", given(&rows), &prompts).expect("complete");
        assert_eq!(entrant.draws, [["a1", "b1", "a2"], ["a3", "b2", "a4"]]);
    }

    #[test]
    fn what_is_missing_is_named() {
        let prompts = ["a".to_string(), "b".into()];
        let said = |rows: &[(&str, &str)]| Entrant::of("m", given(rows), &prompts).expect_err("missing").to_string();
        assert!(said(&[("a", "x")]).contains("m: 1 of 2 prompts have no response, such as prompt 2 (\"b\")"));
        assert!(said(&[("c", "x")]).contains("m: it answers none of the 2 prompts, such as prompt 1"));
        let more = Entrant::of("m", given(&[("a", "x"), ("b", "y"), ("b", "z")]), &prompts).expect("one each");
        assert_eq!((more.draws, more.surplus), (vec![vec!["x".to_string(), "y".into()]], 1));
    }
}
