//! JSON Schema to token masks and forced tokens, through llguidance.

/// A compiled grammar. Cloning is cheap.
#[derive(Clone)]
pub struct Grammar {}
