//! Templates of questions to judges: data files that say how a case is put to a judge and how its verdict is read. It knows
//! nothing of who judges.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::verdict::Reading;
use super::{Case, Question, Verdict};
use crate::error::{Error, Result};
use crate::store::text_of;

/// What is judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Two responses, one of which is better.
    Pairwise,
    /// One response, which gets a number.
    Pointwise,
}

impl Kind {
    /// The slots that a template must have.
    fn slots(self) -> &'static [&'static str] {
        match self {
            Self::Pairwise => &["{prompt}", "{first}", "{second}"],
            Self::Pointwise => &["{prompt}", "{response}"],
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Pairwise => "pairwise",
            Self::Pointwise => "pointwise",
        }
    }
}

/// How a case is put to a judge, and how its verdict is read; a TOML file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Template {
    /// What it is called.
    pub name: String,
    /// What it is for.
    pub kind: Kind,
    /// What the judge is told to be; may hold slots.
    pub system: Option<String>,
    /// What the judge is asked, with slots: `{prompt}`, `{first}` and `{second}`, or `{prompt}` and `{response}`. Other braces
    /// are text.
    pub user: String,
    /// Most tokens of a reply.
    pub max_tokens: u32,
    /// How freely replies are drawn; 0 takes the likeliest.
    #[serde(default)]
    pub temperature: f64,
    /// So many of the likeliest tokens are wanted at each place of the reply, with their log-probabilities.
    pub logprobs: Option<u8>,
    /// What servers are asked for as `response_format`, such as `{type = "json_object"}`.
    pub response_format: Option<toml::Table>,
    /// The lowest and the highest rating; of pointwise templates.
    pub scale: Option<[f64; 2]>,
    /// How a verdict is read.
    verdict: Reading,
}

/// Those that come with the program.
const BUILT_IN: [(&str, &str); 4] = [
    ("short", include_str!("templates/short.toml")),
    ("alpacaeval-like", include_str!("templates/alpacaeval-like.toml")),
    ("mtbench-like", include_str!("templates/mtbench-like.toml")),
    ("rating", include_str!("templates/rating.toml")),
];

impl Template {
    /// A built-in template by its name, else the TOML file at that path.
    ///
    /// # Errors
    /// If there is none, or the file is no template: which field or slot, and what is wrong with it.
    pub fn named(name: &str) -> Result<Self> {
        let path = Path::new(name);
        if let Some((_, text)) = BUILT_IN.iter().find(|(built_in, _)| *built_in == name) {
            return Self::parse(text).map_err(|problem| Error::file(path, problem));
        }
        if !path.exists() {
            let known: Vec<&str> = Self::built_in().collect();
            let problem = format!("no such template; there are {}, or name a TOML file", known.join(", "));
            return Err(Error::file(path, problem));
        }
        let text = text_of(path)?;
        Self::parse(&text).map_err(|problem| Error::file(path, problem))
    }

    /// The names of those that come with the program.
    pub fn built_in() -> impl Iterator<Item = &'static str> {
        BUILT_IN.iter().map(|(name, _)| *name)
    }

    /// The default one of a kind.
    ///
    /// # Errors
    /// None that a user could cause.
    pub fn default_of(kind: Kind) -> Result<Self> {
        Self::named(match kind {
            Kind::Pairwise => "short",
            Kind::Pointwise => "rating",
        })
    }

    /// Reads a template and checks that it can be filled and its replies read.
    ///
    /// # Errors
    /// What is wrong with it, as a sentence.
    pub fn parse(text: &str) -> std::result::Result<Self, String> {
        let template: Self = toml::from_str(text).map_err(|e| e.to_string().trim_end().to_string())?;
        template.check().map(|()| template)
    }

    fn check(&self) -> std::result::Result<(), String> {
        let kind = self.kind.name();
        let has = |slot: &str| self.user.contains(slot) || self.system.as_ref().is_some_and(|text| text.contains(slot));
        let missing: Vec<&str> = self.kind.slots().iter().filter(|slot| !has(slot)).copied().collect();
        if !missing.is_empty() {
            return Err(format!("user: a {kind} template needs the slot {}", missing.join(" and the slot ")));
        }
        let other = if self.kind == Kind::Pairwise { Kind::Pointwise } else { Kind::Pairwise };
        let foreign = other.slots().iter().find(|slot| !self.kind.slots().contains(slot) && has(slot));
        if let Some(slot) = foreign {
            return Err(format!("user: {slot} is a slot of {} templates, and this one is {kind}", other.name()));
        }
        if self.name.trim().is_empty() {
            return Err("name: it is empty".into());
        }
        if self.max_tokens == 0 {
            return Err("max-tokens: 0 would leave nothing of a reply".into());
        }
        if !(0.0..=10.0).contains(&self.temperature) {
            return Err(format!("temperature: {} is not between 0 and 10", self.temperature));
        }
        match (self.kind, self.scale) {
            (Kind::Pairwise, Some(_)) => return Err("scale: only pointwise templates have one".into()),
            (Kind::Pointwise, None) => return Err("scale: the lowest and the highest rating are needed".into()),
            (Kind::Pointwise, Some([low, high])) if !(low.is_finite() && high.is_finite() && low < high) => {
                return Err(format!("scale: {low} to {high} is no range"));
            }
            _ => {}
        }
        self.verdict.check(self.kind).map_err(|problem| format!("verdict.{problem}"))
    }

    /// The question about `case`. Slots are filled once: what looks like a slot in a text stays text.
    ///
    /// # Errors
    /// If the template is for the other kind of case.
    pub fn fill(&self, case: Case) -> Result<Question> {
        let texts: Vec<(&str, &str)> = match (&case, self.kind) {
            (Case::Pair { prompt, first, second }, Kind::Pairwise) => {
                vec![("{prompt}", prompt), ("{first}", first), ("{second}", second)]
            }
            (Case::Single { prompt, response }, Kind::Pointwise) => {
                vec![("{prompt}", prompt), ("{response}", response)]
            }
            _ => {
                let problem =
                    format!("the template `{}` is {}, which is not what is asked", self.name, self.kind.name());
                return Err(Error::Setting { field: "judge-template", problem });
            }
        };
        let system = self.system.as_ref().map(|text| filled(text.trim(), &texts));
        let user = filled(self.user.trim(), &texts);
        Ok(Question { case, system, user })
    }

    /// What a reply says, read strictly: one that says nothing that was asked for, or two things, is unparsed.
    pub fn read(&self, reply: &str) -> Verdict {
        match self.kind {
            Kind::Pairwise => Verdict::Choice(self.verdict.choice(reply)),
            Kind::Pointwise => Verdict::Rating(self.verdict.rating(reply, self.scale.unwrap_or([1.0, 10.0]))),
        }
    }

    /// The probability of the first response being chosen, by the log-probabilities of a reply's tokens: at the first place
    /// where both choices are among the likeliest, without what else might stand there. `None` where there is no such place.
    pub fn preference(&self, tokens: &[Vec<(String, f64)>]) -> Option<f64> {
        (self.kind == Kind::Pairwise).then(|| tokens.iter().find_map(|likeliest| self.verdict.preference(likeliest)))?
    }
}

/// `text` with its slots filled.
fn filled(text: &str, slots: &[(&str, &str)]) -> String {
    let mut out = String::with_capacity(text.len() + slots.iter().map(|(_, text)| text.len()).sum::<usize>());
    let mut rest = text;
    while let Some(at) = rest.find('{') {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        match slots.iter().find(|(slot, _)| rest.starts_with(slot)) {
            Some((slot, filling)) => {
                out.push_str(filling);
                rest = &rest[slot.len()..];
            }
            None => {
                out.push('{');
                rest = &rest[1..];
            }
        }
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evaluate::judge::Choice;

    const PAIR: &str = "name = \"mine\"\nkind = \"pairwise\"\nmax-tokens = 4\nuser = \"{prompt} {\\\"x\\\": 1} {first}|{second}\"\n\
                        [verdict]\nfirst = [\"1\"]\nsecond = [\"2\"]\ntie = [\"0\"]\n";

    fn pair(first: &str, second: &str) -> Case {
        Case::Pair { prompt: "ask".into(), first: first.into(), second: second.into() }
    }

    #[test]
    fn slots_are_filled_once_and_other_braces_are_text() {
        let template = Template::parse(PAIR).expect("valid");
        let question = template.fill(pair("{second}{prompt}", "{first")).expect("a question");
        assert_eq!(question.user, "ask {\"x\": 1} {second}{prompt}|{first");
        let single = Case::Single { prompt: "ask".into(), response: "yes".into() };
        assert!(template.fill(single).expect_err("another kind").to_string().contains("`mine` is pairwise"));
    }

    #[test]
    fn the_built_in_ones_are_valid_and_strict() {
        for name in Template::built_in() {
            assert_eq!(Template::named(name).expect(name).name, name);
        }
        let of = |name: &str, reply: &str| Template::named(name).expect("built in").read(reply);
        let choice = |name: &str, reply: &str| match of(name, reply) {
            Verdict::Choice(choice) => choice,
            Verdict::Rating(_) => panic!("a choice"),
        };
        let short =
            [("A", Choice::First), (" \"B\".\n", Choice::Second), ("**A**", Choice::First), ("(B)", Choice::Second)];
        short.into_iter().for_each(|(reply, said)| assert_eq!(choice("short", reply), said, "{reply}"));
        for unparsed in ["", "AB", "a", "A B", "A or B", "A\nB", "C", "A is better than B", "[A", "Apple"] {
            let expected = if unparsed == "[A" { Choice::First } else { Choice::Unparsed };
            assert_eq!(choice("short", unparsed), expected, "{unparsed}");
        }
        assert_eq!(choice("short", "<think>B? No, B is wrong.</think>\n\nA"), Choice::First);
        assert_eq!([choice("alpacaeval-like", "m"), choice("alpacaeval-like", "M")], [Choice::First, Choice::Second]);
        let bench = [
            ("Because … [[A]]", Choice::First),
            ("[[B]]\n\nSo: [[B]]", Choice::Second),
            ("both good [[C]]", Choice::Tie),
            ("[[A]] or [[B]]", Choice::Unparsed),
            ("[[A]] [[D]]", Choice::Unparsed),
            ("A", Choice::Unparsed),
        ];
        bench.into_iter().for_each(|(reply, said)| assert_eq!(choice("mtbench-like", reply), said, "{reply}"));
        for (reply, rating) in
            [("7", 7.0), ("Rating: 8", 8.0), ("**9/10**", 9.0), ("[[3]]", 3.0), ("6.5.", 6.5), ("10", 10.0)]
        {
            assert_eq!(of("rating", reply), Verdict::Rating(Some(rating)), "{reply}");
        }
        for unparsed in ["0", "11", "-5", "seven", "7 or 8", "7 8", "1e1", "", "NaN", "8/5", "I would say 8"] {
            assert_eq!(of("rating", unparsed), Verdict::Rating(None), "{unparsed}");
        }
    }

    #[test]
    fn a_template_that_cannot_work_is_refused_by_name() {
        for (from, to, complaint) in [
            ("{first}|", "", "user: a pairwise template needs the slot {first}"),
            ("{first}|{second}", "{response}", "needs the slot {first} and the slot {second}"),
            ("{prompt}", "{prompt} {response}", "{response} is a slot of pointwise templates"),
            ("max-tokens = 4", "max-tokens = 0", "max-tokens: 0"),
            ("max-tokens = 4", "max-tokens = 4\nscale = [1, 10]", "scale: only pointwise"),
            ("max-tokens = 4", "max-token = 4", "unknown field `max-token`"),
            ("first = [\"1\"]", "first = []", "verdict.first: at least one form"),
            ("first = [\"1\"]", "first = [\"2\"]", "verdict.second: `2` stands for another choice too"),
            ("[verdict]", "[verdict]\npattern = '(['", "verdict.pattern: "),
            ("[verdict]", "[verdict]\npattern = 'x'\nfield = 'y'", "verdict.field: a pattern is given too"),
            ("\"pairwise\"", "\"pointwise\"", "{first} is a slot of pairwise"),
            ("\"mine\"", "\" \"", "name: it is empty"),
        ] {
            assert!(PAIR.contains(from), "{from}");
            let text = match complaint.contains("slot of pairwise") {
                true => PAIR.replace("{prompt}", "{prompt} {response}").replace(from, to),
                false => PAIR.replace(from, to),
            };
            let said = Template::parse(&text).expect_err(complaint);
            assert!(said.contains(complaint), "{complaint}: {said}");
        }
        let said = Template::named("long").expect_err("none").to_string();
        assert!(
            said.contains("long: no such template; there are short, alpacaeval-like, mtbench-like, rating"),
            "{said}"
        );
    }

    #[test]
    fn log_probabilities_tell_how_sure_a_choice_is() {
        let template = Template::named("alpacaeval-like").expect("built in");
        let place = |tokens: &[(&str, f64)]| tokens.iter().map(|(t, p)| ((*t).to_string(), p.ln())).collect::<Vec<_>>();
        let tokens = [place(&[("\n", 0.9), ("x", 0.1)]), place(&[("m", 0.6), (" M", 0.2), ("M", 0.1), ("x", 0.1)])];
        let found = template.preference(&tokens).expect("both choices");
        assert!((found - 0.6 / 0.9).abs() < 1e-12, "{found}");
        assert_eq!(template.preference(&tokens[..1]), None);
    }
}
