//! A live Postgres as a source: what is read, that nothing is written, and that it ends.

use std::time::{Duration, Instant};

use adit::domain::catalog::{Catalog, ForeignKey, Table};
use adit::store::Store;
use adit::store::introspect::{self, IntrospectError, LiveSource, Patience};
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
    create table event_2026 partition of event for values from ('2026-01-01') to ('2027-01-01')
        partition by list (id);
    create table event_2026_all partition of event_2026 default;
    insert into event select n, date '2025-06-01' + n from generate_series(1, 300) n;
    analyze event_2025; analyze event_2026_all;
    create extension if not exists file_fdw;
    create server files foreign data wrapper file_fdw;
    create foreign table imported (id int not null, name text) server files options (filename '/dev/null');
    insert into customer select n, 'm' || n, 'calm', 'south', n from generate_series(1, 50) n;
    analyze customer;
    -- a better match than the server's own function, were it looked up here
    create function obj_description(oid, text) returns text language plpgsql as
        $$ begin raise exception 'a function of the database was called'; end $$;
"#;

/// Reads a live database of any kind as the command line does.
pub async fn read_live(url: &str, schemas: Option<&[String]>) -> Result<Catalog, IntrospectError> {
    introspect::read(&LiveSource { url, password: None, schemas, patience: Patience::default() }).await
}

async fn read_within(url: &str, patience: Patience) -> Result<Catalog, IntrospectError> {
    introspect::read(&LiveSource { url, password: None, schemas: None, patience }).await
}

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
    let catalog = read_live(&url, None).await.unwrap();
    let names: Vec<&str> = catalog.tables.iter().map(|table| table.name.as_str()).collect();
    // no view, no partition beside its parent
    assert_eq!(names, ["Sales Dept.Order", "Sales Dept.Order Line", "customer", "event", "imported"]);

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
    let event = table(&catalog, "event");
    assert_eq!(
        (event.primary_key.as_slice(), event.row_estimate),
        (&["id", "at"].map(String::from)[..], Some(300))
    );
    assert_eq!(table(&catalog, "imported").columns.len(), 2);

    let some = read_live(&url, Some(&["Sales Dept".to_string()])).await.unwrap();
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
    read_live(&url, None).await.unwrap();
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
    let failed = read_within(&url, patience).await.unwrap_err();
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
    let failed = read_within(&url, patience).await.unwrap_err();
    assert!(matches!(failed, IntrospectError::Timeout(_)), "{failed:?}");
    assert!(!format!("{failed:?} {failed}").contains("secret"));
}

#[tokio::test]
async fn an_address_is_checked_before_it_is_used_and_shown_without_its_secrets() {
    let misspelt = read_live("postgres://u@h/x?pasword=hush-hush", None).await.unwrap_err();
    assert!(matches!(&misspelt, IntrospectError::Parameter(name, _) if name == "pasword"), "{misspelt:?}");
    let odd = read_live("postgres://u:hush-hush@h:port/x", None).await.unwrap_err();
    for error in [misspelt, odd, read_live("oracle://u:hush-hush@h/x", None).await.unwrap_err()] {
        assert!(!format!("{error:?} {error}").contains("hush"), "{error:?}");
    }
}

#[tokio::test]
async fn a_password_may_come_beside_the_address() {
    let (_store, url) = database("create schema own; create table own.only_one (id int)").await;
    let schemas = ["own".to_string()];
    let source = LiveSource {
        url: &url,
        password: Some("hush-hush"),
        schemas: Some(&schemas),
        patience: Patience::default(),
    };
    assert_eq!(introspect::read(&source).await.unwrap().tables.len(), 1);
}
