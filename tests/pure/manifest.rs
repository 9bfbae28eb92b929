//! dbt's `manifest.json`: tables, columns and what tests and constraints make of them.

use std::collections::BTreeMap;

use adit::domain::catalog::Table;
use adit::extract::source::dbt_manifest::read;
use adit::extract::source::{JsonKind, json_kind};

const MANIFEST: &str = include_str!("../fixtures/sources/manifest.json");

fn tables() -> BTreeMap<String, Table> {
    let catalog = read(MANIFEST, false).unwrap().catalog;
    catalog.tables.into_iter().map(|table| (table.name.clone(), table)).collect()
}

#[test]
fn models_seeds_and_sources_are_tables() {
    let tables = tables();
    let names: Vec<&str> = tables.keys().map(String::as_str).collect();
    // two of one name are told apart by their schema; the ephemeral model is in no database
    assert_eq!(names, ["analytics.customers", "countries", "order_lines_v2", "orders", "raw.customers"]);
    assert_eq!(tables["orders"].comment.as_deref(), Some("One row per order,\nas of now."));
    let customers = &tables["analytics.customers"];
    assert_eq!(customers.column("email").unwrap().data_type, "varchar(80)");
    assert_eq!(customers.column("customer_id").unwrap().comment.as_deref(), Some("Given by the shop."));
}

#[test]
fn tests_and_constraints_are_keys() {
    let tables = tables();
    let customers = &tables["analytics.customers"];
    assert_eq!(customers.primary_key, ["customer_id"]);
    // a test of some rows makes no column unique
    assert!(customers.unique.is_empty() && customers.column("email").unwrap().nullable);
    let orders = &tables["orders"];
    assert_eq!(
        (orders.primary_key.as_slice(), orders.column("order_id").unwrap().nullable),
        (&["order_id".to_string()][..], false)
    );
    let keys: Vec<_> = orders
        .foreign_keys
        .iter()
        .map(|k| (&k.columns[0][..], &k.ref_table[..], &k.ref_columns[0][..]))
        .collect();
    assert_eq!(
        keys,
        [("customer_id", "analytics.customers", "customer_id"), ("parent_order_id", "orders", "order_id")]
    );
    assert_eq!(
        orders.column("status").unwrap().comment.as_deref(),
        Some("Where it stands. One of: placed, shipped, 3")
    );
    let lines = &tables["order_lines_v2"];
    assert_eq!(lines.foreign_keys[0].ref_table, "orders");
    assert_eq!(lines.unique, [["order_id", "line_no"]]);
    assert_eq!(lines.columns.iter().map(|c| c.name.as_str()).collect::<Vec<_>>(), ["order_id", "line_no"]);
    assert_eq!(tables["raw.customers"].foreign_keys[0].ref_table, "countries");
    let catalog = read(MANIFEST, false).unwrap().catalog;
    assert!(catalog.keys().iter().all(|key| key.target.is_some()));
}

#[test]
fn what_cannot_be_read_is_named_with_its_place() {
    let broken =
        MANIFEST.replace("\"name\": \"countries\", \"resource_type\"", "\"name\": 5, \"resource_type\"");
    let line = 1 + broken.lines().position(|line| line.contains("\"name\": 5")).unwrap() as u64;
    let error = read(&broken, false).unwrap_err();
    assert_eq!(error.line, line, "{error}");
    let lenient = read(&broken, true).unwrap();
    assert_eq!((lenient.catalog.tables.len(), lenient.left_out.total), (4, 1));
    assert_eq!(lenient.left_out.listed[0].line, line);
    assert!(read("{\"nodes\": {}, \"sources\": {}}", false).is_err());
    assert_eq!(read("{\"nodes\": {\n \"a\": }", false).unwrap_err().line, 2);
}

#[test]
fn json_tells_what_it_holds() {
    for (text, kind) in [
        (MANIFEST, JsonKind::DbtManifest),
        ("{\"tables\": []}", JsonKind::Catalog),
        ("[\"a\"]", JsonKind::Tables),
        ("not json", JsonKind::Tables),
    ] {
        assert_eq!(json_kind(text), kind);
    }
}
