//! An answer as it is spoken: tokens into text, up to a stop text if one comes.

use std::sync::Arc;

use crate::domain::chat::{Alternative, Finish, TokenLogprob};
use crate::domain::usage::Usage;
use crate::engine::handle::Following;
use crate::engine::request::{self, EngineError, Logprob, Request};
use crate::models::decoder::Decoder;
use crate::models::served::Served;

/// Stands for "so improbable that the number does not matter", which JSON has no number for.
const LEAST_LOGPROB: f32 = -9999.0;

/// An answer on its way. Dropping it takes its sequence out of the engine within one step.
pub struct Speech {
    served: Arc<Served>,
    /// `None`: it has ended.
    following: Option<Following>,
    decoder: Decoder,
    stops: Stops,
    end: Option<(Finish, Usage)>,
}

/// What a step added. The text may lag behind the tokens: letters and stop texts are waited for.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Piece {
    pub text: String,
    /// If they were asked for.
    pub logprobs: Vec<TokenLogprob>,
}

impl Speech {
    pub fn begin(served: Arc<Served>, request: Request, stop: Vec<String>) -> Result<Self, EngineError> {
        let following = served.engine().follow(request)?;
        let decoder = served.decoder();
        let stops = Stops { texts: stop, held: String::new() };
        Ok(Self { served, following: Some(following), decoder, stops, end: None })
    }

    /// The next piece, never an empty one; `None` at the end, which [`Speech::end`] then tells of.
    pub async fn next(&mut self) -> Result<Option<Piece>, EngineError> {
        loop {
            let Some(following) = &mut self.following else { return Ok(None) };
            let piece = match following.next().await {
                Some(news) => {
                    let logprobs = logprobs(&self.served, &news.tokens, &news.logprobs);
                    let (text, is_stopped) = self.stops.push(&self.decoder.push(&news.tokens));
                    if is_stopped {
                        self.end = Some((Finish::Stop, news.usage));
                        self.following = None;
                    }
                    Piece { text, logprobs }
                }
                None => self.last().await?,
            };
            if !piece.text.is_empty() || !piece.logprobs.is_empty() {
                return Ok(Some(piece));
            }
        }
    }

    /// How it ended; `None` while it goes on.
    pub fn end(&self) -> Option<(Finish, Usage)> {
        self.end
    }

    /// The engine has no more tokens; what the decoder and the stops held back is said now.
    async fn last(&mut self) -> Result<Piece, EngineError> {
        let Some(following) = self.following.take() else { return Ok(Piece::default()) };
        let completion = following.completion().await?;
        let (mut text, is_stopped) = self.stops.push(&self.decoder.finish());
        if !is_stopped {
            text.push_str(&std::mem::take(&mut self.stops.held));
        }
        let finish = if is_stopped { Finish::Stop } else { finish(completion.finish) };
        self.end = Some((finish, completion.usage));
        Ok(Piece { text, logprobs: Vec::new() })
    }
}

/// The engine's word in the domain's.
pub fn finish(finish: request::Finish) -> Finish {
    match finish {
        request::Finish::Stop => Finish::Stop,
        request::Finish::Length => Finish::Length,
    }
}

/// The engine's probabilities with the tokens' texts.
pub fn logprobs(served: &Served, tokens: &[u32], logprobs: &[Logprob]) -> Vec<TokenLogprob> {
    let alternative = |token: u32, logprob: f32| {
        let bytes = served.token_bytes(token).to_vec();
        let token = String::from_utf8_lossy(&bytes).into_owned();
        Alternative { token, logprob: logprob.max(LEAST_LOGPROB), bytes }
    };
    let one = |(token, own): (&u32, &Logprob)| TokenLogprob {
        token: alternative(*token, own.logprob),
        top: own.top.iter().map(|(token, logprob)| alternative(*token, *logprob)).collect(),
    };
    tokens.iter().zip(logprobs).map(one).collect()
}

/// Looks for texts that end the answer, and holds back what may be the beginning of one.
struct Stops {
    texts: Vec<String>,
    held: String,
}

impl Stops {
    /// What may be said now, and whether it ends there.
    fn push(&mut self, text: &str) -> (String, bool) {
        self.held.push_str(text);
        let found = self.texts.iter().filter_map(|stop| self.held.find(stop.as_str())).min();
        if let Some(at) = found {
            self.held.truncate(at);
            return (std::mem::take(&mut self.held), true);
        }
        let held = self.held.as_str();
        let may_begin = |at: &usize| {
            held.is_char_boundary(*at) && self.texts.iter().any(|stop| stop.starts_with(&held[*at..]))
        };
        let longest = self.texts.iter().map(String::len).max().unwrap_or(0);
        let kept = (held.len().saturating_sub(longest)..held.len()).find(may_begin).unwrap_or(held.len());
        let rest = self.held.split_off(kept);
        (std::mem::replace(&mut self.held, rest), false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whatever the pieces, the text up to the first stop is said, and nothing after it.
    #[test]
    fn stops_are_found_across_pieces() {
        let text = "one ENDING two ENé three";
        for (stops, said) in [
            (vec!["ENDING"], "one "),
            (vec!["EN", "ENDING"], "one "),
            (vec!["ENé"], "one ENDING two "),
            (vec!["none", "thres"], text),
            (vec![], text),
        ] {
            for size in 1..text.len() {
                let mut scan =
                    Stops { texts: stops.iter().map(ToString::to_string).collect(), held: String::new() };
                let (mut out, mut stopped) = (String::new(), false);
                let letters: Vec<char> = text.chars().collect();
                for piece in letters.chunks(size) {
                    let (more, is_stopped) = scan.push(&piece.iter().collect::<String>());
                    out.push_str(&more);
                    if is_stopped {
                        stopped = true;
                        break;
                    }
                }
                if !stopped {
                    out.push_str(&scan.held);
                }
                assert_eq!(out, said, "{stops:?} in pieces of {size}");
            }
        }
    }
}
