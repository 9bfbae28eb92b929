//! What people read: tables of facts, jobs and models.

use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{ColumnConstraint, ContentArrangement, Table};

use crate::domain::confidence::Confidence;
use crate::domain::fact::DataModel;
use crate::domain::model::ModelState;
use crate::wire::estimate::Estimate;
use crate::wire::job::{Counts, Job};
use crate::wire::model::Model;

/// Rows of one table of facts; the rest is counted.
const MAX_ROWS: usize = 60;
/// Columns of a terminal that does not say.
const WIDTH: u16 = 120;

/// How rows are laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// Boxes; long ones say how much they leave out.
    Table,
    /// A line for each row, cells between tabs, no head.
    Plain,
}

fn table(head: &[&str]) -> Table {
    let mut table = Table::new();
    table
        .load_style(UTF8_FULL_CONDENSED)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_width(WIDTH)
        .set_header(head.iter().map(|word| (*word).to_string()).collect::<Vec<_>>());
    table
}

/// Rows under a head, or as lines.
pub fn rows<R: IntoIterator<Item = String>>(
    style: Style,
    head: &[&str],
    rows: impl ExactSizeIterator<Item = R>,
) -> String {
    match style {
        Style::Plain => rows.map(plain).collect(),
        Style::Table => {
            let mut table = table(head);
            if let Some(ids) = table.column_mut(0).filter(|_| head[0] == "job") {
                // an id is there to be copied
                ids.set_constraint(ColumnConstraint::ContentWidth);
            }
            let left_out = rows.len().saturating_sub(MAX_ROWS);
            for row in rows.take(MAX_ROWS) {
                table.add_row(row.into_iter().collect::<Vec<_>>());
            }
            match left_out {
                0 => format!("{table}\n"),
                n => format!("{table}\n… and {n} more\n"),
            }
        }
    }
}

/// One line, whatever the cells hold.
fn plain(cells: impl IntoIterator<Item = String>) -> String {
    let one_line = |cell: String| cell.replace(char::is_control, " ");
    let cells: Vec<String> = cells.into_iter().map(one_line).collect();
    format!("{}\n", cells.join("\t"))
}

/// Concepts, relationships and attributes, one table each, and what is not covered.
pub fn data_model(model: &DataModel, style: Style) -> String {
    let mut out = String::new();
    out.push_str(&format!("\nConcepts ({})\n", model.concepts.len()));
    out.push_str(&rows(
        style,
        &["concept", "kind", "tables", "sure", "description"],
        model.concepts.iter().map(|c| {
            [
                c.name.clone(),
                c.kind.as_str().into(),
                c.source_tables.join(", "),
                sure(c.confidence, c.review),
                c.description.clone(),
            ]
        }),
    ));
    out.push_str(&format!("\nRelationships ({})\n", model.relationships.len()));
    out.push_str(&rows(
        style,
        &["from", "relationship", "to", "cardinality", "rests on", "source", "sure"],
        model.relationships.iter().map(|r| {
            [
                r.from.clone(),
                r.name.clone(),
                r.to.clone(),
                r.cardinality.as_str().into(),
                format!("{}({})", r.from_table, r.from_columns.join(", ")),
                r.source.as_str().into(),
                sure(r.confidence, r.review),
            ]
        }),
    ));
    out.push_str(&format!("\nAttributes ({})\n", model.attributes.len()));
    out.push_str(&rows(
        style,
        &["concept", "attribute", "type", "column", "sure", "description"],
        model.attributes.iter().map(|a| {
            [
                a.concept.clone(),
                a.name.clone(),
                a.meaning.as_str().into(),
                format!("{}.{}", a.source_table, a.source_column),
                sure(a.confidence, a.review),
                a.description.clone(),
            ]
        }),
    ));
    let coverage = &model.coverage;
    out.push_str(&format!(
        "\nCovered: {} of {} tables, {} of {} keys, {} of {} columns\n",
        coverage.tables_covered,
        coverage.tables,
        coverage.keys_covered,
        coverage.keys,
        coverage.columns_covered,
        coverage.columns,
    ));
    let review = &model.review;
    let doubtful = review.concepts + review.relationships + review.attributes;
    if doubtful > 0 {
        out.push_str(&format!(
            "For review (?): {} concepts, {} relationships, {} attributes of a confidence below {}\n",
            review.concepts,
            review.relationships,
            review.attributes,
            review.below.as_f64()
        ));
    }
    if !model.uncovered.is_empty() {
        out.push_str(&rows(
            style,
            &["not covered", "table", "columns", "reason", "code"],
            model.uncovered.iter().map(|u| {
                [
                    u.what.as_str().into(),
                    u.table.clone(),
                    u.columns.join(", "),
                    u.reason.as_str().into(),
                    u.code.map(|code| code.to_string()).unwrap_or_default(),
                ]
            }),
        ));
    }
    out
}

/// Percent, marked where somebody should look.
fn sure(confidence: Option<Confidence>, review: bool) -> String {
    let known = confidence.map(|known| format!("{:.0}%", known.as_f64() * 100.0));
    format!("{}{}", known.unwrap_or_default(), if review { " ?" } else { "" }).trim().to_string()
}

/// One line: what became of a job's items so far.
pub fn counts(counts: &Counts) -> String {
    let mut parts = vec![format!("{} of {} items succeeded", counts.succeeded, counts.total)];
    for (n, word) in [
        (counts.failed, "failed"),
        (counts.cancelled, "cancelled"),
        (counts.expired, "expired"),
        (counts.running, "running"),
        (counts.waiting, "waiting"),
    ] {
        if n > 0 {
            parts.push(format!("{n} {word}"));
        }
    }
    parts.join(", ")
}

pub fn jobs(jobs: &[Job], style: Style) -> String {
    rows(
        style,
        &["job", "task", "state", "created", "items", "succeeded", "failed", "waiting"],
        jobs.iter().map(|job| {
            [
                job.id.to_string(),
                job.task.to_string(),
                job.state.as_str().into(),
                job.created_at.format("%Y-%m-%d %H:%M:%S").to_string(),
                job.counts.total.to_string(),
                job.counts.succeeded.to_string(),
                job.counts.failed.to_string(),
                (job.counts.waiting + job.counts.running).to_string(),
            ]
        }),
    )
}

/// One job in full.
pub fn job(job: &Job) -> String {
    let mut out = format!("job     {}\ntask    {}\nstate   {}\n", job.id, job.task, job.state.as_str());
    out.push_str(&format!("items   {}\n", counts(&job.counts)));
    for stage in &job.stages {
        let text = if stage.begun { counts(&stage.counts) } else { "not begun".into() };
        out.push_str(&format!("  {:<13} {text} (model {})\n", stage.stage.as_str(), stage.model));
    }
    let usage = &job.usage;
    out.push_str(&format!(
        "tokens  {} in ({} from the prefix cache), {} out ({} forced)\n",
        usage.prompt_tokens, usage.prefix_hit_tokens, usage.output_tokens, usage.forced_tokens
    ));
    if let Some(rate) = &job.throughput {
        out.push_str(&format!(
            "rate    {:.2} items/s, {:.0} tokens/s in, {:.0} tokens/s out{}\n",
            rate.items_per_s,
            rate.prompt_tokens_per_s,
            rate.output_tokens_per_s,
            rate.eta_s.map(|s| format!(", about {s:.0} s left")).unwrap_or_default()
        ));
    }
    for waits in &job.waiting_for {
        out.push_str(&format!("waits   {}\n", waits.detail));
    }
    if let Some(error) = &job.error {
        out.push_str(&format!("error   {}: {}\n", error.code, error.message));
    }
    for part in job.left_out.iter().take(MAX_ROWS) {
        out.push_str(&format!("left out  line {}, column {}: {}\n", part.line, part.column, part.message));
    }
    if job.left_out_total > MAX_ROWS as u64 {
        out.push_str(&format!("left out  {} parts in all\n", job.left_out_total));
    }
    out
}

pub fn models(models: &[Model], style: Style) -> String {
    rows(
        style,
        &["model", "state", "progress", "memory", "shares base with", "items waiting", "path"],
        models.iter().map(|model| {
            [
                model.id.clone(),
                model.state.as_str().into(),
                progress(model),
                model.plan.as_ref().map(|plan| bytes(plan.needed_bytes)).unwrap_or_default(),
                model.shares_base_with.join(", "),
                model.items_waiting.map(|n| n.to_string()).unwrap_or_default(),
                model.path.clone(),
            ]
        }),
    )
}

/// A row for each stage, and what it rests on.
pub fn estimate(estimate: &Estimate, style: Style) -> String {
    let number = |n: Option<u64>| n.map_or("?".into(), |n| n.to_string());
    let time = |s: Option<f64>| s.map_or("?".into(), |s| format!("{s:.1} s"));
    let mut out = rows(
        style,
        &[
            "stage",
            "model",
            "items",
            "prompt tokens",
            "of them cached",
            "output tokens",
            "waiting ahead",
            "time",
        ],
        estimate.stages.iter().map(|stage| {
            [
                stage.stage.as_str().into(),
                format!("{} ({})", stage.model, stage.model_state.as_str()),
                format!("{}{}", if stage.exact { "" } else { "about " }, stage.items),
                number(stage.prompt_tokens),
                number(stage.prefix_hit_tokens),
                number(stage.output_tokens),
                number(stage.items_ahead),
                time(stage.seconds),
            ]
        }),
    );
    if style == Style::Table {
        let (prompt, output) = (number(estimate.prompt_tokens), number(estimate.output_tokens));
        let seconds = time(estimate.seconds);
        out.push_str(&format!(
            "{} items, {prompt} prompt tokens, {output} output tokens, {seconds}\n",
            estimate.items
        ));
        for stage in &estimate.stages {
            stage.unknown.iter().for_each(|why| out.push_str(&format!("unknown: {why}\n")));
            if stage.too_long > 0 {
                out.push_str(&format!("{} prompts are too long and would fail\n", stage.too_long));
            }
        }
    }
    out
}

/// How far a model is, or what it took.
pub fn progress(model: &Model) -> String {
    match (model.state, &model.progress, &model.error) {
        (ModelState::Loading, Some(p), _) if p.bytes_total > 0 => {
            let stage = format!("{:?}", p.stage).to_lowercase();
            format!("{stage} {} of {}", bytes(p.bytes_done), bytes(p.bytes_total))
        }
        (ModelState::Loading, Some(p), _) => format!("{:?}", p.stage).to_lowercase(),
        (ModelState::Error, _, Some(e)) => format!("{}: {} ({})", e.code, e.message, e.hint),
        (ModelState::Ready, ..) => model.load_s.map(|s| format!("loaded in {s:.1} s")).unwrap_or_default(),
        _ => String::new(),
    }
}

/// Bytes in the largest unit that leaves a number above 1.
pub fn bytes(n: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = n as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < units.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{n} B") } else { format!("{value:.1} {}", units[unit]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_in_units() {
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(1536), "1.5 KiB");
        assert_eq!(bytes(98 << 20), "98.0 MiB");
    }

    #[test]
    fn long_tables_say_what_they_leave_out() {
        let rows: Vec<[String; 1]> = (0..70).map(|n| [n.to_string()]).collect();
        let text = super::rows(Style::Table, &["n"], rows.clone().into_iter());
        assert!(text.contains("and 10 more"), "{text}");
        let text = super::rows(Style::Plain, &["n"], rows.into_iter());
        assert_eq!(text.lines().count(), 70, "plain leaves nothing out");
    }

    #[test]
    fn plain_rows_are_lines() {
        assert_eq!(plain(["a\tb\n".to_string(), "c".to_string()]), "a b \tc\n");
    }
}
