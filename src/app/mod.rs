//! Composition root: builds everything, and knows the order of starting and stopping.
