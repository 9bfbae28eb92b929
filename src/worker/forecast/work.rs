//! What one item of a stage will take: from the job's own items that have ended, from its prompts, and from what
//! like items took.

use super::world::Item;
use crate::domain::task::Stage;
use crate::store::experience::Experience;

/// Own items that weigh as much as everything else that is known.
const OWN_WEIGHT: f64 = 4.0;
/// Answers of schema stages grow with the prompt, for they have an entry for each of its objects; within this factor.
const MAX_SCALE: f64 = 3.0;
/// Tokens of a block that a sequence does not fill, on average.
const BLOCK_REST: f64 = 8.0;

/// A stage's prompts, by the model's tokenizer.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Prompts {
    pub items: f64,
    /// Of one, on average.
    pub tokens: f64,
    /// Of those, what all share.
    pub head: f64,
    /// Bound on the answer's tokens, on average.
    pub answer_limit: f64,
}

/// What items of the same model and stage took of late.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Like {
    /// Of jobs that asked the same.
    pub same: Experience,
    pub all: Experience,
}

impl Like {
    fn best(&self) -> Option<&Experience> {
        [&self.same, &self.all].into_iter().find(|experience| experience.items > 0.0)
    }
}

/// What an engine makes of tokens.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Habits {
    /// Rows of forward passes for each token that had to be computed: drafts that did not come true, work that was
    /// done twice.
    pub rows_per_token: f64,
    /// Steps for each token that was chosen: less than one where drafts come true.
    pub steps_per_token: f64,
    pub max_step_rows: f64,
}

/// Tokens of one item, on average.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Tokens {
    /// Of the prompt, those that the prefix cache has not.
    pub fresh: f64,
    /// Of the answer.
    pub answered: f64,
    /// Of those, the ones that are chosen; the schema forces the others.
    pub chosen: f64,
    /// What the engine's fairness charges: the prompt, and the answer at its longest.
    pub charge: f64,
}

impl Tokens {
    pub fn item(&self, habits: &Habits) -> Item {
        let prefill_steps = (self.fresh / habits.max_step_rows).max(1.0);
        Item {
            rows: (self.fresh + self.answered).max(1.0) * habits.rows_per_token,
            steps: self.chosen * habits.steps_per_token + prefill_steps,
            held: self.fresh + self.answered + BLOCK_REST,
            charge: self.charge.max(1.0),
        }
    }
}

/// `own`: the job's items of this stage that have ended. `None`: nobody can tell yet.
pub fn expected(stage: Stage, own: &Experience, like: &Like, prompts: Option<&Prompts>) -> Option<Tokens> {
    let mean = |of: f64| of / own.items;
    let prior = before(stage, like, prompts);
    if own.items <= 0.0 {
        return prior;
    }
    let own_mean = Tokens {
        fresh: mean(own.prompt_tokens - own.prefix_hit_tokens),
        answered: mean(own.output_tokens),
        chosen: mean(own.output_tokens - own.forced_tokens),
        charge: prior.map_or(mean(own.prompt_tokens + own.output_tokens), |prior| prior.charge),
    };
    let Some(prior) = prior else { return Some(own_mean) };
    let trust = own.items / (own.items + OWN_WEIGHT);
    let mix = |own: f64, prior: f64| own * trust + prior * (1.0 - trust);
    Some(Tokens {
        fresh: mix(own_mean.fresh, prior.fresh),
        answered: mix(own_mean.answered, prior.answered),
        chosen: mix(own_mean.chosen, prior.chosen),
        charge: prior.charge,
    })
}

/// Before an item of the job has ended.
fn before(stage: Stage, like: &Like, prompts: Option<&Prompts>) -> Option<Tokens> {
    let known = like.best()?;
    let mean = |of: f64| of / known.items;
    let of_answer = |scale: f64, fresh: f64, charge: f64| Tokens {
        fresh,
        answered: scale * mean(known.output_tokens),
        chosen: scale * mean(known.output_tokens - known.forced_tokens),
        charge,
    };
    let Some(prompts) = prompts else {
        let fresh = mean(known.prompt_tokens - known.prefix_hit_tokens);
        return Some(of_answer(1.0, fresh, mean(known.prompt_tokens + known.output_tokens)));
    };
    let hits = if like.same.items > 0.0 {
        like.same.prefix_hit_tokens / like.same.items
    } else {
        prompts.head * (prompts.items - 1.0).max(0.0) / prompts.items.max(1.0)
    };
    // prompts that repeat altogether are no rule
    let fresh = prompts.tokens - hits.min(prompts.head);
    let scale = match stage {
        Stage::Concept | Stage::Relationship | Stage::Attribute => {
            let theirs = mean(known.prompt_tokens) - prompts.head;
            let ours = prompts.tokens - prompts.head;
            if theirs >= 1.0 { (ours / theirs).clamp(1.0 / MAX_SCALE, MAX_SCALE) } else { 1.0 }
        }
        Stage::Custom | Stage::Chat => 1.0,
    };
    Some(of_answer(scale, fresh, prompts.tokens + prompts.answer_limit))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn took(items: f64, prompt: f64, hits: f64, output: f64, forced: f64) -> Experience {
        Experience {
            items,
            prompt_tokens: items * prompt,
            prefix_hit_tokens: items * hits,
            output_tokens: items * output,
            forced_tokens: items * forced,
        }
    }

    #[test]
    fn nothing_known_is_nothing_told() {
        let prompts = Prompts { items: 3.0, tokens: 100.0, head: 50.0, answer_limit: 10.0 };
        assert_eq!(expected(Stage::Custom, &Experience::default(), &Like::default(), Some(&prompts)), None);
    }

    #[test]
    fn own_items_replace_what_was_expected() {
        let like = Like { same: Experience::default(), all: took(50.0, 100.0, 60.0, 20.0, 10.0) };
        let at = |n: f64| {
            let own = took(n, 200.0, 80.0, 40.0, 30.0);
            expected(Stage::Custom, &own, &like, None).unwrap()
        };
        assert_eq!(at(0.0).answered, 20.0);
        assert_eq!(at(4.0).answered, 30.0);
        assert!((at(4_000.0).answered - 40.0).abs() < 0.1 && (at(4_000.0).fresh - 120.0).abs() < 0.2);
    }

    #[test]
    fn jobs_that_asked_the_same_count_before_others_and_longer_prompts_have_longer_answers() {
        let like =
            Like { same: took(10.0, 300.0, 200.0, 50.0, 30.0), all: took(90.0, 900.0, 0.0, 500.0, 0.0) };
        let prompts = Prompts { items: 5.0, tokens: 400.0, head: 200.0, answer_limit: 100.0 };
        let tokens = expected(Stage::Attribute, &Experience::default(), &like, Some(&prompts)).unwrap();
        assert_eq!(tokens, Tokens { fresh: 200.0, answered: 100.0, chosen: 40.0, charge: 500.0 });
        let custom = expected(Stage::Custom, &Experience::default(), &like, Some(&prompts)).unwrap();
        assert_eq!(custom.answered, 50.0);
    }
}
