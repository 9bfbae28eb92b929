//! Pure code: sources, items, prompts, schemas, answers, facts, exports. Data in, data out.
#![allow(clippy::unwrap_used)]

#[path = "pure/catalogs.rs"]
mod catalogs;
#[path = "pure/confidence.rs"]
mod confidence;
#[path = "pure/ddl.rs"]
mod ddl;
#[path = "pure/dot.rs"]
mod dot;
#[path = "pure/export.rs"]
mod export;
#[path = "pure/golden.rs"]
mod golden;
#[path = "pure/manifest.rs"]
mod manifest;
#[path = "pure/pipeline.rs"]
mod pipeline;
#[path = "pure/rdf.rs"]
mod rdf;
#[path = "pure/source.rs"]
mod source;
