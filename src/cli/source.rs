//! What `--from` names, read here: a database's credentials never leave this process.

use std::io::Read;
use std::path::Path;

use anyhow::{Context, Result};

use super::args::{SourceFormat, SubmitArguments};
use super::exit::{Exit, Stop};
use crate::domain::task::Task;
use crate::extract::source::{JsonKind, json_kind};
use crate::store::introspect::{self, LiveSource, Patience, redacted};
use crate::wire::submit::{Dialect, Format, Source};

/// First bytes of every SQLite file.
const SQLITE: &[u8] = b"SQLite format 3\0";

/// The document to submit: a file's text, stdin's, or the structure of a live database.
pub async fn read(args: &SubmitArguments) -> Result<Source> {
    let (format, text) = match live_address(args)? {
        Some(url) => (Format::Catalog, read_live(args, &url).await?),
        None => read_text(args)?,
    };
    let dialect = (format == Format::Ddl).then(|| dialect(&args.dialect));
    Ok(Source { format, text, dialect, lenient: args.lenient })
}

/// Whether `--from` is one line per input, which is streamed however long it is.
pub fn is_lines(args: &SubmitArguments) -> Result<bool> {
    Ok(live_address(args)?.is_none() && format(args)? == Format::Jsonl)
}

/// The address of a live database; a SQLite file is one by itself.
fn live_address(args: &SubmitArguments) -> Result<Option<String>> {
    let from = args.from.as_str();
    if introspect::is_live(from) {
        return Ok(Some(from.into()));
    }
    if from == "-" || args.format.is_some() {
        return Ok(None);
    }
    let mut head = [0; SQLITE.len()];
    let file = std::fs::File::open(from).with_context(|| from.to_string())?;
    let is_sqlite = file.take(SQLITE.len() as u64).read_exact(&mut head).is_ok() && head == SQLITE;
    Ok(is_sqlite.then(|| format!("sqlite:{from}")))
}

async fn read_live(args: &SubmitArguments, url: &str) -> Result<String> {
    let source = LiveSource {
        url,
        password: args.source_password.as_deref(),
        schemas: (!args.schemas.is_empty()).then_some(args.schemas.as_slice()),
        patience: Patience::default(),
    };
    let catalog = introspect::read(&source).await.with_context(|| format!("reading {}", redacted(url)))?;
    if catalog.tables.is_empty() {
        let message = format!("{} has no table that its user can see", redacted(url));
        return Err(Stop::new(Exit::Failed, message).into());
    }
    Ok(serde_json::to_string(&catalog)?)
}

fn read_text(args: &SubmitArguments) -> Result<(Format, String)> {
    let from = args.from.as_str();
    let text = if from == "-" {
        std::io::read_to_string(std::io::stdin())?
    } else {
        let bytes = std::fs::read(from).with_context(|| from.to_string())?;
        decoded(bytes).with_context(|| from.to_string())?
    };
    let format = match format(args)? {
        Format::Tables if args.format.is_none() => match json_kind(&text) {
            JsonKind::Tables => Format::Tables,
            JsonKind::Catalog => Format::Catalog,
            JsonKind::DbtManifest => Format::Dbt,
        },
        format => format,
    };
    Ok((format, text))
}

/// UTF-8, or the UTF-16 that SQL Server's tools write, which begins with a mark.
fn decoded(bytes: Vec<u8>) -> Result<String> {
    let wide = match bytes.as_slice() {
        [0xff, 0xfe, rest @ ..] => Some((rest, u16::from_le_bytes as fn([u8; 2]) -> u16)),
        [0xfe, 0xff, rest @ ..] => Some((rest, u16::from_be_bytes as fn([u8; 2]) -> u16)),
        _ => None,
    };
    match wide {
        Some((rest, unit)) => {
            let units: Vec<u16> = rest.chunks_exact(2).map(|pair| unit([pair[0], pair[1]])).collect();
            Ok(String::from_utf16(&units).context("not a text in UTF-16")?)
        }
        None => Ok(String::from_utf8(bytes).context("not a text in UTF-8")?),
    }
}

fn dialect(word: &str) -> Dialect {
    match word {
        "postgres" => Dialect::Postgres,
        "mysql" => Dialect::Mysql,
        "sqlite" => Dialect::Sqlite,
        "mssql" => Dialect::Mssql,
        _ => Dialect::default(),
    }
}

/// What a file or stdin holds; of JSON without a look inside.
fn format(args: &SubmitArguments) -> Result<Format> {
    match args.format {
        Some(SourceFormat::Ddl) => Ok(Format::Ddl),
        Some(SourceFormat::Csv) => Ok(Format::Csv),
        Some(SourceFormat::Tables) => Ok(Format::Tables),
        Some(SourceFormat::Catalog) => Ok(Format::Catalog),
        Some(SourceFormat::Dbt) => Ok(Format::Dbt),
        Some(SourceFormat::Jsonl) => Ok(Format::Jsonl),
        None => by_ending(&args.from, args.task),
    }
}

fn by_ending(from: &str, task: Task) -> Result<Format> {
    match Path::new(from).extension().and_then(|e| e.to_str()) {
        Some("sql" | "ddl") => Ok(Format::Ddl),
        Some("csv") => Ok(Format::Csv),
        Some("json") => Ok(Format::Tables),
        Some("jsonl" | "ndjson") => Ok(Format::Jsonl),
        _ if !task.reads_catalog() => Ok(Format::Jsonl),
        _ => Err(Stop::new(Exit::Usage, format!("{from}: say what it is with --format")).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_of_sql_server_are_read_in_their_encoding() {
        let text = "CREATE TABLE [Größe] (id int)";
        let wide: Vec<u8> =
            [0xfeff_u16].into_iter().chain(text.encode_utf16()).flat_map(u16::to_le_bytes).collect();
        assert_eq!(decoded(wide).unwrap(), text);
        assert_eq!(decoded(text.as_bytes().to_vec()).unwrap(), text);
        assert!(decoded(vec![0xc3, 0x28]).is_err());
    }
}
