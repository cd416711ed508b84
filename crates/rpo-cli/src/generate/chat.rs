//! `rpo generate --chat`: a conversation in the terminal, a line a turn.

use std::io::{BufRead, IsTerminal};

use anyhow::{Context, Result, bail};
use rpo::chat::{Prompt, Turn, UseTemplate};
use rpo::generate::{Finish, Request, Said, Texts};
use rpo::model::Config;
use rpo::model::checkpoint::Checkpoint;

use super::arguments::Arguments;
use super::output::print;
use super::texts;
use super::wanted::Wanted;
use crate::interrupt;

/// Talks until the end of input.
pub fn run(arguments: &Arguments, checkpoint: &Checkpoint) -> Result<()> {
    let tokenizer = checkpoint.tokenizer(arguments.how.chat.chat()).context("--chat")?;
    if !tokenizer.writing().has_template() {
        let name = checkpoint.name();
        match checkpoint.config()? {
            Config::T5(_) => {
                bail!("--chat: {name} is an encoder-decoder model, which reads plain text; ask it without --chat")
            }
            Config::Llama(_) if arguments.how.chat.chat_template == UseTemplate::Never => {
                bail!("--chat: a conversation is written by the model's chat template; leave --chat-template never out")
            }
            Config::Llama(_) => bail!(
                "--chat: {name} has no chat template to write a conversation with; put its chat_template.jinja there, or choose \
                 a model that was tuned to chat"
            ),
        }
    }
    let wanted = Wanted::of(arguments, checkpoint, &tokenizer)?;
    let (texts, _) = texts(checkpoint, &tokenizer, &wanted, arguments)?;
    let mut texts = texts.streaming();
    let begin = || arguments.system.iter().map(|text| Turn::new("system", text)).collect::<Vec<_>>();
    let (mut turns, mut asked, mut told) = (begin(), 0, false);
    let people = std::io::stdin().is_terminal();
    if people {
        let name = checkpoint.name();
        tracing::info!("you talk with {name}; /reset begins anew, /exit ends, Ctrl-C breaks an answer off");
    }
    loop {
        if people {
            print("> ")?;
        }
        let mut line = Vec::new();
        if std::io::stdin().lock().read_until(b'\n', &mut line).context("cannot read what you say")? == 0 {
            // The prompt's line has no end yet.
            return if people { print("\n") } else { Ok(()) };
        }
        let Ok(line) = String::from_utf8(line) else {
            tracing::warn!("that line was no UTF-8 and was not said to the model; say it again");
            continue;
        };
        match line.trim() {
            "" => continue,
            "/exit" => return Ok(()),
            "/reset" => {
                turns = begin();
                continue;
            }
            said => turns.push(Turn::new("user", said)),
        }
        let prompt = Prompt::Turns(turns);
        let encoded = tokenizer.ask(&prompt, arguments.how.max_prompt_tokens, arguments.how.truncate_prompts)?;
        if encoded.truncated() && !std::mem::replace(&mut told, true) {
            let limit = arguments.how.max_prompt_tokens;
            tracing::warn!(
                "the conversation has more than {limit} tokens: the model no longer hears its beginning (--max-prompt-tokens)"
            );
        }
        let Prompt::Turns(before) = prompt else { bail!("a conversation is made of turns") };
        turns = before;
        let decoding = wanted.decoding.clone();
        texts.add(Request { prompt: encoded.ids, decoding, index: asked, answers: 1 }, 1)?;
        asked += 1;
        let answer = answer(&mut texts, &wanted.limit())?;
        turns.push(Turn::new("assistant", &answer));
    }
}

/// What the model says, which is printed as it comes; Ctrl-C ends it.
fn answer(texts: &mut Texts<'_>, limit: &str) -> Result<String> {
    let breakable = interrupt::breakable();
    let mut said = String::new();
    while !texts.idle() {
        if breakable.broken() {
            texts.cancel();
        }
        for new in texts.step()? {
            match new {
                Said::Piece { text, .. } => {
                    print(&text)?;
                    said += &text;
                }
                Said::Answer(answer) if answer.finish == Finish::Length => {
                    super::note(limit);
                }
                Said::Answer(_) => {}
            }
        }
    }
    print("\n")?;
    Ok(said)
}
