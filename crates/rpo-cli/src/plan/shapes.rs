//! Models by name, as far as their shape goes.

use std::path::Path;

use anyhow::Result;
use rpo::model::Config;
use rpo::model::checkpoint::Checkpoint;
use rpo::store::text_of;

/// Width, width of the feed-forward layers, layers of each stack, heads of Flan-T5, whose shapes are asked for before anything is
/// downloaded. From the models' `config.json`.
const FLAN_T5: [(&str, [usize; 4]); 5] = [
    ("small", [512, 1024, 8, 6]),
    ("base", [768, 2048, 12, 12]),
    ("large", [1024, 2816, 24, 16]),
    ("xl", [2048, 5120, 24, 32]),
    ("xxl", [4096, 10240, 24, 64]),
];

/// The shape of a model directory, a hub id or a `config.json`.
pub fn find(name: &str) -> Result<Config> {
    let path = Path::new(name);
    if path.is_file() {
        return Config::parse(&text_of(path)?).map_err(|problem| anyhow::anyhow!("{name}: {problem}"));
    }
    let known = FLAN_T5.iter().find(|(size, _)| !path.exists() && name == format!("google/flan-t5-{size}"));
    if let Some((_, [d_model, d_ff, layers, heads])) = known {
        let text = format!(
            r#"{{"model_type":"t5","vocab_size":32128,"d_model":{d_model},"d_kv":64,"d_ff":{d_ff},"num_layers":{layers},
            "num_decoder_layers":{layers},"num_heads":{heads},"feed_forward_proj":"gated-gelu","tie_word_embeddings":false}}"#
        );
        return Config::parse(&text).map_err(anyhow::Error::msg);
    }
    Ok(Checkpoint::find(name)?.config()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sizes_of_flan_t5() {
        // As their authors and the hub give them: 77 M, 248 M, 783 M, 2.85 B and 11.1 B.
        for (size, millions) in [("small", 77.0), ("base", 248.0), ("large", 783.0), ("xl", 2850.0), ("xxl", 11135.0)] {
            let found = find(&format!("google/flan-t5-{size}")).expect("known").parameters() as f64 / 1e6;
            assert!((found / millions - 1.0).abs() < 0.005, "{size}: {found} million");
        }
    }
}
