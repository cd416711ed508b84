//! What is told of data that were read, whether they are inspected or trained on.

use rpo::feedback::ReadSummary;

/// A share of `<unk>` above which a tokenizer is made for other texts.
const MANY_UNKNOWN: f64 = 0.01;
/// A share of cut texts above which the limits are too small.
const MANY_CUT: f64 = 0.05;

fn share(n: usize, of: usize) -> f64 {
    n as f64 / of.max(1) as f64
}

fn percent(share: f64) -> String {
    format!("{:.2} %", 100.0 * share)
}

/// What applies, of sentences about a number of things.
fn met<const N: usize>(counted: [(usize, String); N]) -> Vec<String> {
    counted.into_iter().filter(|(n, _)| *n > 0).map(|(_, said)| said).collect()
}

/// What to say of prompts of a model with a chat template that do not go through it.
pub fn plain_beside_template(prompts: usize, of: usize) -> String {
    format!(
        "{prompts} of {of} prompts are plain text although the model has a chat template: --chat-template always lets them go \
         through it as what a user says, --chat-template never leaves them as they are and says nothing"
    )
}

/// What was noticed while the data were read and what was counted.
pub fn remarks(data: &ReadSummary) -> Vec<String> {
    let &ReadSummary {
        rows,
        prompts,
        tokens,
        without_tokens,
        folded_prompts,
        folded_by_cut,
        duplicates,
        conflicting_duplicates,
        tied_prompts,
        cut_prompts,
        single_responses,
        truncated_prompts,
        truncated_responses,
        unknown_tokens,
        special_texts,
        folded_line_breaks,
        templated_prompts,
        prompts_beside_template,
        ..
    } = data;
    let counted = met([
        (templated_prompts, format!("{templated_prompts} of {prompts} prompts go through the model's chat template")),
        (prompts_beside_template, plain_beside_template(prompts_beside_template, prompts)),
        (
            without_tokens,
            format!("{without_tokens} rows hold no token in prompt or response, only such as </s>, and were left out"),
        ),
        (
            folded_prompts,
            format!(
                "{folded_prompts} prompts differ as texts only, not to the model, and are one with another; \
                 {folded_by_cut} of them only by what is cut"
            ),
        ),
        (
            duplicates,
            format!(
                "{duplicates} repeat another response and were merged into it with their mean reward; \
                 {conflicting_duplicates} of them have another reward"
            ),
        ),
        (
            single_responses,
            format!(
                "{single_responses} prompts have a single response; --single-response says what RPO does with them"
            ),
        ),
        (tied_prompts, format!("{tied_prompts} prompts have several responses, all with the same reward")),
        (
            special_texts,
            format!("{special_texts} texts spell out special tokens such as </s>, <|im_end|> or <extra_id_0>"),
        ),
        (
            folded_line_breaks,
            format!("{folded_line_breaks} texts have line breaks, which are blanks to this tokenizer"),
        ),
        (unknown_tokens, format!("{} of the tokens are <unk>", percent(share(unknown_tokens, tokens)))),
        (
            truncated_prompts,
            format!("{} of the prompts are cut (--max-prompt-tokens)", percent(share(truncated_prompts, prompts))),
        ),
        (
            truncated_responses,
            format!("{} of the responses are cut (--max-response-tokens)", percent(share(truncated_responses, rows))),
        ),
        (cut_prompts, format!("of {cut_prompts} prompts all responses are cut: the model is not shown how these end")),
    ]);
    data.notes.iter().cloned().chain(counted).collect()
}

/// What harms training, and what to do.
pub fn warnings(data: &ReadSummary) -> Vec<String> {
    let unknown = share(data.unknown_tokens, data.tokens);
    let cut = share(data.truncated_prompts, data.prompts).max(share(data.truncated_responses, data.rows));
    met([
        (
            data.folded_by_cut,
            format!(
                "{} prompts became the same by the cut at --max-prompt-tokens; raise it, or keep the other end with \
                 --truncate-prompts start",
                data.folded_by_cut
            ),
        ),
        (
            data.alike_by_cut,
            format!(
                "{} responses are the same as another one of their prompt up to the cut, {} of them with another reward: \
                 the model cannot tell them apart; raise --max-response-tokens",
                data.alike_by_cut, data.conflicting_by_cut
            ),
        ),
        (
            usize::from(unknown > MANY_UNKNOWN),
            "many tokens are unknown: this tokenizer is made for other texts".to_string(),
        ),
        (
            usize::from(cut > MANY_CUT),
            "many texts are cut: raise --max-prompt-tokens or --max-response-tokens".to_string(),
        ),
    ])
}
