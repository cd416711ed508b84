//! Names of the files of a model's directory.

pub(super) const CONFIG: &str = "config.json";
pub(super) const TOKENIZER: &str = "tokenizer.json";
pub(super) const TOKENIZER_CONFIG: &str = "tokenizer_config.json";
pub(super) const GENERATION: &str = "generation_config.json";
/// What else belongs to a model and is carried along unchanged.
pub(super) const COMPANIONS: [&str; 6] =
    [TOKENIZER, TOKENIZER_CONFIG, "chat_template.jinja", "special_tokens_map.json", "spiece.model", GENERATION];
