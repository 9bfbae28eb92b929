//! A SQLite file as a source: what is read, that the file stays as it is, and what errors say.

use std::path::Path;

use adit::domain::catalog::{Catalog, Table};
use adit::extract::source::ddl::{self, Dialect, Options};
use adit::store::introspect::IntrospectError;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{Connection, Executor};

use crate::introspect::read_live;

const SHOP: &str = r#"
    create table Customer ( -- who buys
        id integer primary key autoincrement, -- never used again
        "e-Mail" text not null unique, /* where to write */
        [kind of] VARYING CHARACTER (255) default 'x, y',
        -- old_name text,
        score unsigned big int, blank,
        upper_mail text generated always as (upper("e-Mail")) virtual,
        check (score > 0));
    create table "order" (
        day text not null, no int not null, customer references customer, -- without its column
        total decimal(10,2) collate nocase default (1 + 2),
        primary key (no, day)) without rowid;
    create table 'order line' (
        line integer primary key, NO int, day text, sku text constraint one unique on conflict replace,
        constraint in_order foreign key (NO, day) references "Order" (no, DAY) on delete cascade);
    create unique index by_kind on customer ([kind of], score desc);
    create unique index folded on customer (lower(blank));
    create unique index of_some on customer (score) where score > 5;
    create table strict_one (a int primary key, b any) strict;
    create virtual table words using fts5 (title, body, content='', tokenize = 'porter');
    create virtual table places using rtree (id, min_x, max_x);
    create view busy as select id from customer;
    insert into customer (id, "e-Mail", blank) values (1, 'a', 'x');
    insert into customer (id, "e-Mail", [kind of]) values (2, 'b', 'p'), (7, 'c', 'q');
    delete from "order"; insert into "order" values ('2025-01-01', 1, 1, 5);
    create trigger touched after insert on customer begin
        update customer set score = 1; insert into "order" values ('a;b', 1, 1, 1); end;
"#;

async fn made(dir: &Path, sql: &'static str) -> String {
    let path = dir.join("shop.db");
    let options = SqliteConnectOptions::new().filename(&path).create_if_missing(true).foreign_keys(false);
    let mut connection = SqliteConnection::connect_with(&options).await.unwrap();
    connection.execute(sql).await.unwrap();
    connection.close().await.unwrap();
    path.to_str().unwrap().into()
}

fn table<'a>(catalog: &'a Catalog, name: &str) -> &'a Table {
    catalog.tables.iter().find(|table| table.name == name).unwrap_or_else(|| panic!("no {name}: {catalog:?}"))
}

#[tokio::test]
async fn a_file_is_read_with_its_keys_comments_and_rows_and_stays_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let path = made(dir.path(), SHOP).await;
    let before = std::fs::read(&path).unwrap();
    let catalog = read_live(&format!("sqlite:{path}"), None).await.unwrap();
    let names: Vec<&str> = catalog.tables.iter().map(|table| table.name.as_str()).collect();
    assert_eq!(names, ["Customer", "order", "order line", "strict_one", "words", "places"]);

    let customer = table(&catalog, "Customer");
    assert_eq!(customer.comment.as_deref(), Some("who buys"));
    assert_eq!((customer.primary_key.as_slice(), customer.row_estimate), (&["id".to_string()][..], Some(3)));
    assert_eq!(customer.unique, [vec!["e-Mail".to_string()], vec!["kind of".into(), "score".into()]]);
    let columns: Vec<_> = customer
        .columns
        .iter()
        .map(|c| (c.name.as_str(), c.data_type.as_str(), c.nullable, c.comment.as_deref()))
        .collect();
    assert_eq!(
        columns,
        [
            ("id", "integer", false, Some("never used again")),
            ("e-Mail", "text", false, Some("where to write")),
            ("kind of", "varying character (255)", true, None),
            ("score", "unsigned big int", true, None),
            ("blank", "", true, None),
            ("upper_mail", "text", true, None),
        ]
    );
    let order = table(&catalog, "order");
    assert_eq!(order.primary_key, ["no", "day"]);
    assert_eq!(order.column("customer").unwrap().comment.as_deref(), Some("without its column"));
    assert_eq!(
        (order.foreign_keys[0].ref_table.as_str(), order.foreign_keys[0].ref_columns.len()),
        ("Customer", 0)
    );
    let line = table(&catalog, "order line");
    assert_eq!(
        (&line.foreign_keys[0].columns, &line.foreign_keys[0].ref_columns),
        (&vec!["NO".to_string(), "day".into()], &vec!["no".to_string(), "day".into()])
    );
    assert_eq!((line.foreign_keys[0].ref_table.as_str(), line.unique.len()), ("order", 1));
    assert_eq!(table(&catalog, "words").columns.len(), 2);
    assert!(catalog.keys().iter().all(|key| key.target.is_some()));

    assert_eq!(std::fs::read(&path).unwrap(), before);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "no journal beside it");
}

#[tokio::test]
async fn the_schema_as_text_says_what_the_file_says() {
    let dir = tempfile::tempdir().unwrap();
    let path = made(dir.path(), SHOP).await;
    let mut live = read_live(&format!("sqlite://{path}?mode=ro"), None).await.unwrap();
    let options = SqliteConnectOptions::new().filename(&path).read_only(true);
    let mut connection = SqliteConnection::connect_with(&options).await.unwrap();
    // as the shell's `.schema` writes it, shadow tables included
    let texts: Vec<String> =
        sqlx::query_scalar("select sql || ';' from sqlite_schema where sql is not null order by rowid")
            .fetch_all(&mut connection)
            .await
            .unwrap();
    for dialect in [Dialect::Sqlite, Dialect::Auto] {
        let mut read = ddl::read(&texts.join("\n"), Options { dialect, lenient: false }).unwrap().catalog;
        for table in live.tables.iter_mut().chain(&mut read.tables) {
            table.row_estimate = None;
            table.foreign_keys.iter_mut().for_each(|key| key.name = None);
            table.unique.sort();
            let is_virtual = ["words", "places"].contains(&table.name.as_str());
            for column in &mut table.columns {
                column.default = None;
                column.data_type = if is_virtual { String::new() } else { column.data_type.replace(' ', "") };
            }
        }
        for (read, live) in read.tables.iter().zip(&live.tables) {
            assert_eq!(read, live);
        }
        assert_eq!(read.tables.len(), live.tables.len());
    }
}

#[tokio::test]
async fn what_analyze_found_goes_before_counting() {
    let dir = tempfile::tempdir().unwrap();
    let sql = "create table a (id integer primary key, b int); create index i on a (b);
        insert into a (b) values (1), (2), (3); analyze; delete from a where id > 1;
        pragma journal_mode = wal; insert into a (b) values (9);";
    let path = made(dir.path(), sql).await;
    let catalog = read_live(&format!("sqlite:{path}"), None).await.unwrap();
    assert_eq!(catalog.tables[0].row_estimate, Some(3));
}

#[tokio::test]
async fn a_missing_or_broken_file_is_told_and_nothing_is_made() {
    let dir = tempfile::tempdir().unwrap();
    let missing = dir.path().join("missing.db");
    let error = read_live(&format!("sqlite:{}", missing.display()), None).await.unwrap_err();
    assert!(matches!(error, IntrospectError::Database(_)) && !missing.exists(), "{error:?}");
    let broken = dir.path().join("broken.db");
    std::fs::write(&broken, b"SQLite format 3\0 and no more").unwrap();
    read_live(&format!("sqlite:{}", broken.display()), None).await.unwrap_err();
    let odd = read_live("sqlite:x.db?mode=rwc", None).await.unwrap_err();
    assert!(matches!(odd, IntrospectError::Parameter(..)), "{odd:?}");
}
