//! Names: words out of identifiers, one spelling for equal concepts, tidy text out of a model's.

/// Longest name that is kept, in bytes.
pub const MAX_NAME_BYTES: usize = 64;
/// Longest description that is kept, in bytes.
pub const MAX_DESCRIPTION_BYTES: usize = 240;

/// Lower-case words of an identifier: `OrderItems`, `order_items` and `"Order Items"` are the same two.
pub fn words(identifier: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    let mut word = String::new();
    let mut before_lower = false;
    for c in identifier.chars() {
        if (!c.is_alphanumeric() || (c.is_uppercase() && before_lower)) && !word.is_empty() {
            words.push(std::mem::take(&mut word));
        }
        before_lower = c.is_lowercase() || c.is_numeric();
        if c.is_alphanumeric() {
            word.extend(c.to_lowercase());
        }
    }
    if !word.is_empty() {
        words.push(word);
    }
    words
}

/// English singular by ending; words it does not know stay as they are.
pub fn singular(word: &str) -> String {
    let cut = |n: usize| word[..word.len() - n].to_string();
    if !word.is_ascii() || word.len() < 4 || ["series", "species", "news", "goods", "always"].contains(&word)
    {
        return word.to_string();
    }
    if word.ends_with("ies") {
        return cut(3) + "y";
    }
    if ["sses", "xes", "ches", "shes", "uses"].iter().any(|e| word.ends_with(e)) {
        return cut(2);
    }
    let keeps = ["ss", "us", "is"].iter().any(|e| word.ends_with(e));
    if word.ends_with('s') && !keeps { cut(1) } else { word.to_string() }
}

/// The part of a table's name after its schema.
pub fn bare(table: &str) -> &str {
    match table.rsplit_once('.') {
        Some((_, name)) if !name.trim().is_empty() => name,
        _ => table,
    }
}

/// Words of a table's name without schema and habitual prefix, the last one in the singular.
pub fn table_words(table: &str) -> Vec<String> {
    let mut words = words(bare(table));
    if words.len() > 1 && ["tbl", "t", "tab", "table"].contains(&words[0].as_str()) {
        words.remove(0);
    }
    if let Some(last) = words.last_mut() {
        *last = singular(last);
    }
    words
}

/// A concept's name made from its table's: `sales.order_items` → `Order Item`.
pub fn concept_of_table(table: &str) -> String {
    let titled: Vec<String> = table_words(table).iter().map(|w| capitalised(w)).collect();
    fallback(tidy(&titled.join(" "), MAX_NAME_BYTES), table)
}

/// An attribute's name made from its column's: `unitPrice` → `unit price`.
pub fn attribute_of_column(column: &str) -> String {
    fallback(tidy(&words(column).join(" "), MAX_NAME_BYTES), column)
}

/// A relationship's name made from its first column: `customer_id` → `customer`.
pub fn relationship_of(column: Option<&str>, to_table: &str) -> String {
    let mut words = column.map(words).unwrap_or_default();
    if words.len() > 1 && words.last().is_some_and(|w| is_key_word(w)) {
        words.pop();
    }
    if words.len() == 1 && is_key_word(&words[0]) {
        words.clear();
    }
    if words.is_empty() {
        words = table_words(to_table);
    }
    fallback(tidy(&words.join(" "), MAX_NAME_BYTES), bare(to_table))
}

/// Words of the longest concept name, and of the longest other name, that are taken from a model.
const CONCEPT_WORDS: usize = 5;
const NAME_WORDS: usize = 9;

/// A model's text as a concept's name: capitalised words, the last one in the singular. `None` if it is no
/// noun phrase: empty, long, with signs of a sentence or of code.
pub fn concept(text: &str) -> Option<String> {
    let mut words = plain_words(text, CONCEPT_WORDS)?;
    if let Some(last) = words.last_mut()
        && last.chars().any(char::is_lowercase)
    {
        *last = singular(&last.to_lowercase()).chars().zip(last.chars()).fold(
            String::new(),
            // as it was written, so far as it is kept
            |mut kept, (new, old)| {
                kept.push(if old.to_lowercase().eq([new]) { old } else { new });
                kept
            },
        );
    }
    Some(words.iter().map(|word| capitalised(word)).collect::<Vec<_>>().join(" "))
}

/// A model's text as the name of an attribute or relationship; an identifier is read as its words.
pub fn plain(text: &str) -> Option<String> {
    Some(plain_words(text, NAME_WORDS)?.join(" "))
}

fn plain_words(text: &str, most: usize) -> Option<Vec<String>> {
    let text = tidy(text, MAX_NAME_BYTES + 1);
    let fits = |c: char| c.is_alphanumeric() || " _-'’&/()%+#".contains(c) || is_mark(c);
    if text.len() > MAX_NAME_BYTES || !text.chars().all(fits) || !text.chars().any(char::is_alphabetic) {
        return None;
    }
    let list: Vec<String> = match text.contains('_') {
        true => words(&text),
        false => text.split(' ').map(String::from).collect(),
    };
    (list.len() <= most).then_some(list)
}

/// Marks that belong to the letter before them, in scripts that have such.
fn is_mark(c: char) -> bool {
    matches!(c, '\u{300}'..='\u{36f}' | '\u{591}'..='\u{5c7}' | '\u{64b}'..='\u{65f}' | '\u{900}'..='\u{d7f}')
}

/// The first sentence of a model's text, tidied: small models say one thing again and again.
pub fn sentence(text: &str) -> String {
    let text = tidy(text, MAX_DESCRIPTION_BYTES);
    let mut before = String::new();
    for (at, c) in text.char_indices() {
        // an abbreviation has a letter or two before its dot, and what follows it is no capital
        let ends = matches!(c, '.' | '!' | '?') && before.chars().count() > 2;
        let mut next = text[at + c.len_utf8()..].chars();
        if ends && next.next() == Some(' ') && next.next().is_some_and(char::is_uppercase) {
            return text[..at + c.len_utf8()].to_string();
        }
        if c.is_alphanumeric() { before.push(c) } else { before.clear() }
    }
    text
}

/// Endings of columns that refer to something: `customer_id`, `cust_no`.
pub fn is_key_word(word: &str) -> bool {
    ["id", "no", "nr", "num", "number", "code", "key", "ref", "fk", "uuid", "guid", "cd"].contains(&word)
}

fn capitalised(word: &str) -> String {
    let mut chars = word.chars();
    match chars.next() {
        Some(first) => first.to_uppercase().chain(chars).collect(),
        None => String::new(),
    }
}

/// An identifier may hold nothing that makes a word, e.g. `"!!"`; then it names itself.
fn fallback(name: String, identifier: &str) -> String {
    if !name.is_empty() {
        return name;
    }
    let itself = tidy(identifier, MAX_NAME_BYTES);
    if itself.is_empty() { "unnamed".into() } else { itself }
}

/// Equal for names that mean one concept: without case, punctuation and plural.
pub fn concept_key(name: &str) -> String {
    let words: Vec<String> = words(name).iter().map(|w| singular(w)).collect();
    if words.is_empty() { name.trim().to_string() } else { words.join(" ") }
}

/// One line without control characters and doubled blanks, cut at a word's end to at most `max_bytes`.
pub fn tidy(text: &str, max_bytes: usize) -> String {
    let mut out = String::with_capacity(text.len().min(max_bytes));
    let blank = |c: char| c.is_whitespace() || c.is_control();
    for word in text.split(blank).filter(|w| !w.is_empty()) {
        let gap = usize::from(!out.is_empty());
        if out.len() + gap + word.len() > max_bytes {
            if out.is_empty() {
                let mut end = max_bytes;
                while !word.is_char_boundary(end) {
                    end -= 1;
                }
                out.push_str(&word[..end]);
            }
            break;
        }
        if gap == 1 {
            out.push(' ');
        }
        out.push_str(word);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_a_model_become_noun_phrases_or_nothing() {
        for (text, name) in [
            ("Customers", Some("Customer")),
            ("order statuses", Some("Order Status")),
            ("order_items", Some("Order Item")),
            ("PDFs", Some("PDF")),
            ("VAT", Some("VAT")),
            ("Address", Some("Address")),
            ("Time Series", Some("Time Series")),
            ("Kunde/Kundin", Some("Kunde/Kundin")),
            ("商品", Some("商品")),
            ("It is a customer of the shop", None),
            ("customers.id", None),
            ("{{ x }}", None),
            ("\"", None),
            ("12", None),
            ("", None),
        ] {
            assert_eq!(concept(text).as_deref(), name, "{text}");
        }
        assert_eq!(plain("ordered_at").as_deref(), Some("ordered at"));
        assert_eq!(plain("is part of").as_deref(), Some("is part of"));
        assert_eq!(plain("orders.id -> x"), None);
    }

    #[test]
    fn one_sentence_is_kept() {
        for (text, kept) in [
            ("A thing. A thing. A th", "A thing."),
            ("A thing,\n e.g. this one, at 3.5 %.", "A thing, e.g. this one, at 3.5 %."),
            ("Of the U.S. Customs office. And more", "Of the U.S. Customs office."),
            ("no end", "no end"),
            ("", ""),
        ] {
            assert_eq!(sentence(text), kept);
        }
    }
}
