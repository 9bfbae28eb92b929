//! A SQLite file as a source, opened read-only.
//!
//! SQLite keeps each table's own `CREATE` text, and with it the only comments there are. Rows are counted where
//! `ANALYZE` has left no estimate, up to a bound.

use std::collections::HashMap;
use std::path::PathBuf;

use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Row};

use super::{IntrospectError, LiveSource};
use crate::domain::catalog::Catalog;
use crate::extract::source::ddl::{self, Comments};
use crate::extract::source::information_schema::{
    ColumnRow, Constraint, ConstraintRow, Rows, TableRow, build,
};

/// Rows that are counted of a table at most.
const MAX_COUNTED: i64 = 100_000;
/// The one schema of a file.
const MAIN: &str = "main";

const TABLES: &str = "
    select l.name, l.type, coalesce(s.sql, '')
      from pragma_table_list l join sqlite_schema s on s.name = l.name and s.type = 'table'
     where l.schema = 'main' and l.type in ('table', 'virtual') and l.name not like 'sqlite\\_%' escape '\\'
     order by s.rowid";

pub(super) async fn read(source: &LiveSource<'_>) -> Result<Catalog, IntrospectError> {
    let options = SqliteConnectOptions::new()
        .filename(path(source.url)?)
        .read_only(true)
        .create_if_missing(false)
        .busy_timeout(source.patience.connect)
        // nothing that the file defines is run
        .pragma("trusted_schema", "off")
        .pragma("query_only", "on");
    let limit = source.patience.connect + source.patience.statement;
    let reading = async {
        let mut connection = options.connect().await?;
        let rows = read_rows(&mut connection).await;
        let _ = connection.close().await;
        rows
    };
    let rows = tokio::time::timeout(limit, reading).await.map_err(|_| IntrospectError::Timeout(limit))??;
    Ok(build(rows, MAIN)?)
}

/// `sqlite:PATH` and `sqlite://PATH`; the one parameter is what happens anyway.
fn path(url: &str) -> Result<PathBuf, IntrospectError> {
    let path = url.trim_start_matches("sqlite:");
    let path = path.strip_prefix("//").unwrap_or(path);
    match path.split_once('?') {
        None | Some((_, "mode=ro")) => Ok(path.trim_end_matches("?mode=ro").into()),
        Some((_, query)) => {
            let name = query.split('=').next().unwrap_or_default();
            Err(IntrospectError::Parameter(name.into(), "mode=ro".into()))
        }
    }
}

async fn read_rows(connection: &mut SqliteConnection) -> Result<Rows, sqlx::Error> {
    // one state of the file
    let mut tx = connection.begin().await?;
    let estimates = estimates(&mut tx).await?;
    let tables = sqlx::query(TABLES).fetch_all(&mut *tx).await?;
    let mut rows = Rows::default();
    let mut names: HashMap<String, String> = HashMap::new();
    for row in &tables {
        let (table, kind, sql): (String, String, String) =
            (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
        let comments = ddl::comments(&sql);
        let row_estimate = match estimates.get(&table) {
            Some(estimate) => Some(*estimate),
            None if kind == "table" => count(&mut tx, &table).await?,
            None => None,
        };
        names.insert(table.to_lowercase(), table.clone());
        rows.tables.push(TableRow {
            schema: MAIN.into(),
            comment: comments.table.clone(),
            row_estimate,
            table: table.clone(),
        });
        read_table(&mut tx, &table, kind == "virtual", &comments, &mut rows).await?;
    }
    tx.rollback().await?;
    spell(&mut rows, &names);
    Ok(rows)
}

/// A table's columns and keys.
async fn read_table(
    tx: &mut SqliteConnection,
    table: &str,
    is_virtual: bool,
    comments: &Comments,
    rows: &mut Rows,
) -> Result<(), sqlx::Error> {
    // hidden 1: of a virtual table, no column of the user's; 2 and 3: generated
    let columns = sqlx::query(
        r#"select name, type, "notnull" <> 0, dflt_value, pk from pragma_table_xinfo(?) where hidden <> 1 order by cid"#,
    );
    let columns = match columns.bind(table).fetch_all(&mut *tx).await {
        Ok(columns) => columns,
        // its module is not built in
        Err(sqlx::Error::Database(_)) if is_virtual => return Ok(()),
        Err(error) => return Err(error),
    };
    let mut primary_key: Vec<(i64, String)> = Vec::new();
    for row in &columns {
        let (column, in_key): (String, i64) = (row.try_get(0)?, row.try_get(4)?);
        if in_key > 0 {
            primary_key.push((in_key, column.clone()));
        }
        rows.columns.push(ColumnRow {
            schema: MAIN.into(),
            table: table.into(),
            data_type: row.try_get(1)?,
            nullable: !row.try_get::<bool, _>(2)? && in_key == 0,
            default: row.try_get(3)?,
            comment: comments.columns.get(&column.to_lowercase()).cloned(),
            column,
        });
    }
    let mut add = |name: String, columns: Vec<String>, constraint: Constraint| {
        let (schema, table) = (MAIN.into(), table.into());
        rows.constraints.push(ConstraintRow { schema, table, name, columns, constraint });
    };
    primary_key.sort();
    if !primary_key.is_empty() {
        let columns = primary_key.into_iter().map(|(_, column)| column).collect();
        add("primary key".into(), columns, Constraint::PrimaryKey);
    }
    // the latest stands first
    let indexes = sqlx::query(
        r#"select name from pragma_index_list(?) where "unique" and not partial and origin <> 'pk' order by seq desc"#,
    );
    for index in indexes.bind(table).fetch_all(&mut *tx).await? {
        let index: String = index.try_get(0)?;
        let columns: Vec<Option<String>> =
            sqlx::query_scalar("select name from pragma_index_info(?) order by seqno")
                .bind(&index)
                .fetch_all(&mut *tx)
                .await?;
        // an expression has no name, and makes no column unique
        if let Some(columns) = columns.into_iter().collect::<Option<Vec<String>>>() {
            add(index, columns, Constraint::Unique);
        }
    }
    let keys = sqlx::query(
        r#"select id, "table", "from", "to" from pragma_foreign_key_list(?) order by id desc, seq"#,
    );
    let mut open: Option<(i64, String, Vec<String>, Vec<String>)> = None;
    for row in keys.bind(table).fetch_all(&mut *tx).await? {
        let (id, ref_table, column): (i64, String, String) =
            (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
        if open.as_ref().is_none_or(|(last, ..)| *last != id) {
            if let Some((id, ref_table, columns, ref_columns)) = open.take() {
                add(id.to_string(), columns, foreign(ref_table, ref_columns));
            }
            open = Some((id, ref_table, Vec::new(), Vec::new()));
        }
        if let Some((_, _, columns, ref_columns)) = &mut open {
            columns.push(column);
            // absent: the primary key
            ref_columns.extend(row.try_get::<Option<String>, _>(3)?);
        }
    }
    if let Some((id, ref_table, columns, ref_columns)) = open {
        add(id.to_string(), columns, foreign(ref_table, ref_columns));
    }
    Ok(())
}

fn foreign(ref_table: String, ref_columns: Vec<String>) -> Constraint {
    Constraint::ForeignKey { ref_schema: MAIN.into(), ref_table, ref_columns }
}

/// Names in keys take the spelling of what they refer to: SQLite minds no case.
fn spell(rows: &mut Rows, tables: &HashMap<String, String>) {
    let columns: HashMap<(String, String), String> =
        rows.columns.iter().map(|c| ((c.table.clone(), c.column.to_lowercase()), c.column.clone())).collect();
    let respell = |table: &str, names: &mut Vec<String>| {
        for name in names {
            if let Some(spelling) = columns.get(&(table.to_string(), name.to_lowercase())) {
                name.clone_from(spelling);
            }
        }
    };
    for row in &mut rows.constraints {
        respell(&row.table, &mut row.columns);
        if let Constraint::ForeignKey { ref_table, ref_columns, .. } = &mut row.constraint {
            if let Some(spelling) = tables.get(&ref_table.to_lowercase()) {
                ref_table.clone_from(spelling);
            }
            respell(ref_table, ref_columns);
        }
    }
}

/// What `ANALYZE` found, by table: the first number of its statistics.
async fn estimates(tx: &mut SqliteConnection) -> Result<HashMap<String, i64>, sqlx::Error> {
    let exists = sqlx::query("select 1 from sqlite_schema where name = 'sqlite_stat1'");
    if exists.fetch_optional(&mut *tx).await?.is_none() {
        return Ok(HashMap::new());
    }
    let mut found: HashMap<String, i64> = HashMap::new();
    for row in sqlx::query("select tbl, stat from sqlite_stat1 where stat is not null").fetch_all(tx).await? {
        let (table, stat): (String, String) = (row.try_get(0)?, row.try_get(1)?);
        if let Some(rows) = stat.split(' ').next().and_then(|word| word.parse::<i64>().ok()) {
            let known = found.entry(table).or_default();
            *known = rows.max(*known);
        }
    }
    Ok(found)
}

/// `None`: more than are counted.
async fn count(tx: &mut SqliteConnection, table: &str) -> Result<Option<i64>, sqlx::Error> {
    let name = table.replace('"', "\"\"");
    let sql = format!("select count(*) from (select 1 from \"{name}\" limit {})", MAX_COUNTED + 1);
    let rows: i64 = sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(tx).await?;
    Ok(Some(rows).filter(|rows| *rows <= MAX_COUNTED))
}
