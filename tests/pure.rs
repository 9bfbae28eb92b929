//! Pure code: sources, items, prompts, schemas, answers, facts, exports. Data in, data out.
#![allow(clippy::unwrap_used)]

#[path = "pure/catalogs.rs"]
mod catalogs;
#[path = "pure/export.rs"]
mod export;
#[path = "pure/pipeline.rs"]
mod pipeline;
#[path = "pure/source.rs"]
mod source;
