//! What names, types and keys suggest before any model has looked: offered in prompts, and kept where an item
//! fails. A small model that keeps what it is offered still gives a usable answer.

use super::name::{self, words};
use crate::domain::catalog::{Catalog, Column, ForeignKey, Table};
use crate::domain::fact::{Kind, Meaning};

/// Tables of the software rather than of its subject, by a word of their names.
const TECHNICAL: [&str; 16] = [
    "log",
    "logs",
    "audit",
    "migration",
    "migrations",
    "session",
    "sessions",
    "setting",
    "settings",
    "config",
    "cache",
    "queue",
    "job",
    "jobs",
    "lock",
    "token",
];
/// Columns that a table of events is likely to have a time in, by the word before `at`, `on` or `date`.
const BOOKKEEPING: [&str; 8] =
    ["created", "updated", "modified", "changed", "inserted", "deleted", "valid", "counted"];

/// The kind of what `table` holds.
pub fn kind(catalog: &Catalog, at: usize) -> Kind {
    let table = &catalog.tables[at];
    let words = words(name::bare(&table.name));
    if words.iter().any(|word| TECHNICAL.contains(&word.as_str())) {
        return Kind::Technical;
    }
    let refers = |column: &String| table.foreign_keys.iter().any(|key| key.columns.contains(column));
    let referring = table.foreign_keys.len();
    if referring >= 2 && table.primary_key.len() >= 2 && table.primary_key.iter().all(refers) {
        return Kind::Association;
    }
    if referring == 0
        && table.columns.len() <= 3
        && !table.columns.is_empty()
        && is_referred_to(catalog, table)
    {
        return Kind::Lookup;
    }
    if referring > 0 && table.columns.iter().any(tells_when) {
        return Kind::Event;
    }
    Kind::Entity
}

fn is_referred_to(catalog: &Catalog, table: &Table) -> bool {
    let to = |key: &ForeignKey| key.ref_table == table.name;
    catalog.tables.iter().any(|other| other.foreign_keys.iter().any(to))
}

fn tells_when(column: &Column) -> bool {
    let is_time = matches!(by_type(&column.data_type), Some(Meaning::Date | Meaning::Timestamp));
    is_time && !words(&column.name).iter().any(|word| BOOKKEEPING.contains(&word.as_str()))
}

/// What the schema itself states of a column's values; a model is not asked about it.
pub fn stated_meaning(table: &Table, column: &Column) -> Option<Meaning> {
    if table.foreign_keys.iter().any(|key| key.columns.contains(&column.name)) {
        return Some(Meaning::Reference);
    }
    if table.primary_key.len() == 1 && table.primary_key[0] == column.name {
        return Some(Meaning::Identifier);
    }
    by_type(&column.data_type)
}

/// Types that leave no choice.
fn by_type(data_type: &str) -> Option<Meaning> {
    let base: String =
        data_type.trim().to_lowercase().chars().take_while(char::is_ascii_alphabetic).collect();
    match base.as_str() {
        "bool" | "boolean" => Some(Meaning::Boolean),
        "date" => Some(Meaning::Date),
        "timestamp" | "timestamptz" | "datetime" | "datetimeoffset" | "smalldatetime" => {
            Some(Meaning::Timestamp)
        }
        "bytea" | "blob" | "binary" | "varbinary" | "longblob" | "mediumblob" | "image" => {
            Some(Meaning::Binary)
        }
        "json" | "jsonb" | "xml" => Some(Meaning::Document),
        _ => None,
    }
}

/// What a column's values are likely to mean.
pub fn meaning(table: &Table, column: &Column) -> Meaning {
    if let Some(stated) = stated_meaning(table, column) {
        return stated;
    }
    let words = words(&column.name);
    let has = |list: &[&str]| words.iter().any(|word| list.contains(&word.as_str()));
    let ends = |list: &[&str]| words.last().is_some_and(|word| list.contains(&word.as_str()));
    let base = column.data_type.trim().to_lowercase();
    let is_number =
        ["int", "num", "dec", "real", "float", "double", "money"].iter().any(|t| base.contains(t));
    if table.primary_key.contains(&column.name) {
        return Meaning::Identifier;
    }
    if has(&["email", "mail"]) {
        Meaning::Email
    } else if has(&["phone", "mobile", "fax", "tel"]) {
        Meaning::Phone
    } else if has(&["url", "uri", "website", "link"]) {
        Meaning::Url
    } else if ends(&["status", "state"]) {
        Meaning::Status
    } else if has(&["percent", "percentage", "pct", "ratio"]) {
        Meaning::Percentage
    } else if is_number && has(&["price", "amount", "cost", "total", "salary", "fee", "tax", "balance"]) {
        Meaning::Amount
    } else if ends(&["code", "sku", "iso", "isbn", "number", "no"]) {
        Meaning::Code
    } else if is_number {
        Meaning::Quantity
    } else if has(&["street", "city", "address", "postcode", "zip"]) {
        Meaning::Address
    } else if ends(&["name", "title", "label"]) {
        Meaning::Name
    } else if ends(&["type", "kind", "category", "method", "gender"]) {
        Meaning::Category
    } else if words.is_empty() || base.is_empty() {
        Meaning::Other
    } else {
        Meaning::Text
    }
}

/// A key's name, read from its owner to what it refers to: `customer_id` → `has customer`, `referred_by` →
/// `referred by`.
pub fn relationship(columns: &[String], to_table: &str) -> String {
    let noun = name::relationship_of(columns.first().map(String::as_str), to_table);
    let verb = noun
        .rsplit(' ')
        .next()
        .is_some_and(|word| ["by", "to", "from", "of", "in", "at", "for"].contains(&word));
    if verb { noun } else { name::tidy(&format!("has {noun}"), name::MAX_NAME_BYTES) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(name: &str, data_type: &str) -> Column {
        Column { name: name.into(), data_type: data_type.into(), ..Column::default() }
    }

    #[test]
    fn types_and_names_suggest_a_meaning() {
        let table = Table::default();
        for (name, data_type, expected) in [
            ("in_customs_union", "boolean", Meaning::Boolean),
            ("ordered_at", "timestamptz", Meaning::Timestamp),
            ("when", "timestamp(3) without time zone", Meaning::Timestamp),
            ("due", "date", Meaning::Date),
            ("contact_email", "text", Meaning::Email),
            ("unit_price", "numeric(10,2)", Meaning::Amount),
            ("vat_percent", "numeric(4,2)", Meaning::Percentage),
            ("quantity", "integer", Meaning::Quantity),
            ("tracking_code", "text", Meaning::Code),
            ("fullName", "text", Meaning::Name),
            ("body", "text", Meaning::Text),
            ("", "", Meaning::Other),
        ] {
            assert_eq!(meaning(&table, &column(name, data_type)), expected, "{name} {data_type}");
        }
    }

    #[test]
    fn keys_read_from_their_owner() {
        let name = |column: &str| relationship(&[column.to_string()], "customers");
        assert_eq!(name("customer_id"), "has customer");
        assert_eq!(name("referred_by"), "referred by");
        assert_eq!(name("id"), "has customer");
        assert_eq!(relationship(&[], "sales.customers"), "has customer");
    }
}
