//! A conversation with a model in the terminal, through a pipe.

mod common;

use std::io::{BufReader, Read, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use common::Place;

const CONFIG: &str = r#"{"model_type":"llama","vocab_size":16,"hidden_size":16,"intermediate_size":32,"num_hidden_layers":2,
    "num_attention_heads":4,"num_key_value_heads":2,"bos_token_id":3,"eos_token_id":[1,7],"initializer_range":0.2}"#;
const TEMPLATE: &str = "{{ bos_token }}{% for m in messages %}\n\
    {{ '<' + m.role + '>' + m.content + '<end>' }}\n\
    {% endfor %}\n{% if add_generation_prompt %}<assistant>{% endif %}";

/// A place with a decoder-only model, which has a chat template if it is to `talk`.
fn place(talks: bool) -> Place {
    let place = Place::new();
    let words = ["<s>", "<user>", "<assistant>", "<system>", "<end>", "say", "yes", "no", "please", "thanks"];
    place.write("config.json", CONFIG);
    place.write("tokenizer.json", &rpo::tokenizer::word_level(&words));
    place.write("tokenizer_config.json", r#"{"bos_token":"<s>","eos_token":"</s>"}"#);
    if talks {
        place.write("chat_template.jinja", TEMPLATE);
    }
    place.ok("init --config config.json --tokenizer tokenizer.json --out model");
    place
}

const CHAT: &str = "generate --model model --preset plain --sample --chat";

fn talk(place: &Place, arguments: &str) -> (Child, ChildStdin, ChildStdout) {
    let mut command = place.command(env!("CARGO_BIN_EXE_rpo"));
    let command = command.args(arguments.split(' ')).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.stderr(Stdio::piped()).spawn().expect("runs");
    let (to, from) = (child.stdin.take().expect("input"), child.stdout.take().expect("output"));
    (child, to, from)
}

/// What is answered to these lines, all of them at once.
fn answers(place: &Place, arguments: &str, lines: impl AsRef<[u8]>) -> Vec<String> {
    let (mut child, mut to, mut from) = talk(place, arguments);
    to.write_all(lines.as_ref()).expect("written");
    drop(to);
    let mut said = String::new();
    from.read_to_string(&mut said).expect("text");
    assert!(child.wait().expect("ends").success());
    said.lines().map(str::to_string).collect()
}

#[test]
fn a_turn_is_answered_as_the_whole_conversation_is() {
    let place = place(true);
    let ask = format!("{CHAT} --max-new-tokens 6 --greedy").replace(" --sample", "");
    let said = answers(&place, &ask, "say\n\n  no please \n/reset\nsay\n/exit\nthanks\n");
    assert_eq!(said.len(), 3, "blank lines ask nothing, and nothing is heard after /exit: {said:?}");
    assert_eq!(said[0], said[2], "after /reset nothing is remembered");
    let turn = |role: &str, text: &str| serde_json::json!({"role": role, "content": text});
    let turns = [turn("user", "say"), turn("assistant", &said[0]), turn("user", "no please")];
    place.write("asked.jsonl", &serde_json::json!({"prompt": turns}).to_string());
    let once = place.ok("generate --model model --preset plain --max-new-tokens 6 --input asked.jsonl");
    assert_eq!(once.trim_end_matches('\n'), said[1]);
    let told = answers(&place, &format!("{ask} --system thanks\u{a0}thanks").replace('\u{a0}', "-"), "say\n");
    assert_eq!(told.len(), 1);
    let drawn = answers(&place, &format!("{CHAT} --max-new-tokens 40 --min-new-tokens 40"), "say\n/reset\nsay\n");
    assert_ne!(drawn[0], drawn[1], "drawn anew");
    assert_eq!(answers(&place, &ask, b"\xff\xfe\nsay\n"), [said[0].clone()], "a line that is no text is not said");
}

#[test]
fn what_goes_beyond_the_texts_that_a_model_is_made_for_is_told() {
    let place = place(false);
    let config = CONFIG.replacen('{', r#"{"max_position_embeddings":8,"#, 1);
    place.write("config.json", &config);
    place.ok("init --config config.json --tokenizer tokenizer.json --out short");
    let told = |tokens: usize| {
        let ask = format!("generate --model short --preset plain --max-new-tokens {tokens} say\u{a0}yes\u{a0}no");
        String::from_utf8_lossy(&place.run(&ask).stderr).contains("more than the 8 tokens that the model is made for")
    };
    assert_eq!((told(4), told(9)), (false, true));
}

#[test]
#[cfg(unix)]
fn ctrl_c_breaks_off_an_answer_and_at_the_prompt_the_program() {
    let place = place(true);
    let (mut child, mut to, from) = talk(&place, &format!("{CHAT} --max-new-tokens 1000000 --min-new-tokens 1000000"));
    let mut from = BufReader::new(from);
    let id = child.id().to_string();
    let interrupt = || assert!(Command::new("kill").args(["-INT", &id]).status().expect("kill").success());
    for _ in 0..2 {
        to.write_all(b"say\n").expect("written");
        let mut some = [0; 20];
        from.read_exact(&mut some).expect("an answer that goes on");
        interrupt();
        let mut byte = [0];
        while byte != *b"\n" {
            from.read_exact(&mut byte).expect("the rest of it");
        }
    }
    // The line's end comes before the program listens again.
    std::thread::sleep(std::time::Duration::from_millis(300));
    interrupt();
    assert_eq!(child.wait().expect("ends").code(), Some(130));
}

#[test]
fn without_a_chat_template_there_is_no_chat() {
    let bare = place(false);
    let said = bare.complaint(CHAT);
    assert!(said.contains("has no chat template to write a conversation with"), "{said}");
    let said = place(true).complaint(&format!("{CHAT} --chat-template never"));
    assert!(said.contains("leave --chat-template never out"), "{said}");
    bare.write("t5.json", common::CONFIG);
    bare.ok("init --config t5.json --tokenizer tokenizer.json --out t5");
    let said = bare.complaint(&CHAT.replace("--model model", "--model t5"));
    assert!(said.contains("an encoder-decoder model, which reads plain text"), "{said}");
    assert!(bare.complaint("generate --model model --system x say").contains("--chat"));
}
