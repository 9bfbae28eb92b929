//! A catalog as JSON, in the form in which adit itself writes it.

use super::{SourceError, checked};
use crate::domain::catalog::Catalog;

pub fn read(text: &str) -> Result<Catalog, SourceError> {
    let catalog: Catalog = serde_json::from_str(text).map_err(|e| SourceError::of_json(&e))?;
    checked(catalog)
}
