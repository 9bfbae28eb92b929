//! SQL Server's comments: `EXEC sp_addextendedproperty N'MS_Description', N'…', N'SCHEMA', N'dbo', N'TABLE', …`.

use super::walk::Walk;

/// A description of a table, or of one of its columns.
pub(super) struct Description {
    pub(super) text: String,
    pub(super) schema: Option<String>,
    pub(super) table: String,
    pub(super) column: Option<String>,
}

/// The procedure's parameters, in its order.
const PARAMETERS: [&str; 8] =
    ["name", "value", "level0type", "level0name", "level1type", "level1name", "level2type", "level2name"];

/// From behind the procedure's name; `None` for properties of anything else.
pub(super) fn description(walk: Walk<'_>) -> Option<Description> {
    let mut values: [Option<String>; 8] = Default::default();
    for (at, mut part) in walk.rest().split_commas().into_iter().enumerate() {
        let named = PARAMETERS.iter().position(|name| part.word(&format!("@{name}")));
        if named.is_some() {
            part.at += 1;
        }
        // a number or NULL is no name
        *values.get_mut(named.unwrap_or(at))? = part.string().or_else(|| part.identifier().ok());
    }
    let [name, value, schema_type, schema, table_type, table, column_type, column] = values;
    let is =
        |value: &Option<String>, word: &str| value.as_ref().is_some_and(|v| v.eq_ignore_ascii_case(word));
    if !is(&name, "MS_Description") || !is(&table_type, "TABLE") {
        return None;
    }
    let column = if is(&column_type, "COLUMN") {
        Some(column?)
    } else if column_type.is_none() || is(&column_type, "NULL") {
        None
    } else {
        return None;
    };
    let schema = schema.filter(|_| is(&schema_type, "SCHEMA") || is(&schema_type, "USER"));
    Some(Description { text: value?, schema, table: table?, column })
}
