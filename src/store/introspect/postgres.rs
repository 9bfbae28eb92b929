//! A live Postgres as a source: its catalog rows, read in one read-only transaction of a connection of its own.
//!
//! Views are left out: what they show is in their tables. Partitions are part of their parent, foreign tables are
//! tables. The foreign database is not trusted: names are looked up in `pg_catalog` alone, so that none of its own
//! functions can stand in for the server's.

use std::str::FromStr;
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgConnection, PgRow};
use sqlx::{Connection, Row};

use super::{IntrospectError, LiveSource};
use crate::domain::catalog::Catalog;
use crate::extract::source::information_schema::{
    ColumnRow, Constraint, ConstraintRow, Rows, TableRow, build,
};

/// What the address may say behind its `?`.
pub(super) const PARAMETERS: [&str; 20] = [
    "sslmode",
    "ssl-mode",
    "sslrootcert",
    "ssl-root-cert",
    "ssl-ca",
    "sslcert",
    "ssl-cert",
    "sslkey",
    "ssl-key",
    "statement-cache-capacity",
    "host",
    "hostaddr",
    "port",
    "dbname",
    "user",
    "password",
    "application_name",
    "options",
    "connect_timeout",
    "target_session_attrs",
];

const TABLES: &str = "
    select n.nspname::text, c.relname::text, obj_description(c.oid, 'pg_class'),
           case when c.relkind = 'p' then (
                    with recursive parts as (
                        select inhrelid from pg_inherits where inhparent = c.oid
                        union all
                        select i.inhrelid from pg_inherits i join parts p on i.inhparent = p.inhrelid)
                    select sum(l.reltuples)::bigint from parts join pg_class l on l.oid = inhrelid
                     where l.relkind in ('r', 'f') and l.reltuples >= 0)
                when c.reltuples >= 0 then c.reltuples::bigint end
      from pg_class c join pg_namespace n on n.oid = c.relnamespace
     where c.relkind in ('r', 'p', 'f') and not c.relispartition
       and n.nspname <> 'information_schema' and n.nspname !~ '^pg_'
       and ($1::text[] is null or n.nspname = any ($1))
     order by n.nspname, c.relname";

const COLUMNS: &str = "
    select n.nspname::text, c.relname::text, a.attname::text, format_type(a.atttypid, a.atttypmod),
           not a.attnotnull, pg_get_expr(d.adbin, d.adrelid), col_description(c.oid, a.attnum)
      from pg_attribute a
      join pg_class c on c.oid = a.attrelid
      join pg_namespace n on n.oid = c.relnamespace
      left join pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
     where c.relkind in ('r', 'p', 'f') and not c.relispartition and a.attnum > 0 and not a.attisdropped
       and n.nspname <> 'information_schema' and n.nspname !~ '^pg_'
       and ($1::text[] is null or n.nspname = any ($1))
     order by n.nspname, c.relname, a.attnum";

// Unique indexes that no constraint owns count as well, unless they cover expressions or some rows only.
const CONSTRAINTS: &str = "
    select n.nspname::text, c.relname::text, k.conname::text, k.contype::text,
           array(select a.attname::text from unnest(k.conkey) with ordinality u(num, ord)
                   join pg_attribute a on a.attrelid = k.conrelid and a.attnum = u.num order by u.ord),
           fn.nspname::text, f.relname::text,
           array(select a.attname::text from unnest(k.confkey) with ordinality u(num, ord)
                   join pg_attribute a on a.attrelid = k.confrelid and a.attnum = u.num order by u.ord)
      from pg_constraint k
      join pg_class c on c.oid = k.conrelid
      join pg_namespace n on n.oid = c.relnamespace
      left join pg_class f on f.oid = k.confrelid
      left join pg_namespace fn on fn.oid = f.relnamespace
     where k.contype in ('p', 'u', 'f') and k.conparentid = 0
       and n.nspname <> 'information_schema' and n.nspname !~ '^pg_'
       and ($1::text[] is null or n.nspname = any ($1))
    union all
    select n.nspname::text, c.relname::text, x.relname::text, 'u',
           array(select a.attname::text from unnest(i.indkey::int2[]) with ordinality u(num, ord)
                   join pg_attribute a on a.attrelid = i.indrelid and a.attnum = u.num
                  where u.ord <= i.indnkeyatts order by u.ord),
           null, null, '{}'
      from pg_index i
      join pg_class x on x.oid = i.indexrelid
      join pg_class c on c.oid = i.indrelid
      join pg_namespace n on n.oid = c.relnamespace
     where i.indisunique and i.indpred is null and i.indexprs is null
       and not exists (select 1 from pg_constraint k where k.conindid = i.indexrelid and k.contype in ('p', 'u'))
       and n.nspname <> 'information_schema' and n.nspname !~ '^pg_'
       and ($1::text[] is null or n.nspname = any ($1))
     order by 1, 2, 3";

/// Tables of `public` go by their bare name.
pub(super) async fn read(source: &LiveSource<'_>) -> Result<Catalog, IntrospectError> {
    let mut options = PgConnectOptions::from_str(source.url)?.application_name("adit introspection");
    if let Some(password) = source.password {
        options = options.password(password);
    }
    let patience = source.patience;
    let mut connection = tokio::time::timeout(patience.connect, PgConnection::connect_with(&options))
        .await
        .map_err(|_| IntrospectError::Timeout(patience.connect))??;
    let rows = read_rows(&mut connection, source.schemas, patience.statement).await;
    // what was read stands, however the goodbye goes
    let _ = connection.close().await;
    Ok(build(rows?, "public")?)
}

async fn read_rows(
    connection: &mut PgConnection,
    schemas: Option<&[String]>,
    timeout: Duration,
) -> Result<Rows, sqlx::Error> {
    let mut tx = connection.begin_with("begin isolation level repeatable read read only").await?;
    sqlx::query(
        "select pg_catalog.set_config('search_path', 'pg_catalog', true),
                pg_catalog.set_config('statement_timeout', $1, true)",
    )
    .bind(timeout.as_millis().max(1).to_string())
    .execute(&mut *tx)
    .await?;
    let mut rows = Rows::default();
    for row in sqlx::query(TABLES).bind(schemas).fetch_all(&mut *tx).await? {
        rows.tables.push(TableRow {
            schema: row.try_get(0)?,
            table: row.try_get(1)?,
            comment: row.try_get(2)?,
            row_estimate: row.try_get(3)?,
        });
    }
    for row in sqlx::query(COLUMNS).bind(schemas).fetch_all(&mut *tx).await? {
        rows.columns.push(ColumnRow {
            schema: row.try_get(0)?,
            table: row.try_get(1)?,
            column: row.try_get(2)?,
            data_type: of_public(row.try_get(3)?),
            nullable: row.try_get(4)?,
            default: row.try_get(5)?,
            comment: row.try_get(6)?,
        });
    }
    for row in sqlx::query(CONSTRAINTS).bind(schemas).fetch_all(&mut *tx).await? {
        rows.constraints.push(constraint(&row)?);
    }
    tx.rollback().await?;
    Ok(rows)
}

/// Types of `public` go by their bare name, as its tables do.
fn of_public(data_type: String) -> String {
    data_type.strip_prefix("public.").map_or(data_type.clone(), str::to_owned)
}

fn constraint(row: &PgRow) -> Result<ConstraintRow, sqlx::Error> {
    let kind: String = row.try_get(3)?;
    let constraint = match kind.as_str() {
        "p" => Constraint::PrimaryKey,
        "u" => Constraint::Unique,
        _ => Constraint::ForeignKey {
            ref_schema: row.try_get(5)?,
            ref_table: row.try_get(6)?,
            ref_columns: row.try_get(7)?,
        },
    };
    Ok(ConstraintRow {
        schema: row.try_get(0)?,
        table: row.try_get(1)?,
        name: row.try_get(2)?,
        columns: row.try_get(4)?,
        constraint,
    })
}
