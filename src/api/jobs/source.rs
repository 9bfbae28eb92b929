//! What a submission's inputs are read into: a catalog, or a list of single inputs.

use serde_json::Value;

use crate::api::problem::ApiError;
use crate::config::settings::Limits;
use crate::domain::catalog::{Catalog, Table};
use crate::domain::code::Code;
use crate::domain::task::Task;
use crate::extract::source::{catalog_json, checked, csv, ddl, jsonl, table_list};
use crate::wire::submit::{Dialect, Format, Source};

/// Inputs in the form that items are made from.
#[derive(Debug, PartialEq)]
pub enum Inputs {
    Catalog(Catalog),
    Singles(Vec<Value>),
}

/// Inputs given one by one: tables of a schema task, texts or messages of the others.
pub fn of_list(task: Task, inputs: Vec<Value>, limits: &Limits) -> Result<Inputs, ApiError> {
    for (at, input) in inputs.iter().enumerate() {
        let bytes = input.as_str().map_or_else(|| input.to_string().len(), str::len);
        if bytes > limits.max_line_bytes {
            let limit = limits.max_line_bytes;
            let detail = format!("input {at} exceeds limits.max_line_bytes ({limit})");
            return Err(ApiError::new(Code::TooLarge, detail).pointer(format!("/inputs/{at}")));
        }
    }
    if !task.reads_catalog() {
        return Ok(Inputs::Singles(inputs));
    }
    let mut tables = Vec::with_capacity(inputs.len());
    for (at, input) in inputs.into_iter().enumerate() {
        tables.push(table_of(input).map_err(|detail| {
            ApiError::new(Code::InvalidInput, format!("input {at}: {detail}"))
                .pointer(format!("/inputs/{at}"))
        })?);
    }
    catalog_of(tables)
}

/// A table's name, or a table in the catalog's form.
pub fn table_of(input: Value) -> Result<Table, String> {
    match input {
        Value::String(name) if name.trim().is_empty() => Err("a table's name is empty".into()),
        Value::String(name) => Ok(Table { name, ..Table::default() }),
        other => serde_json::from_value(other).map_err(|error| format!("not a table: {error}")),
    }
}

/// Names must tell tables and columns apart, and keys name columns that exist.
pub fn catalog_of(tables: Vec<Table>) -> Result<Inputs, ApiError> {
    let catalog = checked(Catalog { tables })
        .map_err(|error| ApiError::new(Code::InvalidInput, error.message).pointer("/inputs"))?;
    Ok(Inputs::Catalog(catalog))
}

/// Inputs of one document, and what was left out of it on the client's wish.
pub fn of_document(task: Task, source: &Source) -> Result<(Inputs, Vec<String>), ApiError> {
    let fits = task.reads_catalog() != (source.format == Format::Jsonl);
    if !fits {
        let detail = format!("task {task} does not read sources of this format");
        return Err(ApiError::new(Code::InvalidRequest, detail).pointer("/source/format"));
    }
    if source.format != Format::Ddl
        && (source.lenient || source.dialect.is_some_and(|dialect| dialect != Dialect::Auto))
    {
        let detail = "dialect and lenient are options of format ddl";
        return Err(ApiError::new(Code::InvalidRequest, detail).pointer("/source"));
    }
    let text = source.text.as_str();
    let catalog = match source.format {
        Format::Jsonl => return Ok((Inputs::Singles(lines_of(task, text)?), Vec::new())),
        Format::Ddl => {
            let dialect = dialect_of(source.dialect.unwrap_or_default());
            let read = ddl::read(text, ddl::Options { dialect, lenient: source.lenient })?;
            let left_out = read.left_out.iter().map(ToString::to_string).collect();
            return Ok((Inputs::Catalog(read.catalog), left_out));
        }
        Format::Csv => csv::read(text)?,
        Format::Tables => table_list::read(text)?,
        Format::Catalog => catalog_json::read(text)?,
    };
    Ok((Inputs::Catalog(catalog), Vec::new()))
}

fn lines_of(task: Task, text: &str) -> Result<Vec<Value>, ApiError> {
    if task == Task::Custom {
        return Ok(jsonl::read(text)?.into_iter().map(Value::String).collect());
    }
    let lines = text.lines().zip(1..).filter(|(line, _)| !line.trim().is_empty());
    lines
        .map(|(line, number)| {
            serde_json::from_str(line).map_err(|error| {
                ApiError::new(Code::InvalidInput, format!("line {number}: {error}"))
                    .at(number, Some(error.column() as u64))
                    .pointer("/source/text")
            })
        })
        .collect()
}

fn dialect_of(dialect: Dialect) -> ddl::Dialect {
    match dialect {
        Dialect::Auto => ddl::Dialect::Auto,
        Dialect::Postgres => ddl::Dialect::Postgres,
        Dialect::Mysql => ddl::Dialect::MySql,
        Dialect::Sqlite => ddl::Dialect::Sqlite,
        Dialect::Mssql => ddl::Dialect::MsSql,
    }
}
