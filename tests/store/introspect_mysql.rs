//! A live MariaDB as a source: what is read, that nothing is written, and what errors say.

use adit::domain::catalog::{Catalog, Table};

use crate::introspect::read_live;
use crate::mariadb::{self, SHOP};

fn table<'a>(catalog: &'a Catalog, name: &str) -> &'a Table {
    catalog.tables.iter().find(|table| table.name == name).unwrap_or_else(|| panic!("no {name}: {catalog:?}"))
}

#[tokio::test]
async fn a_schema_is_read_with_its_keys_comments_and_estimates() {
    let Some(database) = mariadb::database(SHOP).await else { return };
    let catalog = read_live(&database.url("reader", "hush-hush"), None).await.unwrap();
    let mut names: Vec<&str> = catalog.tables.iter().map(|table| table.name.as_str()).collect();
    names.sort();
    assert_eq!(names, ["Customer", "event", "order", "order_line", "other"]);

    let customer = table(&catalog, "Customer");
    assert_eq!(customer.comment.as_deref(), Some("Who buys; it's \"quoted\""));
    assert_eq!(customer.primary_key, ["id"]);
    assert_eq!(customer.unique, [vec!["e-Mail".to_string()], vec!["name".into(), "state".into()]]);
    let mail = customer.column("e-Mail").unwrap();
    assert_eq!(mail.comment.as_deref(), Some("Where to write; it's \"quoted\""));
    assert!(!mail.nullable && customer.column("marks").unwrap().nullable);
    assert_eq!(customer.column("state").unwrap().data_type, "enum('Calm','busy, very','it''s')");
    assert_eq!(
        (customer.column("id").unwrap().data_type.as_str(), mail.data_type.as_str()),
        ("bigint(20) unsigned", "varchar(80)")
    );
    assert_eq!(customer.column("marks").unwrap().default, None);

    let line = table(&catalog, "order_line");
    let key = line.foreign_keys.iter().find(|key| key.name.as_deref() == Some("in_order")).unwrap();
    assert_eq!(
        (key.columns.as_slice(), key.ref_table.as_str()),
        (&["of_day", "number"].map(String::from)[..], "order")
    );
    assert_eq!(key.ref_columns, ["day", "No."]);
    assert_eq!(table(&catalog, "other").foreign_keys[0].ref_table, format!("{}_b.elsewhere", database.name));
    assert_eq!(table(&catalog, "event").row_estimate, Some(2));

    // the other database by name, and both
    let other = format!("{}_b", database.name);
    let one =
        read_live(&database.url("reader", "hush-hush"), Some(std::slice::from_ref(&other))).await.unwrap();
    assert_eq!(one.tables.iter().map(|t| t.name.clone()).collect::<Vec<_>>(), [format!("{other}.elsewhere")]);
    let both = [database.name.clone(), other];
    let both = read_live(&database.url("reader", "hush-hush"), Some(&both)).await.unwrap();
    assert_eq!(both.tables.len(), 6);
    assert!(both.keys().iter().all(|key| key.target.is_some()));
}

#[tokio::test]
async fn only_reads_in_a_read_only_session_reach_the_server() {
    let Some(database) = mariadb::database("create table only_one (id int)").await else { return };
    read_live(&database.url("reader", "hush-hush").replace("mysql:", "mariadb:"), None).await.unwrap();
    let log = String::from_utf8_lossy(&std::fs::read(mariadb::log_file()).unwrap()).into_owned();
    // connections of this database's reader, and what they said; a statement may go over several lines
    let mut ours: Vec<&str> = Vec::new();
    let mut said = String::new();
    for line in log.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let at = words.iter().position(|word| ["Connect", "Query", "Prepare", "Execute"].contains(word));
        let Some(at) = at.filter(|at| (1..=3).contains(at)) else { continue };
        if words[at] == "Connect" && line.contains(&format!("reader@localhost on {}", database.name)) {
            ours.push(words[at - 1]);
        } else if words[at] != "Connect" && ours.contains(&words[at - 1]) {
            said += &format!("{}\n", words[at + 1..].join(" ").to_lowercase());
        }
    }
    let first = said.lines().position(|line| line.contains("read only")).expect("a read-only session");
    let read = said.lines().position(|line| line.starts_with("select cast(table_schema")).unwrap();
    assert!(first < read && said.contains("start transaction read only"), "{said}");
    let fine = ["select", "set", "start transaction read only", "rollback"];
    let odd = said.lines().find(|line| !fine.iter().any(|begin| line.starts_with(begin)));
    assert_eq!(odd, None, "{said}");
}

#[tokio::test]
async fn a_refused_user_is_told_without_the_password() {
    let Some(database) = mariadb::database("create table only_one (id int)").await else { return };
    let error = read_live(&database.url("reader", "wrong-guess"), None).await.unwrap_err();
    let shown = format!("{error} {error:?}");
    assert!(shown.contains("denied") && !shown.contains("wrong-guess"), "{shown}");
}
