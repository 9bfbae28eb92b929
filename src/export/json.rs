//! The model as it is, indented, with a final newline.

use crate::domain::fact::DataModel;

pub fn write(model: &DataModel) -> String {
    let mut text = serde_json::to_string_pretty(model).expect("a model has string keys only");
    text.push('\n');
    text
}
