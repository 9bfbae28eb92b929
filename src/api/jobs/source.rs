//! What a submission's inputs are read into: a catalog, or a list of single inputs.

use serde_json::Value;

use crate::api::problem::ApiError;
use crate::config::settings::Limits;
use crate::domain::catalog::{Catalog, Table};
use crate::domain::code::Code;
use crate::domain::job::JobSpec;
use crate::domain::omission::Omissions;
use crate::domain::task::Task;
use crate::extract::pipeline;
use crate::extract::source::{
    Read, Sieve, SourceError, catalog_json, checked, csv, dbt_manifest, ddl, jsonl, table_list,
};
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
pub fn of_document(spec: &JobSpec, source: &Source) -> Result<(Inputs, Omissions), ApiError> {
    let fits = spec.task.reads_catalog() != (source.format == Format::Jsonl);
    if !fits {
        let detail = format!("task {} does not read sources of this format", spec.task);
        return Err(ApiError::new(Code::InvalidRequest, detail).pointer("/source/format"));
    }
    if source.format != Format::Ddl && source.dialect.is_some_and(|dialect| dialect != Dialect::Auto) {
        let detail = "dialect is an option of format ddl";
        return Err(ApiError::new(Code::InvalidRequest, detail).pointer("/source"));
    }
    let (text, lenient) = (source.text.as_str(), source.lenient);
    let Read { catalog, left_out } = match source.format {
        Format::Jsonl => {
            let (lines, left_out) = lines_of(spec, text, lenient)?;
            return Ok((Inputs::Singles(lines), left_out));
        }
        Format::Ddl => {
            let dialect = dialect_of(source.dialect.unwrap_or_default());
            ddl::read(text, ddl::Options { dialect, lenient })?
        }
        Format::Csv => csv::read(text, lenient)?,
        Format::Tables => table_list::read(text, lenient)?,
        Format::Catalog => catalog_json::read(text, lenient)?,
        Format::Dbt => dbt_manifest::read(text, lenient)?,
    };
    if let (true, Some(first)) = (catalog.tables.is_empty(), left_out.listed.first()) {
        let detail = format!("nothing of the source could be read; the first fault: {}", first.message);
        let error = ApiError::new(Code::InvalidInput, detail);
        return Err(error.at(first.line, Some(first.column)).pointer("/source/text"));
    }
    Ok((Inputs::Catalog(catalog), left_out))
}

fn lines_of(spec: &JobSpec, text: &str, lenient: bool) -> Result<(Vec<Value>, Omissions), ApiError> {
    if spec.task == Task::Custom {
        let (texts, left_out) = jsonl::read(text, lenient)?;
        return Ok((texts.into_iter().map(Value::String).collect(), left_out));
    }
    let mut sieve = Sieve::new(lenient);
    let mut values = Vec::new();
    for (line, number) in text.lines().zip(1..).filter(|(line, _)| !line.trim().is_empty()) {
        match line_of(spec, line, number) {
            Ok(value) => values.push(value),
            Err(error) => sieve.leave_out(error)?,
        }
    }
    Ok((values, sieve.into_left_out()))
}

fn line_of(spec: &JobSpec, line: &str, number: u64) -> Result<Value, SourceError> {
    let value: Value = serde_json::from_str(line)
        .map_err(|error| SourceError::new(number, error.column().max(1) as u64, error.to_string()))?;
    match pipeline::input_item(spec, value.clone()) {
        Ok(_) => Ok(value),
        Err(error) => Err(SourceError::new(number, 1, error.to_string())),
    }
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
