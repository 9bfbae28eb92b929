//! A live Postgres as a source: what is read, that nothing is written, and that it ends.

use std::time::{Duration, Instant};

use adit::domain::catalog::{Catalog, ForeignKey, Table};
use adit::store::Store;
use adit::store::introspect::{IntrospectError, Patience, read_postgres};
use sqlx::{AssertSqlSafe, Executor};

use crate::postgres;

const SCHEMA: &str = r#"
    drop schema public cascade;
    create schema public;
    create schema "Sales Dept";
    create type public.mood as enum ('calm', 'busy');
    create table customer (
        id bigint primary key, "e-Mail" varchar(80) not null, state public.mood default 'calm',
        region text not null, number int not null,
        constraint by_number unique (region, number));
    comment on table customer is 'Who buys; it''s "quoted"';
    comment on column customer."e-Mail" is 'Where to write';
    create unique index by_mail on customer ("e-Mail");
    create unique index of_some on customer (number) where region = 'north';
    create unique index folded on customer (lower(region), number);
    create table "Sales Dept"."Order" (
        day date, "No." int, customer bigint not null references customer,
        customer_region text, customer_number int,
        primary key (day, "No."),
        constraint whose foreign key (customer_region, customer_number) references customer (region, number));
    create table "Sales Dept"."Order Line" (
        line int primary key, number int, dropped int, of_day date,
        foreign key (of_day, number) references "Sales Dept"."Order" (day, "No."));
    alter table "Sales Dept"."Order Line" drop column dropped;
    create view busy as select * from customer where state = 'busy';
    create materialized view kept as select id from customer;
    create table event (id int, at date not null, primary key (id, at)) partition by range (at);
    create table event_2025 partition of event for values from ('2025-01-01') to ('2026-01-01');
    create table event_2026 partition of event for values from ('2026-01-01') to ('2027-01-01');
    insert into customer select n, 'm' || n, 'calm', 'south', n from generate_series(1, 50) n;
    analyze customer;
    -- a better match than the server's own function, were it looked up here
    create function obj_description(oid, text) returns text language plpgsql as
        $$ begin raise exception 'a function of the database was called'; end $$;
"#;

/// A database of the test cluster, and its address as a user would write it.
async fn database(sql: &'static str) -> (Store, String) {
    let store = postgres::fresh_database().await;
    store.pool().execute(sql).await.unwrap();
    let url = postgres::url(&store, "");
    (store, url)
}

fn table<'a>(catalog: &'a Catalog, name: &str) -> &'a Table {
    let names: Vec<&str> = catalog.tables.iter().map(|table| table.name.as_str()).collect();
    catalog.tables.iter().find(|table| table.name == name).unwrap_or_else(|| panic!("no {name} in {names:?}"))
}

fn key(name: &str, columns: &[&str], table: &str, others: &[&str]) -> ForeignKey {
    let owned = |names: &[&str]| names.iter().map(|name| (*name).to_string()).collect();
    ForeignKey {
        name: Some(name.into()),
        columns: owned(columns),
        ref_table: table.into(),
        ref_columns: owned(others),
    }
}

#[tokio::test]
async fn a_schema_is_read_with_its_keys_comments_and_names() {
    let (_store, url) = database(SCHEMA).await;
    let catalog = read_postgres(&url, None, Patience::default()).await.unwrap();
    let names: Vec<&str> = catalog.tables.iter().map(|table| table.name.as_str()).collect();
    // no view, no partition beside its parent
    assert_eq!(names, ["Sales Dept.Order", "Sales Dept.Order Line", "customer", "event"]);

    let customer = table(&catalog, "customer");
    assert_eq!(customer.comment.as_deref(), Some("Who buys; it's \"quoted\""));
    assert_eq!((customer.primary_key.as_slice(), customer.row_estimate), (&["id".to_string()][..], Some(50)));
    // of indexes only those that make all rows differ by columns
    assert_eq!(customer.unique, [vec!["e-Mail".to_string()], vec!["region".into(), "number".into()]]);
    let columns: Vec<_> = customer
        .columns
        .iter()
        .map(|c| (c.name.as_str(), c.data_type.as_str(), c.nullable, c.comment.as_deref()))
        .collect();
    assert_eq!(
        columns,
        [
            ("id", "bigint", false, None),
            ("e-Mail", "character varying(80)", false, Some("Where to write")),
            ("state", "mood", true, None),
            ("region", "text", false, None),
            ("number", "integer", false, None),
        ]
    );
    assert!(customer.columns[2].default.as_deref().unwrap().starts_with("'calm'"));

    let order = table(&catalog, "Sales Dept.Order");
    assert_eq!(order.primary_key, ["day", "No."]);
    assert_eq!(
        order.foreign_keys,
        [
            key("Order_customer_fkey", &["customer"], "customer", &["id"]),
            key("whose", &["customer_region", "customer_number"], "customer", &["region", "number"]),
        ]
    );
    let line = table(&catalog, "Sales Dept.Order Line");
    assert_eq!(
        line.columns.iter().map(|c| c.name.as_str()).collect::<Vec<_>>(),
        ["line", "number", "of_day"]
    );
    assert_eq!(line.foreign_keys[0].columns, ["of_day", "number"]);
    assert_eq!(line.foreign_keys[0].ref_table, "Sales Dept.Order");
    assert_eq!(table(&catalog, "event").primary_key, ["id", "at"]);

    let some = read_postgres(&url, Some(&["Sales Dept".to_string()]), Patience::default()).await.unwrap();
    assert_eq!(some.tables.len(), 2);
}

/// Every statement that the server saw, from its own log.
#[tokio::test]
async fn only_reads_in_a_read_only_transaction_reach_the_server() {
    let (store, url) = database("create table only_one (id int)").await;
    let name = store.pool().connect_options().get_database().unwrap().to_string();
    let log_all = format!("alter database {name} set log_statement = 'all'");
    store.pool().execute(AssertSqlSafe(log_all)).await.unwrap();
    let log = postgres::log_file();
    let before = std::fs::metadata(&log).unwrap().len() as usize;
    read_postgres(&url, None, Patience::default()).await.unwrap();
    // no other database of the cluster logs its statements
    let text = std::fs::read(&log).unwrap();
    let text = String::from_utf8_lossy(&text[before..]);
    let statements: Vec<&str> = text
        .lines()
        .filter_map(|line| line.split_once("statement: ").or_else(|| line.split_once("LOG:  execute ")))
        .map(|(_, statement)| statement)
        .collect();
    let first = statements.iter().position(|s| s.contains("begin")).expect("a transaction");
    assert!(statements[first].contains("read only"), "{statements:?}");
    assert!(statements.len() >= 5, "{text}");
    let writes = ["insert", "update", "delete", "create", "drop", "alter", "commit", "grant", "copy"];
    let wrong = |s: &&&str| writes.iter().any(|word| s.to_lowercase().contains(word));
    assert_eq!(statements.iter().find(wrong), None);
    assert!(statements[first..].iter().any(|s| s.to_lowercase().contains("rollback")), "{statements:?}");
    store.close().await;
}

#[tokio::test]
async fn a_server_that_does_not_answer_is_given_up() {
    let (store, url) = database("create table only_one (id int)").await;
    let mut holder = store.pool().begin().await.unwrap();
    holder.execute("lock table pg_catalog.pg_description in access exclusive mode").await.unwrap();
    let begun = Instant::now();
    let patience = Patience { statement: Duration::from_millis(300), ..Patience::default() };
    let failed = read_postgres(&url, None, patience).await.unwrap_err();
    assert!(
        matches!(&failed, IntrospectError::Database(cause) if cause.to_string().contains("timeout")),
        "{failed:?}"
    );
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    holder.rollback().await.unwrap();

    // accepts, and never says a word
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("postgres://u:secret@{}/x?sslmode=disable", silent.local_addr().unwrap());
    let patience = Patience { connect: Duration::from_millis(200), ..Patience::default() };
    let failed = read_postgres(&url, None, patience).await.unwrap_err();
    assert!(matches!(failed, IntrospectError::Timeout(_)), "{failed:?}");
    assert!(!format!("{failed:?} {failed}").contains("secret"));
}
