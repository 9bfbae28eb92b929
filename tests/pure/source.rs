//! Sources: what is read, what is stepped over, and where an error is.

use adit::domain::catalog::Catalog;
use adit::extract::source::ddl::{self, Dialect, Options};
use adit::extract::source::{catalog_json, csv, jsonl, table_list};

use crate::catalogs::sample;

fn sql(text: &str) -> Catalog {
    ddl::read(text, Options::default()).unwrap().catalog
}

fn counts(catalog: &Catalog) -> (usize, usize, usize) {
    (
        catalog.tables.len(),
        catalog.column_count(),
        catalog.keys().iter().filter(|k| k.target.is_some()).count(),
    )
}

#[test]
fn samples_are_read_whole() {
    let found = ["shop", "library", "clinic", "legacy"].map(|name| counts(&sample(name)));
    assert_eq!(found, [(16, 76, 22), (7, 32, 7), (7, 28, 7), (6, 24, 0)]);
}

#[test]
fn the_shop_keeps_keys_comments_and_nullability() {
    let shop = sample("shop");
    let table = |name: &str| &shop.tables[shop.position(name).unwrap()];
    assert_eq!(table("stock_levels").primary_key, ["warehouse_id", "product_sku"]);
    assert_eq!(table("stock_levels").foreign_keys.len(), 2);
    assert_eq!(table("shipments").unique, [["tracking_code"]]);
    assert_eq!(table("categories").foreign_keys[0].ref_table, "categories");
    assert_eq!(table("customers").comment.as_deref(), Some("People who have an account"));
    assert!(!table("customers").column("email").unwrap().nullable);
    assert!(table("customers").column("phone").unwrap().nullable);
    assert_eq!(table("products").column("unit_price").unwrap().data_type, "numeric(10,2)");
    assert_eq!(sample("library").tables[0].comment.as_deref(), Some("Houses where books stand"));
}

#[test]
fn dumps_are_stepped_through() {
    let catalog = sql("\\restrict abc\nSET statement_timeout = 0;\n\\connect shop\n\
        CREATE FUNCTION f() RETURNS trigger AS $body$ BEGIN; CREATE TABLE no (a int); END $body$ LANGUAGE plpgsql;\n\
        CREATE TABLE public.\"Or;der\" (id integer NOT NULL, \"select\" text DEFAULT 'a;b''c');\n\
        ALTER TABLE public.\"Or;der\" OWNER TO x;\n\
        COPY public.\"Or;der\" (id, \"select\") FROM stdin;\n1\tit's; '\n\\.\n\n\
        CREATE TABLE Other.T2 (a int, CHECK (a > 0), EXCLUDE USING gist (a WITH =));\n\
        CREATE UNIQUE INDEX i ON other.t2 (lower(a));\nCREATE VIEW v AS SELECT 1;\n\
        ALTER TABLE ONLY public.\"Or;der\" ADD CONSTRAINT p PRIMARY KEY (id);\n");
    let names: Vec<&str> = catalog.tables.iter().map(|t| t.name.as_str()).collect();
    assert_eq!(names, ["Or;der", "other.t2"]);
    assert_eq!(catalog.tables[0].primary_key, ["id"]);
    assert!(!catalog.tables[0].column("id").unwrap().nullable);
    assert!(catalog.tables[1].unique.is_empty());
}

#[test]
fn errors_have_a_place() {
    let place = |text: &str| {
        let error = ddl::read(text, Options { dialect: Dialect::Postgres, lenient: false }).unwrap_err();
        (error.line, error.column)
    };
    assert_eq!(place("CREATE TABLE a (\n  id int,\n  name text nto null\n);"), (3, 13));
    assert_eq!(place("CREATE TABLE a (id int);\nCREATE TABLE A (id int);"), (2, 14));
    assert_eq!(place("CREATE TABLE a (id int, id text);"), (1, 25));
    assert_eq!(place("\n CREATE TABLE a (x text DEFAULT 'open);"), (2, 33));
    assert_eq!(place("SELECT 1;"), (1, 1));
}

#[test]
fn lenient_keeps_the_rest_and_lists_what_is_left_out() {
    let text = "CREATE TABLE a (id int PRIMARY KEY, x text nto null);\nCREATE TABLE b (id int REFERENCES a, y int REFERENCES gone);";
    let read = ddl::read(text, Options { dialect: Dialect::Postgres, lenient: true }).unwrap();
    assert_eq!(counts(&read.catalog), (2, 3, 1));
    assert_eq!(read.left_out.total, 1);
    assert_eq!(read.catalog.keys().iter().filter(|k| k.target.is_none()).count(), 1);
}

#[test]
fn csv_with_flexible_headers() {
    let catalog = csv::read("Table Name;Column;Data Type;Is Nullable;Key;References\norders;id;INT;NO;PRI;\norders;customer;int;YES;;customers.id\ncustomers;id;int;no;pk;\n", false).unwrap().catalog;
    assert_eq!(counts(&catalog), (2, 3, 1));
    assert!(!catalog.tables[0].columns[0].nullable);
    let error = csv::read("table,column\na,x\na,x\n", false).unwrap_err();
    assert_eq!(error.line, 3);
}

#[test]
fn lists_catalogs_and_lines() {
    assert_eq!(table_list::read("[\"a\", {\"table\": \"b\"}]", false).unwrap().catalog.tables.len(), 2);
    assert!(table_list::read("[\"a\", \"a\"]", false).is_err());
    assert_eq!(table_list::read("[\"a\",\n 5x]", false).unwrap_err().line, 2);
    let shop = sample("shop");
    assert_eq!(catalog_json::read(&serde_json::to_string(&shop).unwrap(), false).unwrap().catalog, shop);
    assert_eq!(jsonl::read("\"a\"\n\n{\"text\":\"b\"}\n", false).unwrap().0, ["a", "b"]);
    assert_eq!(jsonl::read("\"a\"\n{\"txt\":1}\n", false).unwrap_err().line, 2);
    assert_eq!(jsonl::read("\"a\"\n\n{\"text\":\n", false).unwrap_err().line, 3);
}

/// The place of the entry, not of the document.
#[test]
fn faults_of_entries_have_a_place_and_leave_the_rest() {
    let text = "[\"a\",\n  5,\n {\"table\": \"b\"}, \"a\"]";
    let error = table_list::read(text, false).unwrap_err();
    assert_eq!((error.line, error.column), (2, 3), "{error}");
    let read = table_list::read(text, true).unwrap();
    let places: Vec<(u64, u64)> = read.left_out.listed.iter().map(|o| (o.line, o.column)).collect();
    assert_eq!((read.catalog.tables.len(), places), (2, vec![(2, 3), (3, 18)]));

    let text = "{\"tables\": [\n  {\"name\": \"a\", \"columns\": [{\"name\": \"x\", \"nullable\": 1}]},\n\
        {\"name\": \"b\", \"columns\": [{\"name\": \"x\", \"nullable\": true}], \"primary_key\": [\"y\"]}]}";
    assert_eq!(catalog_json::read(text, false).unwrap_err().line, 2);
    let read = catalog_json::read(text, true).unwrap();
    assert_eq!((read.catalog.tables.len(), read.left_out.total), (1, 2), "{read:?}");
    assert_eq!(read.left_out.listed[1].line, 3);

    let read = csv::read("table,column\na,x\n,y\na,x\na,z\n", true).unwrap();
    let lines: Vec<u64> = read.left_out.listed.iter().map(|o| o.line).collect();
    assert_eq!((read.catalog.column_count(), lines), (2, vec![3, 4]));

    let (texts, left_out) = jsonl::read("\"a\"\n{\"text\":\n\"b\"\n7\n", true).unwrap();
    let lines: Vec<u64> = left_out.listed.iter().map(|o| o.line).collect();
    assert_eq!((texts, lines), (vec!["a".to_string(), "b".into()], vec![2, 4]));
}
