//! The dashboard for Grafana shows every metric, and no other.

use std::collections::BTreeSet;

use adit::telemetry::metric::{Kind, Metric};
use serde_json::Value;

fn dashboard() -> Value {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/samples/grafana.json");
    serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap()
}

/// Names in an expression that begin as ours do.
fn names(expression: &str) -> impl Iterator<Item = &str> {
    let is_of_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    expression.split(move |c: char| !is_of_name(c)).filter(|word| word.starts_with("adit_"))
}

#[test]
fn the_dashboard_shows_every_metric_and_no_other() {
    let dashboard = dashboard();
    let mut shown = BTreeSet::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().into_iter().flatten() {
            let expression = target["expr"].as_str().unwrap();
            let open = expression.matches(['(', '{', '[']).count();
            assert_eq!(open, expression.matches([')', '}', ']']).count(), "{expression}");
            for name in names(expression) {
                let of = |metric: &Metric| match metric.kind() {
                    Kind::Histogram => ["_bucket", "_sum", "_count"]
                        .iter()
                        .any(|end| name == format!("{}{end}", metric.name())),
                    Kind::Counter | Kind::Gauge => name == metric.name(),
                };
                let metric = Metric::ALL.iter().find(|metric| of(metric));
                shown.insert(metric.unwrap_or_else(|| panic!("{name} is no metric of adit")).name());
                let is_rate = expression.contains("rate(");
                assert_eq!(
                    metric.is_some_and(|metric| metric.kind() != Kind::Gauge),
                    is_rate,
                    "{expression}"
                );
            }
        }
    }
    let all: BTreeSet<&str> = Metric::ALL.iter().map(|metric| metric.name()).collect();
    assert_eq!(shown, all);
}

#[test]
fn panels_have_a_place_of_their_own() {
    let dashboard = dashboard();
    let mut taken = BTreeSet::new();
    let mut ids = BTreeSet::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "{panel}");
        let at = |key: &str| panel["gridPos"][key].as_u64().unwrap();
        for x in at("x")..at("x") + at("w") {
            for y in at("y")..at("y") + at("h") {
                assert!(x < 24 && taken.insert((x, y)), "{} at {x}, {y}", panel["title"]);
            }
        }
    }
}
