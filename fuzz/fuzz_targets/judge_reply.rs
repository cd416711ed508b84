//! Replies of judges: the bodies that servers send, and verdicts in the text.

#![no_main]

use rpo::evaluate::judge::{Template, Verdict};

thread_local! {
    static TEMPLATES: Vec<Template> =
        Template::built_in().map(|name| Template::named(name).expect("built in")).collect();
}

libfuzzer_sys::fuzz_target!(|body: &str| {
    let (text, tokens) = rpo::fuzzing::completion(body).unwrap_or_else(|| (body.to_string(), Vec::new()));
    TEMPLATES.with(|templates| {
        for template in templates {
            if let Verdict::Rating(Some(rating)) = template.read(&text) {
                assert!(template.scale.is_some_and(|[low, high]| (low..=high).contains(&rating)), "{rating}");
            }
            if let Some(preference) = template.preference(&tokens) {
                assert!((0.0..=1.0).contains(&preference), "{preference}");
            }
        }
    });
});
