//! The picture: three tables under one line, on a screen or as text.

use std::time::Duration;

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Cell, Paragraph, Row, Table};

use super::look::{EngineView, View};
use crate::cli::report;
use crate::domain::model::ModelState;
use crate::wire::job::Job;
use crate::wire::model::Model;

const MODELS: [&str; 7] = ["model", "state", "progress", "memory", "items", "jobs", "replicas"];
const ENGINES: [&str; 9] =
    ["engine", "running", "queued", "tokens/step", "ms/step", "tok/s in", "tok/s out", "hits", "KV"];
const JOBS: [&str; 8] = ["job", "task", "class", "state", "done", "items/s", "left", "waits for"];

/// Cells of a bar.
const BAR: usize = 12;

pub fn screen(frame: &mut Frame, view: &View, server: &str, age: Duration) {
    let look = &view.look;
    let [head, models, engines, jobs, foot] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(look.models.len() as u16 + 3),
        Constraint::Length(view.engines.len().max(1) as u16 + 3),
        Constraint::Min(4),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    frame.render_widget(Paragraph::new(title(view, server, age)), head);
    let state_style = |model: &Model| Style::new().fg(color(model.state));
    let rows = look.models.iter().map(|model| (model_cells(model), 1, state_style(model)));
    table(frame, models, "Models", &MODELS, &[14, 11, 34, 10, 8, 6, 8], rows);
    let rows = view.engines.iter().map(|engine| (engine_cells(engine), 8, Style::new()));
    table(frame, engines, "Engines", &ENGINES, &[30, 8, 8, 12, 9, 10, 10, 6, 20], rows);
    let rows = look.jobs.iter().map(|job| (job_cells(job, 8), 4, Style::new()));
    let name = format!("Jobs ({})", look.jobs.len());
    table(frame, jobs, &name, &JOBS, &[9, 13, 12, 9, 26, 9, 16, 40], rows);
    frame.render_widget(Line::from("q ends").style(Modifier::DIM), foot);
}

/// Says how old the picture is as soon as it is older than it should be.
fn title<'a>(view: &View, server: &'a str, age: Duration) -> Line<'a> {
    let mut spans = vec![Span::styled("adit ", Modifier::BOLD), Span::raw(server)];
    if let Some(complaint) = &view.complaint {
        let text = format!("  no answer, as of {} s ago: {complaint}", age.as_secs());
        spans.push(Span::styled(text, Style::new().fg(Color::Red).add_modifier(Modifier::BOLD)));
    }
    Line::from(spans)
}

/// One table; each row with the cell that is coloured.
fn table<const N: usize>(
    frame: &mut Frame,
    area: Rect,
    name: &str,
    head: &[&str; N],
    widths: &[u16; N],
    rows: impl Iterator<Item = ([String; N], usize, Style)>,
) {
    let rows = rows.map(|(cells, colored, style)| {
        let cell = |(index, text)| {
            let cell = Cell::new(text);
            if index == colored { cell.style(style) } else { cell }
        };
        Row::new(cells.into_iter().enumerate().map(cell).collect::<Vec<_>>())
    });
    let head = Row::new(head.map(Cell::new)).style(Modifier::DIM);
    let table = Table::new(rows, widths.map(Constraint::Max))
        .header(head)
        .block(Block::bordered().title(name.to_string()));
    frame.render_widget(table, area);
}

fn color(state: ModelState) -> Color {
    match state {
        ModelState::Ready => Color::Green,
        ModelState::Loading => Color::Yellow,
        ModelState::Error => Color::Red,
        ModelState::NotLoaded => Color::DarkGray,
    }
}

/// The same tables as lines.
pub fn text(view: &View, style: report::Style) -> String {
    let models = view.look.models.iter().map(model_cells).collect::<Vec<_>>();
    let engines = view.engines.iter().map(engine_cells).collect::<Vec<_>>();
    let jobs = view.look.jobs.iter().map(|job| job_cells(job, 36)).collect::<Vec<_>>();
    [
        report::rows(style, &MODELS, models.into_iter()),
        report::rows(style, &ENGINES, engines.into_iter()),
        report::rows(style, &JOBS, jobs.into_iter()),
    ]
    .concat()
}

fn model_cells(model: &Model) -> [String; 7] {
    let number = |n: Option<i64>| n.map_or("?".into(), |n| n.to_string());
    let ready = model.replicas.iter().filter(|replica| replica.state == ModelState::Ready).count();
    let state = if model.draining { "draining" } else { model.state.as_str() };
    [
        model.id.clone(),
        state.into(),
        progress(model),
        model.memory.as_ref().map_or(String::new(), |memory| report::bytes(memory.in_use_bytes)),
        number(model.items_waiting),
        number(model.jobs_waiting),
        format!("{ready} of {}", model.replicas.len()),
    ]
}

fn progress(model: &Model) -> String {
    match (&model.progress, &model.error) {
        (Some(progress), _) if progress.bytes_total > 0 => {
            let share = progress.bytes_done as f64 / progress.bytes_total as f64;
            let rest = progress.eta_s.map_or(String::new(), |s| format!(", {s:.0} s left"));
            format!("{} {:.0} %{rest}", bar(share), share * 100.0)
        }
        (_, Some(error)) => format!("{}: {}", error.code, error.hint),
        _ => report::progress(model),
    }
}

fn engine_cells(view: &EngineView) -> [String; 9] {
    let (engine, now) = (&view.engine, &view.engine.now);
    let held = now.kv_blocks_used as f64 / now.kv_blocks_total.max(1) as f64;
    let rate = |of: fn(&super::look::Rates) -> f64| {
        view.rates.as_ref().map_or(String::new(), |rates| format!("{:.0}", of(rates)))
    };
    let hits = view.rates.and_then(|rates| rates.prefix_hit);
    [
        view.models.clone(),
        format!("{} of {}", now.running, engine.max_sequences),
        now.queued.to_string(),
        rate(|rates| rates.rows_per_step),
        format!("{:.1}", now.step_ms),
        rate(|rates| rates.prompt_tokens_per_s),
        rate(|rates| rates.output_tokens_per_s),
        hits.map_or(String::new(), |share| format!("{:.0} %", share * 100.0)),
        format!("{} {:.0} %", bar(held), held * 100.0),
    ]
}

/// `id_len`: how much of the id there is room for.
fn job_cells(job: &Job, id_len: usize) -> [String; 8] {
    let counts = &job.counts;
    let share = counts.ended() as f64 / counts.total.max(1) as f64;
    let id = job.id.to_string();
    let rate = job.throughput.as_ref();
    [
        // the end of a time-ordered id tells jobs apart, its beginning does not
        id[id.len() - id_len.min(id.len())..].to_string(),
        job.task.to_string(),
        job.class.as_str().into(),
        job.state.as_str().into(),
        format!("{} {} of {}", bar(share), counts.ended(), counts.total),
        rate.map_or(String::new(), |rate| format!("{:.2}", rate.items_per_s)),
        job.eta.as_ref().map_or(String::new(), report::left_short),
        job.waiting_for.first().map_or(String::new(), |waits| waits.detail.clone()),
    ]
}

fn bar(share: f64) -> String {
    let full = (share.clamp(0.0, 1.0) * BAR as f64).round() as usize;
    format!("{}{}", "█".repeat(full), "░".repeat(BAR - full))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::super::look::Look;
    use super::*;
    use crate::wire::model::{Engine, EngineNow};

    fn view() -> View {
        let mut model: Model = serde_json::from_value(serde_json::json!({
            "id": "concept", "object": "model", "created": 0, "owned_by": "adit", "state": "ready",
            "path": "/m", "items_waiting": 7, "jobs_waiting": 1,
        }))
        .unwrap();
        let now = EngineNow { running: 3, kv_blocks_used: 50, kv_blocks_total: 100, ..EngineNow::default() };
        model.engine = Some(Engine { max_sequences: 64, now, ..Engine::default() });
        View::new(Look { models: vec![model], jobs: Vec::new(), at: std::time::Instant::now() })
    }

    fn drawn(view: &View) -> String {
        let mut terminal = Terminal::new(TestBackend::new(140, 20)).unwrap();
        terminal.draw(|frame| screen(frame, view, "http://here", Duration::from_secs(9))).unwrap();
        terminal.backend().to_string()
    }

    #[test]
    fn the_screen_shows_models_and_engines_and_says_when_it_is_old() {
        let mut view = view();
        let text = drawn(&view);
        for part in ["http://here", "concept", "ready", "3 of 64", "50 %", "Jobs (0)"] {
            assert!(text.contains(part), "{part} in {text}");
        }
        assert!(!text.contains("no answer"));
        view.complaint = Some("connection refused".into());
        assert!(drawn(&view).contains("no answer, as of 9 s ago: connection refused"));
    }

    #[test]
    fn text_has_a_line_for_each_thing() {
        let text = text(&view(), report::Style::Plain);
        assert_eq!(text.lines().count(), 2, "{text}");
        assert!(text.starts_with("concept\tready\t"), "{text}");
    }
}
