//! `config.json` of each family, `adapter_config.json`, `generation_config.json`.

use rpo::burn::tensor::Device;
use rpo::generate::{Decoding, StoredDecoding};
use rpo::model::checkpoint::Checkpoint;
use rpo::model::encoder::Files;

use super::{Copy, names};

fn load(copy: &Copy) -> String {
    let loaded = Checkpoint::open(copy.0.path()).and_then(|c| c.load(&Device::flex()));
    loaded.map(drop).expect_err("refused").to_string()
}

const HUGE: &str = "9223372036854775816";

#[test]
fn sizes_of_t5() {
    for (field, value, said) in [
        // 2^63 + 8, which wraps with two heads.
        ("d_kv", HUGE, "d_kv is 9223372036854775816"),
        ("num_heads", HUGE, "num_heads is"),
        ("d_model", "18446744073709551615", "d_model is"),
        ("d_ff", "1099511627776", "d_ff is"),
        ("vocab_size", "4611686018427387904", "vocab_size is"),
        ("num_layers", "1000000000", "num_layers is 1000000000; at most 4096"),
        ("num_decoder_layers", "1000000000", "num_decoder_layers is"),
        ("relative_attention_num_buckets", "4294967296", "relative_attention_num_buckets is"),
        ("relative_attention_max_distance", HUGE, "relative_attention_max_distance is"),
        ("d_model", "0", "d_model is 0"),
        ("d_model", "-1", "invalid value"),
        ("d_model", "1e3", "invalid type"),
        ("d_model", "1e999", "out of range"),
        ("layer_norm_epsilon", "0", "layer_norm_epsilon is 0"),
        ("layer_norm_epsilon", "-1e-6", "layer_norm_epsilon is"),
        ("layer_norm_epsilon", "1e-300", "layer_norm_epsilon is"),
        ("layer_norm_epsilon", "1e300", "layer_norm_epsilon is"),
        ("initializer_factor", "-1", "initializer_factor is"),
        ("initializer_factor", "1e300", "initializer_factor is"),
        ("dropout_rate", "1.5", "dropout_rate is 1.5"),
        ("dropout_rate", "-0.1", "dropout_rate is"),
        ("dropout_rate", "\"none\"", "dropout_rate is \"none\", which is no number"),
        ("pad_token_id", "47", "pad_token_id 47 is outside"),
        ("eos_token_id", "4294967296", "invalid value"),
        ("vocab_size", "16777216", "shape"),
    ] {
        let copy = Copy::of("relu_tied");
        copy.set("config.json", field, value);
        names(&load(&copy), if said == "shape" { "model.safetensors" } else { "config.json" }, said, field);
    }
    // Sizes that are allowed each by itself.
    let copy = Copy::of("relu_tied");
    copy.set("config.json", "vocab_size", "16777216");
    copy.set("config.json", "d_model", "131072");
    names(&load(&copy), "config.json", "vocab_size 16777216 times d_model 131072", "product");
}

#[test]
fn sizes_and_angles_of_decoders() {
    for (field, value, said) in [
        ("head_dim", HUGE, "head_dim is"),
        ("num_attention_heads", HUGE, "num_attention_heads is"),
        ("num_key_value_heads", "0", "num_key_value_heads is 0"),
        ("num_hidden_layers", "1000000000", "num_hidden_layers is"),
        ("hidden_size", HUGE, "hidden_size is"),
        ("intermediate_size", HUGE, "intermediate_size is"),
        ("vocab_size", HUGE, "vocab_size is"),
        ("rms_norm_eps", "0.0", "rms_norm_eps is 0"),
        ("attention_dropout", "2", "attention_dropout is 2"),
        ("rope_theta", "0.0", "rope_theta is 0"),
        ("rope_theta", "-1.0", "rope_theta is -1"),
        ("rope_theta", "1e308", "rope_theta is"),
        ("max_position_embeddings", "-5", "max_position_embeddings is -5"),
        ("max_position_embeddings", "1e300", "max_position_embeddings is"),
        ("rope_scaling", r#"{"rope_type":"linear","factor":0}"#, "factor is 0"),
        ("rope_scaling", r#"{"rope_type":"linear","factor":-2}"#, "factor is -2"),
        ("rope_scaling", r#"{"rope_type":"yarn","factor":1e300}"#, "factor is"),
        (
            "rope_scaling",
            r#"{"rope_type":"llama3","factor":8,"low_freq_factor":2,"high_freq_factor":2,"original_max_position_embeddings":0}"#,
            "original_max_position_embeddings is 0",
        ),
        ("rope_scaling", r#"{"rope_type":"yarn","factor":2,"attention_factor":-1}"#, "attention_factor is -1"),
        ("rope_scaling", r#"{"rope_type":"yarn","factor":2,"rope_theta":1}"#, "no finite numbers"),
        ("initializer_range", "-0.02", "initializer_range is"),
        ("eos_token_id", "[1,53]", "special token 53 is outside"),
    ] {
        let copy = Copy::of("llama");
        copy.set("config.json", field, value);
        names(&load(&copy), "config.json", said, field);
    }
}

#[test]
fn sizes_of_encoders() {
    for (field, value, said) in [
        ("hidden_size", HUGE, "hidden_size is"),
        ("max_position_embeddings", HUGE, "max_position_embeddings is"),
        ("type_vocab_size", HUGE, "type_vocab_size is"),
        ("num_hidden_layers", "1000000000", "num_hidden_layers is"),
        ("layer_norm_eps", "0", "layer_norm_eps is 0"),
        ("vocab_size", "0", "vocab_size is 0"),
    ] {
        let copy = Copy::of("encoders/bert");
        copy.set("config.json", field, value);
        let found = Files::find(&copy.0.path().display().to_string());
        names(&found.map(drop).expect_err(field).to_string(), "config.json", said, field);
    }
}

/// Settings that are no settings, in each file of settings.
#[test]
fn settings_that_are_none() {
    let deep = format!("{}{}", "{\"a\":".repeat(100_000), "}".repeat(100_000));
    let long = format!("{{\"a\":\"{}\"}}", "x".repeat(17 << 20));
    for (what, text) in [
        ("empty", ""),
        ("no JSON", "model"),
        ("a list", "[]"),
        ("no object", "3"),
        ("cut off", "{\"model_type\":\"t5\""),
        ("deep", deep.as_str()),
        ("long", long.as_str()),
        ("zeros", "\0\0\0\0"),
        ("not UTF-8", "{\"model_type\":\"\u{fffd}"),
    ] {
        let copy = Copy::of("relu_tied");
        copy.write("config.json", text);
        names(&load(&copy), "config.json", "", what);
        let copy = Copy::of("relu_tied");
        copy.write("generation_config.json", text);
        let read = StoredDecoding::read(copy.0.path(), &Decoding::default()).map(drop);
        names(&read.expect_err(what).to_string(), "generation_config.json", "", what);
        let copy = Copy::of("lora_llama");
        copy.write("adapter_config.json", text);
        names(&load(&copy), "adapter_config.json", "", what);
    }
}

#[test]
fn adapters() {
    for (field, value, said) in [
        ("lora_alpha", "1e300", "the adapter is broken"),
        ("base_model_name_or_path", "\"\"", "is missing"),
        ("base_model_name_or_path", "\".\"", "base_model_name_or_path is `.`"),
        ("base_model_name_or_path", "\"/dev/zero\"", "base_model_name_or_path is `/dev/zero`"),
        ("base_model_name_or_path", "\"\\u0000\"", "base_model_name_or_path is"),
        ("alpha_pattern", "{\"(a+)+$\":1}", "alpha_pattern has `(a+)+$`"),
    ] {
        let copy = Copy::of("lora_llama");
        copy.set("adapter_config.json", "base_model_name_or_path", &format!("{:?}", super::goldens().join("llama")));
        copy.set("adapter_config.json", field, value);
        names(&load(&copy), "adapter", said, value);
    }
}

#[test]
fn decoding_settings_have_ranges() {
    for (field, value) in [
        ("num_beams", "1000000000000"),
        ("num_beams", "0"),
        ("temperature", "-1"),
        ("temperature", "1e39"),
        ("top_p", "2"),
        ("typical_p", "-1"),
        ("repetition_penalty", "0"),
        ("length_penalty", "1e999"),
        ("max_new_tokens", "-1"),
        ("bad_words_ids", "[[]]"),
        ("sequence_bias", "[[[1],1e39]]"),
        ("suppress_tokens", "[4294967295]"),
        ("eos_token_id", "[4294967296]"),
    ] {
        let copy = Copy::of("llama");
        copy.set("generation_config.json", field, value);
        let read = StoredDecoding::read(copy.0.path(), &Decoding::default());
        let checked = read.and_then(|stored| {
            let decoding = stored.expect("there").decoding;
            decoding.validate().and_then(|()| decoding.validate_for(53))
        });
        assert!(checked.is_err(), "{field} {value} was taken");
    }
}

#[cfg(unix)]
#[test]
fn only_plain_files_of_the_directory_are_a_model() {
    use std::os::unix::fs::symlink;
    let outside = Copy::of("relu_tied");
    for name in
        ["config.json", "model.safetensors", "generation_config.json", "tokenizer.json", "tokenizer_config.json"]
    {
        let copy = Copy::of("relu_tied");
        let at = copy.path(name);
        let _ = std::fs::remove_file(&at);
        super::pipe(&at);
        names(&load(&copy), name, "a named pipe (FIFO)", "pipe");
        std::fs::remove_file(&at).expect("removed");
        std::fs::create_dir(&at).expect("directory");
        names(&load(&copy), name, "a directory", "directory");
        std::fs::remove_dir(&at).expect("removed");
        symlink("/dev/zero", &at).expect("link");
        names(&load(&copy), name, "a link out of its directory", "device");
        std::fs::remove_file(&at).expect("removed");
        symlink(outside.path("config.json"), &at).expect("link");
        names(&load(&copy), name, "a link out of its directory", "link");
    }
    // As the hub's cache has it, and a directory that is a link itself.
    let cache = tempfile::tempdir().expect("directory");
    let (blobs, snapshot) = (cache.path().join("models--a--b/blobs"), cache.path().join("models--a--b/snapshots/0123"));
    std::fs::create_dir_all(&blobs).expect("directory");
    std::fs::create_dir_all(&snapshot).expect("directory");
    for (i, name) in ["config.json", "model.safetensors"].into_iter().enumerate() {
        std::fs::copy(outside.path(name), blobs.join(i.to_string())).expect("copied");
        symlink(format!("../../blobs/{i}"), snapshot.join(name)).expect("link");
    }
    let by_link = cache.path().join("link");
    symlink(&snapshot, &by_link).expect("link");
    for dir in [&snapshot, &by_link] {
        Checkpoint::open(dir).and_then(|c| c.load(&Device::flex())).expect("a snapshot");
    }
}
