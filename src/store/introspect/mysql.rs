//! A live MySQL or MariaDB as a source: `information_schema`, in a read-only transaction of a read-only session.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::time::Duration;

use sqlx::mysql::{MySqlConnectOptions, MySqlConnection, MySqlRow};
use sqlx::{Connection, Executor, Row};

use super::{IntrospectError, LiveSource};
use crate::domain::catalog::Catalog;
use crate::extract::source::information_schema::{
    ColumnRow, Constraint, ConstraintRow, Rows, TableRow, build,
};

/// What the address may say behind its `?`.
pub(super) const PARAMETERS: [&str; 13] = [
    "ssl-mode",
    "sslmode",
    "ssl-ca",
    "sslca",
    "ssl-cert",
    "sslcert",
    "ssl-key",
    "sslkey",
    "charset",
    "collation",
    "socket",
    "statement-cache-capacity",
    "timezone",
];

// Casts: some servers declare these columns as binary. The schemas come as one list, which cannot hold a comma.
const TABLES: &str = "
    select cast(table_schema as char), cast(table_name as char), cast(table_comment as char),
           cast(table_rows as signed)
      from information_schema.tables
     where table_type in ('BASE TABLE', 'SYSTEM VERSIONED')
       and table_schema not in ('mysql', 'information_schema', 'performance_schema', 'sys')
       and (? = '' or find_in_set(table_schema, ?))
     order by table_schema, table_name";

const COLUMNS: &str = "
    select cast(table_schema as char), cast(table_name as char), cast(column_name as char),
           cast(column_type as char), cast(is_nullable as char), cast(column_default as char),
           cast(column_comment as char)
      from information_schema.columns
     where table_schema not in ('mysql', 'information_schema', 'performance_schema', 'sys')
       and (? = '' or find_in_set(table_schema, ?))
     order by table_schema, table_name, ordinal_position";

// An index over an expression has no column there, and makes none unique.
const UNIQUE: &str = "
    select cast(table_schema as char), cast(table_name as char), cast(index_name as char),
           cast(column_name as char)
      from information_schema.statistics
     where non_unique = 0
       and table_schema not in ('mysql', 'information_schema', 'performance_schema', 'sys')
       and (? = '' or find_in_set(table_schema, ?))
     order by table_schema, table_name, index_name, seq_in_index";

const FOREIGN_KEYS: &str = "
    select cast(table_schema as char), cast(table_name as char), cast(constraint_name as char),
           cast(column_name as char), cast(referenced_table_schema as char),
           cast(referenced_table_name as char), cast(referenced_column_name as char)
      from information_schema.key_column_usage
     where referenced_table_name is not null
       and table_schema not in ('mysql', 'information_schema', 'performance_schema', 'sys')
       and (? = '' or find_in_set(table_schema, ?))
     order by table_schema, table_name, constraint_name, ordinal_position";

/// Tables of the address's database go by their bare name.
pub(super) async fn read(source: &LiveSource<'_>) -> Result<Catalog, IntrospectError> {
    // the driver knows MariaDB's scheme as well, its parser of options only the other
    let url = source.url.replacen("mariadb://", "mysql://", 1);
    let mut options = MySqlConnectOptions::from_str(&url)?;
    if let Some(password) = source.password {
        options = options.password(password);
    }
    let database = options.get_database().unwrap_or_default().to_string();
    let schemas = source.schemas.map_or_else(|| database.clone(), |schemas| schemas.join(","));
    let patience = source.patience;
    let mut connection = tokio::time::timeout(patience.connect, MySqlConnection::connect_with(&options))
        .await
        .map_err(|_| IntrospectError::Timeout(patience.connect))??;
    // a server that ends no statement in time is given up as a whole
    let limit = patience.statement * 4;
    let rows = tokio::time::timeout(limit, read_rows(&mut connection, &schemas, patience.statement))
        .await
        .map_err(|_| IntrospectError::Timeout(limit))?;
    let _ = tokio::time::timeout(patience.connect, connection.close()).await;
    Ok(build(rows?, &database)?)
}

async fn read_rows(
    connection: &mut MySqlConnection,
    schemas: &str,
    timeout: Duration,
) -> Result<Rows, sqlx::Error> {
    connection.execute("set session transaction read only").await?;
    limit_statements(connection, timeout).await?;
    let mut tx = connection.begin_with("start transaction read only").await?;
    let mut rows = Rows::default();
    for row in sqlx::query(TABLES).bind(schemas).bind(schemas).fetch_all(&mut *tx).await? {
        rows.tables.push(TableRow {
            schema: row.try_get(0)?,
            table: row.try_get(1)?,
            comment: text(&row, 2)?,
            row_estimate: row.try_get(3)?,
        });
    }
    for row in sqlx::query(COLUMNS).bind(schemas).bind(schemas).fetch_all(&mut *tx).await? {
        let nullable: String = row.try_get(4)?;
        rows.columns.push(ColumnRow {
            schema: row.try_get(0)?,
            table: row.try_get(1)?,
            column: row.try_get(2)?,
            data_type: row.try_get(3)?,
            nullable: nullable.eq_ignore_ascii_case("yes"),
            // MariaDB says NULL in words
            default: row.try_get::<Option<String>, _>(5)?.filter(|default| default != "NULL"),
            comment: text(&row, 6)?,
        });
    }
    let unique = sqlx::query(UNIQUE).bind(schemas).bind(schemas).fetch_all(&mut *tx).await?;
    rows.constraints.extend(unique_keys(&unique)?);
    let foreign = sqlx::query(FOREIGN_KEYS).bind(schemas).bind(schemas).fetch_all(&mut *tx).await?;
    rows.constraints.extend(foreign_keys(&foreign)?);
    tx.rollback().await?;
    Ok(rows)
}

/// Each of the two servers has a setting of its own.
async fn limit_statements(connection: &mut MySqlConnection, timeout: Duration) -> Result<(), sqlx::Error> {
    let version: String =
        sqlx::query_scalar("select cast(version() as char)").fetch_one(&mut *connection).await?;
    let set = if version.contains("MariaDB") {
        sqlx::query("set session max_statement_time = ?").bind(timeout.as_secs_f64())
    } else {
        sqlx::query("set session max_execution_time = ?").bind(timeout.as_millis().max(1) as u64)
    };
    match set.execute(connection).await {
        // servers before 5.7 have none; the whole is limited here
        Ok(_) | Err(sqlx::Error::Database(_)) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Absent where the server stores an empty text.
fn text(row: &MySqlRow, at: usize) -> Result<Option<String>, sqlx::Error> {
    Ok(row.try_get::<Option<String>, _>(at)?.filter(|text| !text.trim().is_empty()))
}

/// Schema, table and constraint.
type KeyName = (String, String, String);

fn key_name(row: &MySqlRow) -> Result<KeyName, sqlx::Error> {
    Ok((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?))
}

fn unique_keys(rows: &[MySqlRow]) -> Result<Vec<ConstraintRow>, sqlx::Error> {
    let mut keys: BTreeMap<KeyName, Option<Vec<String>>> = BTreeMap::new();
    for row in rows {
        let column: Option<String> = row.try_get(3)?;
        let columns = keys.entry(key_name(row)?).or_insert_with(|| Some(Vec::new()));
        match (columns.as_mut(), column) {
            (Some(columns), Some(column)) => columns.push(column),
            _ => *columns = None,
        }
    }
    let found = keys.into_iter().filter_map(|((schema, table, name), columns)| {
        let constraint = if name == "PRIMARY" { Constraint::PrimaryKey } else { Constraint::Unique };
        Some(ConstraintRow { schema, table, name, columns: columns?, constraint })
    });
    Ok(found.collect())
}

fn foreign_keys(rows: &[MySqlRow]) -> Result<Vec<ConstraintRow>, sqlx::Error> {
    let mut keys: Vec<ConstraintRow> = Vec::new();
    for row in rows {
        let (schema, table, name) = key_name(row)?;
        let (column, ref_column): (String, String) = (row.try_get(3)?, row.try_get(6)?);
        if let Some(ConstraintRow {
            columns, constraint: Constraint::ForeignKey { ref_columns, .. }, ..
        }) = keys.last_mut().filter(|k| (&k.schema, &k.table, &k.name) == (&schema, &table, &name))
        {
            columns.push(column);
            ref_columns.push(ref_column);
            continue;
        }
        let constraint = Constraint::ForeignKey {
            ref_schema: row.try_get(4)?,
            ref_table: row.try_get(5)?,
            ref_columns: vec![ref_column],
        };
        keys.push(ConstraintRow { schema, table, name, columns: vec![column], constraint });
    }
    Ok(keys)
}
